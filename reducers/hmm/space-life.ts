import { firstOverlap, overlapping, put, trimmed, unite } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { U64_MAX } from '../../core/u64.js';
import { MAP_SHARED } from '../memory/flags.js';
import { type PageTable, type Pte, pageTableOf, pieces, setRun } from '../memory/pagetable.js';
import { VMA_DONTFORK, VMA_WIPEONFORK, type Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { hasAnon } from './anon.js';
import { actOn, Machine, NOTIFY_PROTECTION_PAGE, NOTIFY_RELEASE } from './machine.js';
import { restoreExclusive } from './touch.js';

/**
 * Page tables when address spaces are copied (fork) and when they end (exit, execve).
 *
 * fork copies the entries of private mappings that ever held an anonymous page, and takes the right to write away
 * on both sides: the pages are shared until somebody writes; device-private entries too. Exclusive ones are given
 * back to the CPU first. Mirrors of the parent are told for each such mapping; the child has no mirrors. Entries of
 * shared mappings are not copied: the child finds the pages by its own faults (mm/memory.c `copy_page_range`).
 */
export function forkPages(tx: Tx, parent: PageTable, childSpace: number, seq: number): void {
  const machine = Machine.of(tx, parent.space, seq);
  if (machine === undefined) return;
  const child = pageTableOf(tx, childSpace, parent.knowledge);
  for (const vma of machine.vmasIn(0, U64_MAX)) {
    if (vma.flags & MAP_SHARED || vma.traits & (VMA_DONTFORK | VMA_WIPEONFORK)) continue;
    forkVma(machine, child, vma);
  }
  forkUnmapped(machine, child);
  const { devices, strayed } = machine;
  const data = machine.data.freeze();
  const { unseenSince } = parent;
  const family = kinshipOf(tx, parent);
  tx.world.pageTables.set(childSpace, Object.freeze({ ...child, data, devices, strayed, unseenSince, family }));
  tx.openTable(tx.world.kinships, family, 'members').set(childSpace, childSpace);
  machine.store(tx);
}

/** The kinship of a space that has a child now. */
function kinshipOf(tx: Tx, parent: PageTable): number {
  if (parent.family !== 0) return parent.family;
  const id = tx.nextId('kinships');
  const members = tx.adopt(OrderedMap.numeric<number, number>()).set(parent.space, parent.space);
  tx.world.kinships.set(id, Object.freeze({ id, members }));
  const now = tx.world.pageTables.get(parent.space) ?? parent;
  tx.world.pageTables.set(parent.space, Object.freeze({ ...now, family: id }));
  return id;
}

function leaveKinship(tx: Tx, space: number, family: number): void {
  if (!tx.world.kinships.has(family)) return;
  const members = tx.openTable(tx.world.kinships, family, 'members');
  members.delete(space);
  if (members.size === 0) tx.world.kinships.delete(family);
}

function forkVma(machine: Machine, child: PageTable, vma: Vma): void {
  const held = pieces(machine.runs, vma.start, vma.last);
  const own = held.some(({ pte }) => pte !== undefined && pte.kind !== 'zero' && pte.kind !== 'file');
  if (!own && !hasAnon(machine, vma)) return;
  const { start: from, last: to } = vma;
  const moved = firstOverlap(machine.anon, from, to)?.moved ?? 0;
  put(child.anon, Object.freeze({ start: from, last: to, moved }), trimmed, (a, b) => a.moved === b.moved);
  for (const { start, last } of overlapping(machine.tables, from, to)) unite(child.tables, start, last);
  machine.invalidate(NOTIFY_PROTECTION_PAGE, vma.start, vma.last);
  for (const piece of held) if (piece.pte?.kind === 'exclusive') restoreExclusive(machine, vma, piece, piece.pte);
  for (const { start, last, pte } of pieces(machine.runs, vma.start, vma.last)) {
    if (pte === undefined) continue;
    const shared: Pte = pte.kind === 'zero' || pte.kind === 'file' ? pte : { ...pte, write: false, cow: true };
    setRun(machine.runs, start, last, shared);
    setRun(child.runs, start, last, shared);
  }
}

/** Pages that no recorded call mapped are there in the child too: the program, the heap and the stack are copied. */
function forkUnmapped(machine: Machine, child: PageTable): void {
  for (const run of machine.runs.values())
    if (machine.vmaAt(run.start) === undefined) setRun(child.runs, run.start, run.last, run);
}

/** The space is gone: so are its entries, and all that its mirrors held (MMU_NOTIFY_RELEASE). */
export function dropPages(tx: Tx, space: number, seq: number): void {
  const mm = tx.world.pageTables.get(space)?.mm ?? null;
  if (mm !== null && tx.world.mms.get(mm) === space) {
    tx.world.mms.delete(mm);
    tx.world.notified.delete(mm);
  }
  leaveKinship(tx, space, tx.world.pageTables.get(space)?.family ?? 0);
  tx.world.pageTables.delete(space);
  for (const mirror of [...tx.world.mirrors.values()]) {
    if (mirror.space !== space) continue;
    const ptes = tx.openTable(tx.world.mirrors, mirror.id, 'ptes');
    const now = tx.world.mirrors.get(mirror.id) ?? mirror;
    const changed = { ...now, ptes };
    actOn(changed, { start: 0, last: U64_MAX, seq, type: NOTIFY_RELEASE, device: -1, derived: true });
    const { invalidations, recent } = changed;
    tx.world.mirrors.set(mirror.id, Object.freeze({ ...now, invalidations, recent }));
  }
}
