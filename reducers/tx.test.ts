import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { OrderedMap } from '../core/ordered-map.js';
import { suite } from '../core/testing.js';
import { newSpace } from './memory/spaces.js';
import { Tx } from './tx.js';
import { emptyWorld, WORLD_TABLES } from './world.js';

const test = suite('tx');

test('a snapshot is frozen, and a transaction on it leaves it as it was', () => {
  const tx = new Tx(emptyWorld());
  const space = newSpace(tx, true);
  const snapshot = tx.commit();
  const hash = hashCanonical(snapshot);
  for (const name of WORLD_TABLES) assert.ok(snapshot[name].isFrozen, name);
  assert.throws(() => snapshot.threads.set(1, 1), /frozen/);
  assert.throws(() => snapshot.spaces.get(space.id)?.vmas.delete(0), /frozen/);

  const next = new Tx(snapshot);
  next.world.threads.set(7, 7);
  next.openTable(next.world.spaces, space.id, 'fileVmas').set(1, 1);
  next.update(next.world.spaces, space.id, (draft) => {
    draft.users = 5;
  });
  next.nextId('spaces');
  const after = next.commit();
  assert.is(hashCanonical(snapshot), hash);
  assert.is(after.spaces.get(space.id)?.users, 5);
  assert.is(after.spaces.get(space.id)?.fileVmas.size, 1);
  assert.is(after.counters.get('spaces'), 2);
});

test('a nested table is cloned once, then written in place, and frozen at the end', () => {
  const begun = new Tx(emptyWorld());
  const { id } = newSpace(begun, true);
  const tx = new Tx(begun.commit());
  const first = tx.openTable(tx.world.spaces, id, 'fileVmas');
  assert.is(tx.openTable(tx.world.spaces, id, 'fileVmas'), first);
  tx.update(tx.world.spaces, id, (draft) => {
    draft.users = 2;
  });
  assert.is(tx.openTable(tx.world.spaces, id, 'fileVmas'), first, 'a recipe leaves tables alone');
  tx.commit();
  assert.ok(first.isFrozen);
});

test('ids go on where the snapshot left them', () => {
  const tx = new Tx(emptyWorld());
  assert.equal([tx.nextId('a'), tx.nextId('a'), tx.nextId('b')], [1, 2, 1]);
  assert.is(tx.lastId('a'), 2, 'known before the commit');
  const next = new Tx(tx.commit());
  assert.is(next.lastId('a'), 2);
  assert.is(next.nextId('a'), 3);
  assert.is(next.lastId('never'), 0);
});

test('a savepoint is a snapshot to which everything goes back: tables, nested tables, ids', () => {
  const tx = new Tx(emptyWorld());
  const { id } = newSpace(tx, true);
  tx.openTable(tx.world.spaces, id, 'fileVmas').set(1, 1);
  const before = tx.savepoint();
  const hash = hashCanonical(before);
  const change = (): void => {
    tx.openTable(tx.world.spaces, id, 'fileVmas').set(2, 2);
    tx.world.threads.set(7, 7);
    newSpace(tx, true);
  };
  change();
  tx.rollBack(before);
  assert.is(tx.lastId('spaces'), id);
  change();
  tx.rollBack(before);
  const after = tx.commit();
  assert.is(hashCanonical(before), hash);
  assert.is(hashCanonical(after), hash);
  for (const name of WORLD_TABLES) assert.ok(after[name].isFrozen, name);
});

test('no record: a change is none, and opening a table of it is our own bug', () => {
  const tx = new Tx(emptyWorld());
  tx.update(tx.world.spaces, 9, () => assert.unreachable());
  assert.throws(() => tx.openTable(tx.world.spaces, 9, 'vmas'), /no record 9/);
});

test('a table that is adopted is frozen with the rest', () => {
  const tx = new Tx(emptyWorld());
  const table = tx.adopt(OrderedMap.numeric<number, number>());
  table.set(1, 1);
  tx.commit();
  assert.ok(table.isFrozen);
});
