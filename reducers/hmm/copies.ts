import type { RangeMap } from '../../core/interval.js';
import { add, alignDown, lastOf, mul, type U64 } from '../../core/u64.js';
import { type DataRun } from '../memory/pagetable.js';
import type { AddressSpace } from '../memory/state.js';
import type { Tx } from '../tx.js';
import type { DmirrorArgs } from './answer.js';
import type { CommandName } from './commands.js';
import { copyHeld, type Held, heldIn, hold, holdBytes, UNKNOWN_DATA } from './contents.js';
import type { Machine } from './machine.js';
import type { Mirror } from './state.js';
import { snapshotBytes, type Trial } from './trials.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * What commands copy between the device and the caller's buffer, as far as it is known to be zeros: READ, MIGRATE_TO_DEV
 * and EXCLUSIVE fill the buffer with what the range holds, WRITE the range with what the buffer holds, and SNAPSHOT puts
 * its answer into the buffer. `own` is the caller's space, which may be another than the mirrored one.
 */
export function followContents(
  tx: Tx,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  { machine, outcome }: Trial,
  own: AddressSpace | undefined,
): void {
  if (own === undefined || machine.knowledge !== 'calls' || outcome.errno !== '') return;
  const { start, last, ptr, npages } = args;
  const bufferLast = lastOf(ptr, mul(npages, PAGE_BYTES));
  if (bufferLast === undefined) return;
  const same = own.id === machine.space.id;
  switch (name) {
    case 'write': {
      const from = same ? heldIn(machine.data, ptr, bufferLast) : heldElsewhere(tx, own.id, ptr, bufferLast);
      if (machine.data.size > 0 || from.some(({ upto }) => upto !== 0))
        copyHeld(from, ptr, machine.dataToWrite(), start);
      return;
    }
    case 'read':
    case 'migrateToDev':
    case 'exclusive': {
      const from = heldIn(machine.data, start, last);
      const to = bufferData(tx, machine, own.id, same);
      if (to !== undefined) copyHeld(from, start, to, ptr);
      return;
    }
    case 'snapshot': {
      const to = bufferData(tx, machine, own.id, same);
      if (to !== undefined) holdBytes(to, ptr, snapshotBytes(outcome, start, mirror.device, npages));
      return;
    }
    default:
  }
}

/** A copy to the caller's buffer stopped somewhere: what the buffer holds is not known. */
export function spoilBuffer(
  tx: Tx,
  { ptr, npages }: DmirrorArgs,
  machine: Machine,
  own: AddressSpace | undefined,
): void {
  const bufferLast = lastOf(ptr, mul(npages, PAGE_BYTES));
  if (own === undefined || bufferLast === undefined || machine.knowledge !== 'calls') return;
  const data = bufferData(tx, machine, own.id, own.id === machine.space.id);
  if (data !== undefined) hold(data, alignDown(ptr, PAGE_BYTES), pageLast(bufferLast), UNKNOWN_DATA);
}

function pageLast(address: U64): U64 {
  return add(alignDown(address, PAGE_BYTES), PAGE_BYTES - 1);
}

/** What memory of another space holds; zeros are known where its process writes nothing by itself. */
function heldElsewhere(tx: Tx, space: number, start: U64, last: U64): readonly Held[] {
  const table = tx.world.pageTables.get(space);
  return table?.knowledge === 'calls' ? heldIn(table.data, start, last) : [{ start, last, upto: UNKNOWN_DATA }];
}

function bufferData(tx: Tx, machine: Machine, space: number, same: boolean): RangeMap<DataRun> | undefined {
  if (same) return machine.dataToWrite();
  return tx.world.pageTables.has(space) ? tx.openTable(tx.world.pageTables, space, 'data') : undefined;
}
