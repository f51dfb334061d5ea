import { putU32, putU64 } from '../core/bytes.js';
import { Random } from './random.js';
import { StraceText } from './strace-text.js';

/**
 * Makes captures of any size whose right answers are known: map/unmap churn on a type1 container or an IOAS
 * with a steady number of live mappings. The text streams; a 1M-call capture is about 540 MB.
 */
export interface ChurnOptions {
  /** ioctls in all, apart from the dozen that set things up. */
  readonly calls: number;
  /** Mappings alive at once, after a start in which only MAPs happen. */
  readonly live: number;
  readonly seed: number;
  readonly kind: 'type1' | 'iommufd';
  /** Bytes of each mapping; 1 to 16 pages where it is left out. */
  readonly areaBytes?: number;
}

const PAGE = 4096;
const STRUCT_AT = 0x7ffd_0000_1000;
const MEMORY_AT = 0x7000_0000_0000;
const SLOT_PAGES = 16;
const CHUNK_BYTES = 1 << 20;

const TYPE1 = '3</dev/vfio/vfio>';
const IOMMU = '3</dev/iommu>';
const MAP_DMA = 'VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA';
const GET_INFO = 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO or VFIO_IOMMU_GET_INFO';
const UNMAP_DMA = 'VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA';

function words(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  values.forEach((value, i) => putU32(bytes, i * 4, value));
  return bytes;
}

/** The calls before the churn: a container with one group, or an IOAS with id 1. */
function setUp(out: StraceText, options: ChurnOptions): void {
  const slots = options.live * 2;
  out.line('execve("/bin/churn", ["churn"], 0x7ffe00000000 /* 3 vars */) = 0');
  out.line(
    `mmap(0x${MEMORY_AT.toString(16)}, ${slots * slotBytes(options)}, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x${MEMORY_AT.toString(16)}`,
  );
  if (options.kind === 'iommufd') {
    out.line(`openat(AT_FDCWD</tmp>, "/dev/iommu", O_RDWR) = ${IOMMU}`);
    out.ioctl(IOMMU, 'IOMMU_IOAS_ALLOC', STRUCT_AT, words(12, 0, 0), '0', words(12, 0, 1));
    return;
  }
  out.line(`openat(AT_FDCWD</tmp>, "/dev/vfio/vfio", O_RDWR) = ${TYPE1}`);
  out.line('openat(AT_FDCWD</tmp>, "/dev/vfio/7", O_RDWR) = 4</dev/vfio/7>');
  out.ioctl('4</dev/vfio/7>', 'VFIO_GROUP_SET_CONTAINER', STRUCT_AT, words(3), '0');
  out.line(`ioctl(${TYPE1}, VFIO_SET_IOMMU, 0x3) = 0`);
  const asked = words(...Array<number>(INFO_BYTES / 4).fill(0));
  putU32(asked, 0, INFO_BYTES);
  out.ioctl(TYPE1, GET_INFO, STRUCT_AT, asked, '0', typeInfo());
}

const INFO_BYTES = 104;
/** More than live at once: as with the module parameter dma_entry_limit. */
const ENTRIES_LEFT = 1_000_000;

/** What GET_INFO says of an IOMMU of 39 bits that reserves nothing. */
function typeInfo(): Uint8Array {
  const info = new Uint8Array(INFO_BYTES);
  const put = (at: number, ...values: number[]): void => {
    values.forEach((value, i) => putU32(info, at + 4 * i, value));
  };
  put(0, INFO_BYTES, 3, PAGE, 0, 24);
  put(24, 0x1_0002, 56, 0, 0, PAGE, 0, 1 << 28);
  put(56, 0x1_0003, 72, ENTRIES_LEFT);
  put(72, 0x1_0001, 0, 1);
  putU64(info, 96, 2 ** 39 - 1);
  return info;
}

function slotBytes({ areaBytes = SLOT_PAGES * PAGE }: ChurnOptions): number {
  return areaBytes;
}

/** The structs of one churn call, reused. */
class Structs {
  readonly #map: Uint8Array;
  readonly #unmap: Uint8Array;
  readonly #kind: ChurnOptions['kind'];
  readonly #slotBytes: number;

  constructor(options: ChurnOptions) {
    const { kind } = options;
    this.#kind = kind;
    this.#slotBytes = slotBytes(options);
    this.#map = kind === 'type1' ? words(32, 3, 0, 0, 0, 0, 0, 0) : words(40, 7, 1, 0, 0, 0, 0, 0, 0, 0);
    this.#unmap = kind === 'type1' ? words(24, 0, 0, 0, 0, 0) : words(24, 1, 0, 0, 0, 0);
  }

  map(slot: number, lengthBytes: number): Uint8Array {
    const at = this.#kind === 'type1' ? { va: 8, iova: 16, length: 24 } : { va: 16, iova: 32, length: 24 };
    putU64(this.#map, at.va, MEMORY_AT + slot * this.#slotBytes);
    putU64(this.#map, at.iova, slot * this.#slotBytes);
    putU64(this.#map, at.length, lengthBytes);
    return this.#map;
  }

  unmap(slot: number, lengthBytes: number): Uint8Array {
    putU64(this.#unmap, 8, slot * this.#slotBytes);
    putU64(this.#unmap, 16, lengthBytes);
    return this.#unmap;
  }
}

/** The text of a churn capture, in chunks of about 1 MiB. */
export function* churn(options: ChurnOptions): Generator<string> {
  const random = new Random(options.seed);
  const out = new StraceText(1234);
  const structs = new Structs(options);
  const lengths = new Float64Array(options.live * 2);
  const mapped = new Uint32Array(options.live * 2);
  const free = Array.from(lengths, (_, i) => i);
  let live = 0;
  setUp(out, options);
  const [fd, mapName, unmapName] =
    options.kind === 'type1' ? [TYPE1, MAP_DMA, UNMAP_DMA] : [IOMMU, 'IOMMU_IOAS_MAP', 'IOMMU_IOAS_UNMAP'];
  for (let i = 0; i < options.calls; i++) {
    if (live < options.live) {
      const pick = random.below(free.length);
      const slot = free[pick] as number;
      free[pick] = free.at(-1) as number;
      free.pop();
      lengths[slot] = options.areaBytes ?? (1 + random.below(SLOT_PAGES)) * PAGE;
      mapped[live++] = slot;
      out.ioctl(fd, mapName, STRUCT_AT, structs.map(slot, lengths[slot]), '0');
    } else {
      const pick = random.below(live);
      const slot = mapped[pick] as number;
      mapped[pick] = mapped[--live] as number;
      free.push(slot);
      out.ioctl(fd, unmapName, STRUCT_AT, structs.unmap(slot, lengths[slot] as number), '0');
    }
    if (out.bufferedBytes >= CHUNK_BYTES) yield out.take();
  }
  yield out.take();
}
