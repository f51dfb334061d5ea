import { fc } from '../../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { type FieldAt, Lab, MEMORY, mapStruct, struct } from '../testing.js';
import { IOMMU_MAP_DMA, IOMMU_UNMAP_DMA, UNMAP_ALL } from '../uapi.js';

const test = suite('type1 map and unmap, against a list of pages');

const PAGE = 4096;
const PAGES = 24;

/** Mappings as a list of page ranges, with the manual's rules written down once more and naively. */
class Naive {
  readonly #v1: boolean;
  #list: { first: number; last: number }[] = [];

  constructor(v1: boolean) {
    this.#v1 = v1;
  }

  map(first: number, count: number): string {
    if (count === 0) return 'EINVAL';
    const last = first + count - 1;
    if (this.#list.some((one) => one.first <= last && one.last >= first)) return 'EEXIST';
    this.#list.push({ first, last });
    return '';
  }

  /** Pages that went, or -1 for EINVAL. */
  unmap(first: number, count: number, all: boolean): number {
    if (!all && count === 0) return -1;
    const last = all ? Number.MAX_SAFE_INTEGER : first + count - 1;
    const inside = this.#list.filter((one) => one.first <= last && one.last >= first);
    const cut = inside.some((one) => one.first < first || one.last > last);
    if (!this.#v1 && cut) return -1;
    if (this.#v1 && inside.some((one) => one.first < first)) return 0;
    this.#list = this.#list.filter((one) => !inside.includes(one));
    return inside.reduce((sum, one) => sum + one.last - one.first + 1, 0);
  }
}

const page = fc.integer({ min: 0, max: PAGES });
const step = fc.record({
  what: fc.constantFrom('map', 'map', 'map', 'unmap', 'unmap', 'all'),
  first: page,
  count: fc.integer({ min: 0, max: 8 }),
});

function mapOnce(lab: Lab, naive: Naive, first: number, count: number): void {
  const errno = naive.map(first, count);
  const vaddr: FieldAt = [8, MEMORY + first * PAGE, 8];
  const answer = lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(first * PAGE, count * PAGE, [vaddr]), errno });
  assert.is(answer.verdict, 'match', answer.explanation);
}

function unmapOnce(lab: Lab, naive: Naive, first: number, count: number, all: boolean): void {
  const gone = naive.unmap(all ? 0 : first, count, all);
  const head: FieldAt[] = all ? [[4, UNMAP_ALL]] : [[8, first * PAGE, 8]];
  const size: FieldAt = [16, all ? 0 : count * PAGE, 8];
  const answer = lab.ioctl(3, IOMMU_UNMAP_DMA, {
    in: struct(24, ...head, size),
    out: struct(24, ...head, gone < 0 ? size : [16, gone * PAGE, 8]),
    errno: gone < 0 ? 'EINVAL' : '',
  });
  assert.is(answer.verdict, 'match', answer.explanation);
}

test('every answer and every returned size agree, in both versions', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.array(step, { maxLength: 40 }), (v1, steps) => {
      const lab = new Lab().container(v1 ? 1 : 3);
      const naive = new Naive(v1);
      for (const { what, first, count } of steps) {
        if (what === 'map') mapOnce(lab, naive, first, count);
        else unmapOnce(lab, naive, first, count, what === 'all');
      }
      const held = [...(lab.world.containers.get(1)?.mappings.values() ?? [])];
      const pins = [...lab.world.spaces.values()].reduce((sum, space) => sum + space.pins.size, 0);
      assert.is(pins, held.length, 'one pin for each mapping');
    }),
    { numRuns: 400 },
  );
});
