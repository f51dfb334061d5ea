import { MIGRATION_P2P, MIGRATION_PRE_COPY, MIGRATION_STOP_COPY } from '../uapi.js';

/**
 * The states of a migrating device and the way from one to another (linux/vfio.h, `enum vfio_device_mig_state`).
 *
 * A request may ask for any state; the kernel walks there arc by arc. The way is the shortest one that passes no state
 * of the saving group (PRE_COPY, PRE_COPY_P2P, STOP_COPY) unless it begins and ends in that group. It is laid out
 * with all optional states; the states that a device does not support are then stepped over. Nothing leads out of
 * ERROR or into it, and not from STOP_COPY back to the other states of its group.
 */
export const STATE_ERROR = 0;
export const STATE_STOP = 1;
export const STATE_RUNNING = 2;
export const STATE_STOP_COPY = 3;
export const STATE_RESUMING = 4;
export const STATE_RUNNING_P2P = 5;
export const STATE_PRE_COPY = 6;
export const STATE_PRE_COPY_P2P = 7;
const STATES = 8;

/** `to` by `from`: what a driver with all optional states implements. */
const ARCS: readonly (readonly number[])[] = [
  [],
  [STATE_RUNNING_P2P, STATE_STOP_COPY, STATE_RESUMING],
  [STATE_RUNNING_P2P, STATE_PRE_COPY],
  [STATE_STOP],
  [STATE_STOP],
  [STATE_RUNNING, STATE_STOP, STATE_PRE_COPY_P2P],
  [STATE_RUNNING, STATE_PRE_COPY_P2P],
  [STATE_PRE_COPY, STATE_RUNNING_P2P, STATE_STOP_COPY],
];

/** Migration flags that a device needs for a state. */
const NEEDS: readonly number[] = [
  0x1_0000,
  MIGRATION_STOP_COPY,
  MIGRATION_STOP_COPY,
  MIGRATION_STOP_COPY,
  MIGRATION_STOP_COPY,
  MIGRATION_STOP_COPY | MIGRATION_P2P,
  MIGRATION_STOP_COPY | MIGRATION_PRE_COPY,
  MIGRATION_STOP_COPY | MIGRATION_P2P | MIGRATION_PRE_COPY,
];

const isSaving = (state: number): boolean =>
  state === STATE_PRE_COPY || state === STATE_PRE_COPY_P2P || state === STATE_STOP_COPY;

/** The states on the way, without the first; undefined when there is no way. */
function way(from: number, to: number): readonly number[] | undefined {
  if (from === STATE_STOP_COPY && isSaving(to)) return undefined;
  const insideGroup = isSaving(from) && isSaving(to);
  let heads: (readonly number[])[] = [[from]];
  for (let steps = 0; steps < STATES; steps++) {
    const longer: (readonly number[])[] = [];
    for (const path of heads) {
      for (const next of ARCS[path[path.length - 1] as number] as readonly number[]) {
        if (next === to) return [...path.slice(1), to];
        if (!isSaving(next) || insideGroup) longer.push([...path, next]);
      }
    }
    heads = longer;
  }
  return undefined;
}

const WAYS: readonly (readonly (readonly number[] | undefined)[])[] = ARCS.map((_, from) =>
  ARCS.map((__, to) => (from === to ? undefined : way(from, to))),
);

/** Whether a device with these migration flags has the state. */
export function supportsState(flags: number, state: number): boolean {
  const needs = NEEDS[state];
  return needs !== undefined && (flags & needs) === needs;
}

/**
 * The next state on the way `from` -> `to` (different states) for a device with these migration flags; undefined when
 * the request fails with EINVAL.
 */
export function nextState(flags: number, from: number, to: number): number | undefined {
  if (!supportsState(flags, from) || !supportsState(flags, to)) return undefined;
  return WAYS[from]?.[to]?.find((state) => supportsState(flags, state));
}
