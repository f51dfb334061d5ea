import { rangeAt } from '../core/interval.js';
import { hex, lastOf, modPow2, type U64 } from '../core/u64.js';
import type { Call } from './call.js';
import { givenText } from './explain-given.js';
import { type PinRequest, probePin } from './memory/pin.js';
import { VMA_PFNMAP, type Vma } from './memory/state.js';
import type { Tx } from './tx.js';

/**
 * The particulars of a rejection, in words: which mapping is in the way, which address is not mapped, which field is uneven.
 *
 * A rule says when it applies; what the model saw stands here, by the rule's id, and is put into words when somebody
 * asks for `Call.told`. Events are named as `event N`, so that a reader of the text can find them.
 */
export type Explanations = Readonly<Record<string, (call: Call) => string | Told>>;

export interface Told {
  readonly text: string;
  /** What an earlier event did to it tells more. */
  readonly about?: Subject | undefined;
}

/** Something that a recording can be searched for: who unmapped this memory, or this IOVA, or destroyed this object. */
export type Subject =
  /** `since`: the event that mapped what is there now, -1 where nothing is. What came before it does not count. */
  | { readonly kind: 'memory'; readonly space: number; readonly at: U64; readonly since: number }
  /** `since`: the event that mapped it, which stands, -1 where it is not mapped. */
  | { readonly kind: 'iova'; readonly table: string; readonly start: U64; readonly last: U64; readonly since: number }
  | { readonly kind: 'object'; readonly context: number; readonly id: number }
  | { readonly kind: 'backend'; readonly container: number };

/** Names of the tables that IOVAs are keys of. */
export const containerTable = (id: number): string => `container ${id}`;
export const ioasTable = (key: number): string => `ioas ${key}`;

const NOTHING: Told = Object.freeze({ text: '' });

/** The entry for the rule that decided; where it has none, a rejection says what it was given. */
export function explained(table: Explanations, call: Call): Told {
  const entry = Object.hasOwn(table, call.rule) ? table[call.rule]?.(call) : undefined;
  const told = typeof entry === 'string' ? { text: entry } : (entry ?? NOTHING);
  return told.text === '' && call.predictedErrno !== '' ? { text: givenText(call) } : told;
}

/** `0x1000-0x1fff`, both ends included. */
export function rangeText(start: U64, last: U64): string {
  return `${hex(start)}-${hex(last)}`;
}

/** The range that `length` bytes from `start` are, also where there is no such range. */
export function spanText(start: U64, length: U64): string {
  const last = lastOf(start, length);
  return last === undefined ? `${hex(start)} and ${hex(length)} bytes from there` : rangeText(start, last);
}

/** `iova 0x1001, size 0x800; multiples of 0x1000 are needed`: those of the fields that are uneven. `why`: who needs them. */
export function unevenText(fields: Readonly<Record<string, U64>>, unit: number, why = ''): string {
  const uneven = Object.entries(fields).filter(([, value]) => modPow2(value, unit) !== 0);
  return `${fieldsText(Object.fromEntries(uneven))}; multiples of ${hex(unit)} are needed${why}`;
}

/** `iova 0x1000, size 0x800`. */
export function fieldsText(fields: Readonly<Record<string, U64>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name} ${hex(value)}`)
    .join(', ');
}

/** `flags 0x13, of which 0x10 is unknown`. */
export function unknownBitsText(flags: number, known: number): string {
  return `flags ${hex(flags)}, of which ${hex((flags & ~known) >>> 0)} is unknown`;
}

/** A 32-bit field of the struct, where the recording has it. */
export function fieldText(call: Call, offset: number, name: string): string {
  return call.struct.has(offset, 4) ? `${name} ${hex(call.struct.u32(offset))}` : `${name} not recorded`;
}

/** How many bits an address needs. */
export function bitsOf(address: U64): number {
  return BigInt(address).toString(2).length;
}

/** The first of many, joined by commas. */
export function listText(items: Iterable<string>, max = 6): string {
  const shown: string[] = [];
  let more = 0;
  for (const item of items) {
    if (shown.length < max) shown.push(item);
    else more++;
  }
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
}

/** `0x3000 of user memory 0x1000-0x3fff: nothing is mapped there`; undefined where all of it can be pinned. */
export function unpinnable(
  tx: Tx,
  spaceId: number,
  start: U64,
  lengthBytes: U64,
  request: PinRequest,
): Told | undefined {
  const last = lastOf(start, lengthBytes);
  if (last === undefined) return undefined;
  const answer = probePin(tx, spaceId, start, last, request);
  if (answer.kind === 'ok') return undefined;
  const vmas = tx.world.spaces.get(spaceId)?.vmas;
  const vma = vmas === undefined ? undefined : rangeAt(vmas, answer.at);
  const where = vma === undefined ? '' : ` (${vmaText(tx, vma)})`;
  const isBar = vma !== undefined && (vma.traits & VMA_PFNMAP) !== 0 && !request.pfnmapOk;
  const way = isBar ? '; iommufd takes a BAR as a dma-buf only, by IOAS_MAP_FILE' : '';
  return {
    text: `${hex(answer.at)} of user memory ${rangeText(start, last)}: ${answer.why}${where}${way}`,
    about: { kind: 'memory', space: spaceId, at: answer.at, since: vma?.since ?? -1 },
  };
}

/** `0x1000-0x1fff of event 12`, and what is behind it. */
export function vmaText(tx: Tx, vma: Vma): string {
  const file = vma.file === 0 ? undefined : tx.world.files.get(vma.file);
  const name = file === undefined ? '' : file.objectKey !== '' ? file.objectKey : file.path;
  const bar = vma.traits & VMA_PFNMAP ? 'a BAR of ' : 'a mapping of ';
  return `${name === '' ? '' : `${bar}${name}, `}${rangeText(vma.start, vma.last)} of event ${vma.since}`;
}
