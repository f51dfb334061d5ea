import { firstGap, overlapping, rangeAt } from '../../core/interval.js';
import { add, hex, lastOf, mul, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { type Explanations, fieldsText, rangeText, type Told, vmaText } from '../explain.js';
import { PAGE_BYTES, PROT_READ, PROT_WRITE } from '../memory/flags.js';
import { type AddressSpace, VMA_GUARD, VMA_PFNMAP, type Vma } from '../memory/state.js';
import type { Mirror } from './state.js';

/**
 * Why dmirror's commands fail: the page that decides, for the rules of rules.ts. A failing command may have filled the
 * mirror, but it leaves the CPU's mappings as they are, which is what its rules ask.
 *
 * Struct: addr 0, ptr 8, npages 16.
 */
export const DMIRROR_EXPLANATIONS: Explanations = {
  'dmirror.fault': (call) => `the argument is ${hex(call.arg)}`,
  'dmirror.addr-aligned': (call) => `addr ${hex(call.struct.u64(0))}; multiples of ${hex(PAGE_BYTES)} are needed`,
  'dmirror.range': (call) => fieldsText({ addr: call.struct.u64(0), npages: call.struct.u64(16) }),
  'dmirror.bounce': (call) => fieldsText({ npages: call.struct.u64(16) }),
  'dmirror.buffer': (call) => fieldsText({ ptr: call.struct.u64(8), npages: call.struct.u64(16) }),
  'fault.range': (call) => refusedText(call, call.name === 'HMM_DMIRROR_WRITE'),
  'fault.write': (call) => refusedText(call, true),
  'migrate-to-dev.vma': (call) => refusedText(call, false),
  'migrate-to-sys.vma': (call) => refusedText(call, false),
  'exclusive.pages': (call) => refusedText(call, true),
  'exclusive.anonymous': (call) => firstVmaText(call, ({ file, flags }) => file !== 0 || (flags & 1) !== 0),
  'migrate-to-dev.read-back': noEntry,
  'exclusive.read-back': noEntry,
  'check-exclusive.atomic': exclusiveEntry,
};

interface Range {
  readonly start: U64;
  readonly last: U64;
}

function rangeOf(call: Call): Range | undefined {
  if (!call.struct.has(0, 24)) return undefined;
  const start = call.struct.u64(0);
  const last = lastOf(start, mul(call.struct.u64(16), PAGE_BYTES));
  return last === undefined ? undefined : { start, last };
}

function mirrorOf(call: Call): Mirror | undefined {
  return call.tx.world.mirrors.get(call.file.object);
}

function spaceOf(call: Call): AddressSpace | undefined {
  return call.tx.world.spaces.get(mirrorOf(call)?.space ?? 0);
}

/** The first page of the range that cannot be had as asked, and what is there. */
function refusedText(call: Call, write: boolean): string | Told {
  const range = rangeOf(call);
  const space = spaceOf(call);
  if (range === undefined || space === undefined) return '';
  for (let at: U64 = range.start; at <= range.last; ) {
    const vma = rangeAt(space.vmas, at);
    const where = `${hex(at)} of ${rangeText(range.start, range.last)}`;
    const about = { kind: 'memory', space: space.id, at, since: vma?.since ?? -1 } as const;
    if (vma === undefined) return { text: `${where}: nothing is mapped there`, about };
    const why = refusal(vma, write);
    if (why !== '') return { text: `${where}: ${why} (${vmaText(call.tx, vma)})`, about };
    if (vma.last >= range.last) return '';
    at = add(vma.last, 1);
  }
  return '';
}

function refusal(vma: Vma, write: boolean): string {
  if ((vma.prot & PROT_READ) === 0) return 'the memory is not readable';
  if (vma.traits & VMA_PFNMAP) return 'memory of a device, which has no struct pages';
  if (vma.traits & VMA_GUARD) return 'guard pages';
  return write && (vma.prot & PROT_WRITE) === 0 ? 'the memory is not writable' : '';
}

function firstVmaText(call: Call, wanted: (vma: Vma) => boolean): string {
  const range = rangeOf(call);
  const space = spaceOf(call);
  if (range === undefined || space === undefined) return '';
  const vma = overlapping(space.vmas, range.start, range.last).find(wanted);
  return vma === undefined ? '' : vmaText(call.tx, vma);
}

function noEntry(call: Call): string {
  const range = rangeOf(call);
  const mirror = mirrorOf(call);
  const gap = range === undefined || mirror === undefined ? undefined : firstGap(mirror.ptes, range.start, range.last);
  if (range === undefined || gap === undefined) return '';
  return `${hex(gap)} of ${rangeText(range.start, range.last)} has no entry in the mirror`;
}

function exclusiveEntry(call: Call): string {
  const range = rangeOf(call);
  const mirror = mirrorOf(call);
  if (range === undefined || mirror === undefined) return '';
  const entry = overlapping(mirror.ptes, range.start, range.last).find(({ access }) => access === 'atomic');
  return entry === undefined ? '' : `${rangeText(entry.start, entry.last)}, taken by event ${entry.since}`;
}
