import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { suite } from '../core/testing.js';
import { profileFor, profileOf, worldOf } from './profile.js';
import { Tx } from './tx.js';
import { emptyWorld } from './world.js';

const test = suite('profile');

const rows: readonly [string, string | undefined][] = [
  ['6.11', undefined],
  ['6.12', '6.12'],
  ['6.12.48-1', '6.12'],
  ['6.17', '6.12'],
  ['7.1-rc3', '6.12'],
  ['7.2', '7.2'],
  ['7.2.13', '7.2'],
  ['8.0', '7.2'],
  ['', undefined],
  ['seven', undefined],
];
for (const [release, since] of rows) {
  test(`${release === '' ? 'no release' : release} behaves as ${since ?? 'none'}`, () => {
    assert.is(profileFor(release)?.since, since);
  });
}

test('the state of the default release is the empty one; another release stands in the state', () => {
  assert.is(hashCanonical(worldOf('7.2')), hashCanonical(emptyWorld()));
  assert.is.not(hashCanonical(worldOf('6.12')), hashCanonical(emptyWorld()));
  assert.is(profileOf(new Tx(worldOf('6.12'))).rangeOverflowErrno, 'EINVAL');
  assert.is(profileOf(new Tx(emptyWorld())).rangeOverflowErrno, 'EOVERFLOW');
});
