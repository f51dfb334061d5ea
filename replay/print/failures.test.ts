import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import type { Failure, FailureGroup } from '../failures.js';
import type { LookBack } from '../look-back.js';
import type { Report } from '../report.js';
import { failuresText, shownFailures } from './failures.js';
import { PLAIN } from './style.js';

const test = suite('print/failures');

function failure(seq: number, call: string, reason = ''): Failure {
  return {
    call,
    errno: 'EEXIST',
    rule: 'map-dma.overlap',
    text: 'the range touches a mapping',
    reason,
    about: undefined,
    seq,
    file: 0,
    line: seq * 10,
  };
}

function report(groups: readonly FailureGroup[], files = ['run.strace']): Report {
  const failureCount = groups.reduce((sum, { count }) => sum + count, 0);
  return { failureGroups: groups, failureCount, idleGroups: [], info: { files } } as unknown as Report;
}

const BACK: LookBack = {
  events: new Map(),
  histories: new Map([[5, 'event 4 unmapped it']]),
  places: new Map([
    [3, { file: 0, line: 30 }],
    [4, { file: 1, line: 7 }],
  ]),
};

test('each reason says where it was met first, what it met and what happened before', () => {
  const groups = [
    { first: failure(5, 'VFIO_IOMMU_MAP_DMA', '0x0-0xfff overlaps mapping 0x0-0xfff of event 3'), count: 2 },
    { first: failure(9, 'VFIO_IOMMU_UNMAP_DMA'), count: 1 },
  ];
  assert.is(
    failuresText(report(groups), BACK, PLAIN),
    `failed, as they had to
  2  VFIO_IOMMU_MAP_DMA EEXIST: the range touches a mapping
     first at run.strace:50: 0x0-0xfff overlaps mapping 0x0-0xfff of event 3 (line 30); event 4
     (line 7) unmapped it
  1  VFIO_IOMMU_UNMAP_DMA EEXIST: the range touches a mapping
     at run.strace:90`,
  );
  assert.match(
    failuresText(report(groups, ['a.1', 'a.2']), BACK, PLAIN),
    /event 3 \(a\.1:30\); event 4 \(a\.2:7\)\n? *unmapped it/,
  );
});

test('of many reasons those of mappings come first, and the rest is counted', () => {
  const others = Array.from({ length: 20 }, (_, i) => ({ first: failure(i, `VFIO_DEVICE_${i}`), count: 100 }));
  const maps = ['VFIO_IOMMU_MAP_DMA', 'IOMMU_IOAS_UNMAP', 'IOMMU_IOAS_MAP_FILE', 'IOMMU_IOAS_COPY'];
  const all = report([...others, ...maps.map((call, i) => ({ first: failure(30 + i, call), count: 1 }))]);
  assert.equal(
    shownFailures(all)
      .slice(0, 5)
      .map(({ first }) => first.call),
    [...maps, 'VFIO_DEVICE_0'],
  );
  assert.match(failuresText(all, BACK, PLAIN), /\n +and 800 others; show --failed lists all$/);
});
