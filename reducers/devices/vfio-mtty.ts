import type { Bytes } from '../../core/bytes.js';

/**
 * The kernel's sample mediated device (samples/vfio-mdev/mtty.c): a serial card with one or two ports that stores what
 * is sent and gives it back. Of the mediated devices in Linux 7.2 it is the only one that can migrate, which is how
 * it is recognised.
 */

/** What its migration supports: stop-copy, P2P, pre-copy. */
export const MTTY_MIGRATION_FLAGS = 7;
/** Magic, versions, number of ports and flags, before the ports' state. */
export const MTTY_HEADER_BYTES = 24;
const PORT_BYTES = 36;
const PORT_COUNTS: readonly number[] = Object.freeze([1, 2]);
const MAGIC = 0x7e9d_0989_8c3e_2c4en;
const MAJOR_VERSION = 1;
const MINOR_VERSION = 0;

const CONFIG_BYTES = 0xff;
const BAR_BYTES = 8;
const CONFIG_REGION = 7;

/** All the state of a card with that many ports, in bytes. */
export function mttyDataBytes(ports: number): number {
  return MTTY_HEADER_BYTES + portsBytes(ports);
}

export function portsBytes(ports: number): number {
  return ports * PORT_BYTES;
}

/** The numbers of ports that a card can have, fewest first; `known` where the recording has told it. */
export function mttyPortCounts(known: number | undefined): readonly number[] {
  return known === undefined ? PORT_COUNTS : [known];
}

/** How many ports a card has whose state is so long; undefined when no card has such a state. */
export function mttyPortsOfData(bytes: number): number | undefined {
  if (bytes === mttyDataBytes(1)) return 1;
  return bytes === mttyDataBytes(2) ? 2 : undefined;
}

/** Size of a region, or undefined for BAR 1 while the number of ports is not known. */
export function mttyRegionBytes(index: number, ports: number | undefined): number | undefined {
  if (index === CONFIG_REGION) return CONFIG_BYTES;
  if (index === 0) return BAR_BYTES;
  if (index !== 1) return 0;
  return ports === undefined ? undefined : ports === 2 ? BAR_BYTES : 0;
}

/** Number of ports in a header. */
export function mttyHeaderPorts(header: Bytes): number {
  return header.u32(16);
}

/** Whether a card with that many ports takes a header that was written to it. */
export function mttyHeaderValid(header: Bytes, ports: number): boolean {
  return (
    header.u64(0) === MAGIC &&
    header.u32(8) === MAJOR_VERSION &&
    header.u32(12) === MINOR_VERSION &&
    mttyHeaderPorts(header) === ports &&
    header.u32(20) === 0
  );
}
