import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import { stateText } from './state.js';
import { PLAIN } from './style.js';
import { toPlain } from './values.js';

const test = suite('states as text');

function world(areas: number): object {
  const table = OrderedMap.numeric<number | bigint, object>();
  for (let i = 0; i < areas; i++) table.set(i * 0x1000, { start: i * 0x1000, last: i * 0x1000 + 0xfff, since: i });
  return {
    containers: OrderedMap.numeric<number, object>().set(1, { id: 1, iommu: 'type1', limit: null, areas: table }),
    groups: OrderedMap.numeric<number, object>(),
    threads: OrderedMap.numeric<number, number>().set(7, 7).set(8, 7),
    facts: OrderedMap.textual<string, object>().set('a/b', { value: Bytes.fromHex('0aff'), since: 3 }),
  };
}

test('records on lines, small tables on one, long ones cut with the way to the rest', () => {
  assert.is(
    stateText(world(3), PLAIN, { entries: 2, path: '' }),
    `containers (1)
  1: id 1, iommu "type1", limit null
    areas (3)
      0x0-0xfff: size 0x1000, since 0
      0x1000-0x1fff: size 0x1000, since 1
      … 1 more: --path containers.1.areas --all
threads (2)
  7: 7, 8: 7
facts (1)
  a/b: value 0aff, since 3
`,
  );
});

test('a part of it, a scalar, nothing', () => {
  assert.is(
    stateText({ start: 0x1000, last: 0xffff_ffff_ffff_ffffn, iova: 16 }, PLAIN, { entries: 2, path: 'x' }),
    'size 0xfffffffffffff000, iova 0x10\n',
  );
  assert.is(stateText(7, PLAIN, { entries: 2, path: 'a.b' }), '7\n');
  assert.is(stateText(4096, PLAIN, { entries: 2, path: 'a.iova' }), '0x1000\n');
  assert.is(stateText({}, PLAIN, { entries: 2, path: '' }), 'nothing\n');
  assert.is(stateText(OrderedMap.numeric(), PLAIN, { entries: 2, path: 'groups' }), 'none\n');
});

test('JSON keeps the order of keys and writes addresses in hex', () => {
  assert.is(
    JSON.stringify(toPlain(world(2))),
    '{"containers":{"1":{"id":1,"iommu":"type1","limit":null,"areas":{' +
      '"0x0":{"start":"0x0","last":"0xfff","since":0},"0x1000":{"start":"0x1000","last":"0x1fff","since":1}}}},' +
      '"groups":{},"threads":{"7":7,"8":7},"facts":{"a/b":{"value":"0aff","since":3}}}',
  );
  assert.is(JSON.stringify(toPlain({ huge: 0xffff_ffff_ffff_ffffn })), '{"huge":"0xffffffffffffffff"}');
});
