import type { Bytes } from '../../core/bytes.js';
import { alignDown, max, min, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { clearRuns, HUGE_BYTES, newPte, type Pte, pieces, setRun } from '../memory/pagetable.js';
import type { Vma } from '../memory/state.js';
import { corrected, type Subject } from './devices.js';
import { type CommandName, type Outcome, type Range, runCommand, snapshotByte } from './commands.js';
import type { CoherentPages, Machine, WorkMirror } from './machine.js';
import { isPrivateDevice } from './state.js';
import { touch } from './touch.js';

/**
 * A command on memory that the CPU may have touched since it was last seen.
 *
 * A recording of system calls alone does not show what the process read and wrote. The command is then tried on what
 * may be the case: the memory as it was last known, all of it read, all of it written; and with each size of free
 * device pages where that is unknown. Where all trials end alike, the answer is certain; else it is unknown, and
 * the trial that the recording agrees with becomes the state. Memory touched in part lies between the trials.
 */
export interface Trial {
  /** The size of free device pages that it began with. */
  readonly pages: CoherentPages;
  readonly machine: Machine;
  readonly outcome: Outcome;
}

type Touched = 'untouched' | 'written' | 'read';

/** Runs a command once where the memory is known, else once for each case. The machine given is used up. */
export function tryCommand(
  machine: Machine,
  mirrorId: number,
  name: CommandName,
  range: Range,
  subject: Subject,
  special: (vma: Vma) => boolean,
): readonly Trial[] {
  const cases: readonly Touched[] = machine.knowledge === 'nothing' ? ['untouched', 'written', 'read'] : ['untouched'];
  const { device, sizes } = subject;
  const trials: Trial[] = [];
  for (const touched of cases) {
    for (const coherentPages of sizes) {
      const own = cases.length * sizes.length === 1 ? machine : machine.copy();
      if (own.mirror(mirrorId)?.device === device) own.coherentPages = coherentPages;
      if (sizes.length > 1 && coherentPages !== 'fresh') assumePages(own, device, range, coherentPages);
      if (touched !== 'untouched') touchAll(own, range, touched === 'written');
      const mirror = own.mirror(mirrorId) as WorkMirror;
      trials.push({ pages: coherentPages, machine: own, outcome: runCommand(own, mirror, name, range, special) });
    }
  }
  return trials;
}

/** While the size is not known, what was taken to be in the device's memory is so in one case only. */
function assumePages(machine: Machine, device: number, range: Range, size: 'small' | 'large'): void {
  for (const { start, last, pte } of pieces(machine.runs, range.start, range.last)) {
    if (pte?.kind === 'coherent' && pte.device === device && pte.large !== (size === 'large'))
      setRun(machine.runs, start, last, corrected(pte, size));
  }
}

/** The CPU touches all that it may, around the range by whole huge blocks. */
function touchAll(machine: Machine, range: Range, write: boolean): void {
  const from = alignDown(range.start, HUGE_BYTES);
  for (const vma of machine.vmasIn(from, range.last)) {
    if ((vma.prot & (PROT_READ | PROT_WRITE)) === 0) continue;
    touch(machine, vma, max(vma.start, from), min(vma.last, range.last), write && (vma.prot & PROT_WRITE) !== 0);
  }
}

/** The pages of an outcome as bytes of SNAPSHOT, at most `count`. */
export function snapshotBytes(outcome: Outcome, start: U64, device: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (const pfns of outcome.pfns) {
    const from = Number(pageIndex(pfns.start, start));
    if (from >= count) break;
    bytes.fill(snapshotByte(pfns, device), from, Math.min(count, Number(pageIndex(pfns.last, start)) + 1));
  }
  return bytes;
}

function pageIndex(address: U64, start: U64): number {
  return Math.floor((Number(address) - Number(start)) / PAGE_BYTES);
}

/** Whether two trials answer alike, as far as a recording can show. */
export function alike(a: Outcome, b: Outcome, device: number): boolean {
  if (a.errno !== b.errno || a.cpages !== b.cpages || a.faults !== b.faults) return false;
  if ((a.dies === undefined) !== (b.dies === undefined)) return false;
  if (a.pfns.length !== b.pfns.length) return false;
  return a.pfns.every((pfns, index) => {
    const other = b.pfns[index];
    return (
      other !== undefined &&
      pfns.start === other.start &&
      pfns.last === other.last &&
      snapshotByte(pfns, device) === snapshotByte(other, device)
    );
  });
}

/** What a SNAPSHOT told becomes the page table of the range. Pages of which it tells nothing stay as they are. */
export function adoptSnapshot(machine: Machine, mirror: WorkMirror, start: U64, told: Bytes): void {
  let from = 0;
  while (from < told.length) {
    const byte = told.u8(from);
    let to = from + 1;
    while (to < told.length && told.u8(to) === byte) to++;
    adopt(machine, mirror, pageAt(start, from), endOfPage(start, to - 1), byte);
    from = to;
  }
}

function pageAt(start: U64, index: number): U64 {
  return Number(start) + index * PAGE_BYTES;
}

function endOfPage(start: U64, index: number): U64 {
  return Number(start) + index * PAGE_BYTES + PAGE_BYTES - 1;
}

function adopt(machine: Machine, mirror: WorkMirror, start: U64, last: U64, byte: number): void {
  if (byte === 0xff) return;
  if (byte === 0) {
    clearRuns(machine.runs, start, last);
    return;
  }
  const place = byte & 0x70;
  const kind = placeKind(place);
  const own = place === 0x20 || place === 0x40;
  const device = kind === 'private' || kind === 'coherent' ? (own ? mirror.device : mirror.device ^ 1) : -1;
  if (device >= 0) machine.devices |= 1 << device;
  const owner = machine.mirrors.find((other) => other.device === device);
  const huge = (byte & 4) !== 0;
  const write = (byte & 2) !== 0;
  const pte = newPte(kind, machine.seq, { write, huge, large: huge, device, mirror: owner?.id ?? 0 });
  if (device < 0 || isPrivateDevice(device) === (kind === 'private')) setRun(machine.runs, start, last, pte);
}

function placeKind(place: number): Pte['kind'] {
  if (place === 0x10) return 'zero';
  if (place === 0x20 || place === 0x30) return 'private';
  if (place === 0x40 || place === 0x50) return 'coherent';
  return 'anon';
}
