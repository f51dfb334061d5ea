/**
 * The kernel's sample displays (samples/vfio-mdev/mdpy.c, mbochs.c): mediated devices with a framebuffer, which the user finds
 * in a region (mdpy) or as dma-bufs (mbochs). They have neither interrupts nor features, and pin no memory. Their
 * regions lie one after the other in the device file, so that the place of one tells which driver it is.
 */
export type DisplayDriver = 'mdpy' | 'mbochs';

export interface DisplayRegion {
  readonly offset: number;
  /** Undefined for the framebuffer, whose size is the type of the device that the host made. */
  readonly bytes: number | undefined;
  readonly mappable: boolean;
  /** It says that it holds the EDID of the monitor. */
  readonly edid: boolean;
}

const CONFIG_REGION = 7;
const CONFIG: DisplayRegion = region(0, 0xff);
const NONE: DisplayRegion = region(0, 0);

/** Regions by index; those that are not named are empty. */
const REGIONS: Readonly<Record<DisplayDriver, ReadonlyMap<number, DisplayRegion>>> = {
  mdpy: new Map([
    [0, framebuffer(0x1000)],
    [CONFIG_REGION, CONFIG],
    [16, framebuffer(0x1000)],
  ]),
  mbochs: new Map([
    [0, framebuffer(0x3000)],
    [2, region(0x1000, 0x1000)],
    [CONFIG_REGION, CONFIG],
    [9, Object.freeze({ ...region(0x2000, 0x1000), edid: true })],
  ]),
};

const PCI_REGIONS = 9;

function region(offset: number, bytes: number | undefined): DisplayRegion {
  return Object.freeze({ offset, bytes, mappable: false, edid: false });
}

function framebuffer(offset: number): DisplayRegion {
  return Object.freeze({ offset, bytes: undefined, mappable: true, edid: false });
}

export function displayRegionCount(driver: DisplayDriver): number {
  return driver === 'mdpy' ? PCI_REGIONS : PCI_REGIONS + 1;
}

/** A region of a display, or undefined where it has none of that index. */
export function displayRegion(driver: DisplayDriver, index: number): DisplayRegion | undefined {
  return REGIONS[driver].get(index) ?? (index < PCI_REGIONS ? NONE : undefined);
}

/** The driver whose framebuffer lies there in the device file. */
export function displayOfFramebuffer(offset: number | bigint): DisplayDriver | undefined {
  if (offset === REGIONS.mdpy.get(0)?.offset) return 'mdpy';
  return offset === REGIONS.mbochs.get(0)?.offset ? 'mbochs' : undefined;
}
