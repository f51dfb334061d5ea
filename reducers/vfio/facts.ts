import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import type { Tx } from '../tx.js';

/**
 * Facts that VFIO learns, by key. What may be learned stands in the table of reducers/facts.ts; here are the
 * keys, made in one place so that a question asked in two ways has one fact.
 */

export function deviceKey(device: string, field: string): string {
  return `vfio-device/${device}/${field}`;
}

/** That a group has no device of a name. */
export function noDeviceKey(group: number, name: string): string {
  return `vfio-group/${group}/no-device/${name}`;
}

/** That all devices of a group are mediated. */
export function emulatedKey(group: number): string {
  return `vfio-group/${group}/emulated`;
}

/** Facts of the IOMMU behind a set of groups. */
export function iommuKey(groups: readonly number[], field: string): string {
  return `vfio-type1/${[...groups].sort((a, b) => a - b).join('+')}/${field}`;
}

export const ENTRY_LIMIT_KEY = 'vfio-type1/dma_entry_limit';
export const NOIOMMU_KEY = 'vfio/noiommu';

/** A fact that was stored as a number or as its little-endian bytes. */
export function numberFact(tx: Tx, key: string): U64 | undefined {
  const value = tx.world.facts.get(key)?.value;
  if (value instanceof Bytes) return value.length === 8 ? value.u64(0) : value.length === 4 ? value.u32(0) : undefined;
  return typeof value === 'string' ? undefined : value;
}

/** {@link numberFact} for 32-bit facts. */
export function smallFact(tx: Tx, key: string): number | undefined {
  const value = numberFact(tx, key);
  return typeof value === 'number' ? value : undefined;
}

/** Takes a fact over from the recorded answer; the verdict becomes `learned`. Only after a prediction. */
export function teach(call: Call, key: string, value: U64 | Bytes): void {
  call.tx.world.facts.set(key, Object.freeze({ value, since: call.event.seq }));
  call.noteLearned();
}
