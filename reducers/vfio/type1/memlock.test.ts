import { fc } from '../../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { NOTHING_LOCKED, type SpaceLocked } from '../../memory/locked.js';
import { ev } from '../../testing.js';
import { type Answer, type FieldAt, Lab, MDEV, MEMORY, mapStruct, struct, text } from '../testing.js';
import {
  GROUP_GET_DEVICE_FD,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  MAP_VADDR,
  UNMAP_VADDR,
} from '../uapi.js';
import { MAP_RULES as R } from './map.js';

const test = suite('type1 and RLIMIT_MEMLOCK');

const PAGE = 4096;
const CAP_IPC_LOCK = 1 << 14;
const UNLIMITED = 0xffff_ffff_ffff_ffffn;

function limit(lab: Lab, pages: number | bigint, tid = 1): void {
  const bytes = typeof pages === 'bigint' ? pages : pages * PAGE;
  lab.feed(ev('prlimit', { tid, oldSoft: bytes, oldHard: bytes }));
}

function caps(lab: Lab, effectiveCaps: number, tid = 1): void {
  lab.feed(ev('creds', { call: 'capget', tid, effectiveCaps, permittedCaps: effectiveCaps }));
}

/** A container with a PCI device; the process has a limit of so many pages and no capability. */
function limited(pages: number | bigint): Lab {
  const lab = new Lab().device();
  limit(lab, pages);
  caps(lab, 0);
  return lab;
}

function map(lab: Lab, iova: number, pages: number, errno = '', ...fields: readonly FieldAt[]): Answer {
  return lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(iova, pages * PAGE, fields), errno });
}

function lockedOf(lab: Lab, pid = 1): SpaceLocked {
  return lab.world.spaceLocked.get(lab.world.processes.get(pid)?.space ?? 0) ?? NOTHING_LOCKED;
}

function refused(answer: Answer, rule: string = R.memlock.id): void {
  assert.equal([answer.errno, answer.rule, answer.verdict], ['ENOMEM', rule, 'match'], answer.explanation);
}

test('what is locked and what is asked for, against the limit', () => {
  const rows: readonly [limit: number | bigint, before: readonly number[], pages: number, fits: boolean][] = [
    [4, [], 4, true],
    [4, [], 5, false],
    [4, [3], 1, true],
    [4, [3], 2, false],
    [0, [], 1, false],
    [BigInt(4 * PAGE + 4095), [], 4, true],
    [BigInt(4 * PAGE + 4095), [], 5, false],
    [UNLIMITED, [], 4096, true],
  ];
  for (const [pages, before, asked, fits] of rows) {
    const lab = limited(pages);
    let iova = 0;
    for (const each of before) {
      lab.good(map(lab, iova, each));
      iova += each * PAGE;
    }
    if (fits) assert.is(map(lab, iova, asked).verdict, 'match');
    else refused(map(lab, iova, asked, 'ENOMEM'));
    assert.is(
      lockedOf(lab).pages,
      before.reduce((sum, each) => sum + each, fits ? asked : 0),
    );
  }
});

test('the order of checks: entries, ranges, then the pages one by one', () => {
  const lab = limited(4);
  lab.good(map(lab, 0, 2));
  assert.is(map(lab, 0, 9, 'EEXIST').verdict, 'match');
  assert.is(map(lab, 0xfee0_0000, 9, 'EINVAL').verdict, 'match');
  // Pages 0 to 2 can be had, the fourth cannot: two more fit.
  lab.feed(ev('munmap', { addr: MEMORY + 3 * PAGE, lengthBytes: PAGE }));
  refused(map(lab, 0x10_0000, 5, 'ENOMEM'));
  const at: FieldAt = [8, MEMORY + PAGE, 8];
  assert.equal([map(lab, 0x10_0000, 5, 'EFAULT', at).rule, lockedOf(lab).pages], [R.pin.id, 2]);
});

test('with CAP_IPC_LOCK pages count and no limit binds', () => {
  const lab = new Lab().device();
  limit(lab, 4);
  caps(lab, CAP_IPC_LOCK);
  assert.is(map(lab, 0, 16).verdict, 'match');
  assert.is(lockedOf(lab).pages, 16);
  const answer = map(lab, 0x10_0000, 1, 'ENOMEM');
  assert.is(answer.verdict, 'learned');
  assert.match(answer.looked, /CAP_IPC_LOCK \(event \d+\) lifts RLIMIT_MEMLOCK: the memory itself was short/);
});

test('what mlock locked counts as well, and is told', () => {
  const lab = limited(8);
  lab.feed(ev('mlock', { addr: MEMORY + 0x10_0000, lengthBytes: 6 * PAGE }));
  const answer = map(lab, 0, 3, 'ENOMEM');
  refused(answer);
  assert.match(
    answer.looked,
    /^the process has 24 KiB locked \(24 KiB by mlock\) and asks for 12 KiB, 36 KiB in all; RLIMIT_MEMLOCK is 32 KiB \(event \d+\), and CAP_IPC_LOCK is missing \(event \d+\)$/,
  );
  lab.good(map(lab, 0, 2));
});

test('BARs do not count; memory that the recording does not tell may', () => {
  const lab = limited(2);
  lab.mmapDevice(MEMORY + 0x10_0000, 0x4000, 5);
  lab.good(map(lab, 0, 4, '', [8, MEMORY + 0x10_0000, 8]));
  assert.equal([lockedOf(lab).pages, lockedOf(lab).maybePages], [0, 0]);
  lab.good(map(lab, 0x10_0000, 2, '', [8, MEMORY + 0xf_f000, 8]));
  assert.is(lockedOf(lab).pages, 1);
  lab.feed(ev('mmap', { lengthBytes: PAGE, fd: 9, path: '/dev/dri/card0', flags: 1, ret: MEMORY + 0x20_0000 }));
  lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0x20_0000, PAGE, [[8, MEMORY + 0x20_0000, 8]]) });
  assert.equal([lockedOf(lab).pages, lockedOf(lab).maybePages], [1, 1]);
  // One page more is too much only if that one counts.
  const answer = map(lab, 0x30_0000, 1);
  assert.equal([answer.rule, answer.verdict], [R.memlock.id, 'learned']);
  assert.is(map(lab, 0x30_1000, 1, 'ENOMEM').verdict, 'match');
});

test('a limit without a capability told: either answer teaches it, once', () => {
  const capable = new Lab().device();
  limit(capable, 4);
  assert.is(map(capable, 0, 4).verdict, 'match');
  assert.is(map(capable, 0x10_0000, 1).verdict, 'learned');
  assert.is(capable.world.processes.get(1)?.creds.ipcLock, 'yes');
  assert.is(map(capable, 0x20_0000, 1).verdict, 'match');
  const not = new Lab().device();
  limit(not, 4);
  const first = map(not, 0, 5, 'ENOMEM');
  assert.is(first.verdict, 'learned');
  assert.match(first.looked, /RLIMIT_MEMLOCK is 16 KiB \(event \d+\), which only CAP_IPC_LOCK lifts/);
  assert.is(not.world.processes.get(1)?.creds.ipcLock, 'unlikely');
  assert.is(map(not, 0, 5, 'ENOMEM').verdict, 'match');
  assert.is(map(not, 0, 4).verdict, 'match');
  assert.is(map(not, 0x10_0000, 9).verdict, 'learned');
  assert.is(not.world.processes.get(1)?.creds.ipcLock, 'yes');
});

test('nothing told: an ENOMEM is learned, with bounds; what was allowed before is not refused by the limit', () => {
  const lab = new Lab().device();
  lab.good(map(lab, 0, 8));
  const seq = lockedOf(lab).peak?.seq;
  const answer = map(lab, 0x10_0000, 8, 'ENOMEM');
  assert.is(answer.verdict, 'learned');
  assert.match(answer.looked, /32 KiB locked and asks for 32 KiB, 64 KiB in all; if RLIMIT_MEMLOCK is the reason/);
  assert.match(
    answer.looked,
    new RegExp(`it is less than 64 KiB, at least 32 KiB \\(event ${seq}\\); record prlimit64`),
  );
  lab.good(map(lab, 0x10_0000, 4));
  lab.good(lab.unmap(0x10_0000, 4 * PAGE));
  const smaller = map(lab, 0x10_0000, 2, 'ENOMEM');
  assert.is(smaller.verdict, 'learned');
  assert.match(smaller.looked, /was allowed 48 KiB under the same limit: the memory itself was short/);
  // A new limit voids what the old one allowed.
  lab.feed(ev('prlimit', { newSoft: 8 * PAGE, newHard: 8 * PAGE }));
  assert.match(
    map(lab, 0x10_0000, 2, 'ENOMEM').looked,
    /RLIMIT_MEMLOCK is 32 KiB \(event \d+\), which only CAP_IPC_LOCK/,
  );
});

test('a success against all that was told is one divergence', () => {
  const lab = limited(4);
  assert.is(map(lab, 0, 8).verdict, 'diverge');
  assert.is(map(lab, 0x10_0000, 8).verdict, 'match');
  assert.is(lockedOf(lab).pages, 16);
});

test('an ENOMEM within the limit has another reason, or more is locked than was recorded', () => {
  const enough = limited(64);
  assert.match(
    map(enough, 0, 8, 'ENOMEM').looked,
    /256 KiB \(event \d+\), which is enough by this count: the memory itself/,
  );
  const more = limited(64);
  more.feed(ev('mlock', { call: 'mlockall', flags: 1 }));
  more.feed(ev('prlimit', { newSoft: (64 << 20) * 2, newHard: (64 << 20) * 2 }));
  assert.match(
    map(more, 0, 8, 'ENOMEM').looked,
    /enough unless what was locked by mlock or mlockall \(event \d+\) is more/,
  );
});

test('an injected ENOMEM teaches nothing', () => {
  const lab = new Lab().device();
  limit(lab, 4);
  const memIn = [{ addr: 0x10_0000, bytes: mapStruct(0, 8 * PAGE) }];
  lab.feed(
    ev('ioctl', { fd: 3, request: IOMMU_MAP_DMA, arg: 0x10_0000, memIn, ret: -1, errno: 'ENOMEM', injected: true }),
  );
  assert.is(lab.world.processes.get(1)?.creds.ipcLock, 'unknown');
});

test('mediated devices alone pin nothing; with a nature that is open, a success may show them', () => {
  const mediated = new Lab().device(MDEV);
  limit(mediated, 1);
  caps(mediated, 0);
  assert.is(map(mediated, 0, 8).verdict, 'match');
  assert.is(lockedOf(mediated).pages, 0);
  const open = new Lab().container();
  limit(open, 1);
  caps(open, 0);
  assert.is(map(open, 0, 8).verdict, 'learned');
  assert.ok(open.world.groups.get(7)?.emulated);
  assert.is(map(open, 0x10_0000, 8).verdict, 'match');
});

test('whatever ends a mapping takes its pages off the account', () => {
  const ends: readonly ((lab: Lab) => void)[] = [
    (lab) => lab.good(lab.unmap(0, 8 * PAGE)),
    (lab) =>
      lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, [4, 2]), out: struct(24, [4, 2], [16, 8 * PAGE, 8]) })),
    (lab) => {
      lab.close(5);
      lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
    },
    (lab) => {
      lab.close(5);
      lab.close(4);
    },
  ];
  for (const end of ends) {
    const lab = limited(8);
    lab.good(map(lab, 0, 8));
    assert.is(lockedOf(lab).pages, 8);
    end(lab);
    assert.is(lockedOf(lab).pages, 0);
  }
});

test('a container whose devices all turn out to be mediated gives its pages back', () => {
  const lab = new Lab().container();
  lab.good(map(lab, 0, 8));
  assert.is(lockedOf(lab).pages, 8);
  lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 });
  assert.is(lockedOf(lab).pages, 0);
});

test('a group with an IOMMU that joins mediated devices pins what is mapped, and gives it back when it leaves', () => {
  const lab = new Lab().device(MDEV);
  lab.good(map(lab, 0, 8));
  assert.is(lockedOf(lab).pages, 0);
  lab.open('/dev/vfio/8', 6);
  lab.good(lab.ioctl(6, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  assert.is(lockedOf(lab).pages, 8);
  lab.close(6);
  assert.is(lockedOf(lab).pages, 0);
  lab.good(lab.unmap(0, 8 * PAGE));
});

// ---- another process takes over -------------------------------------------------------------------------------

/** A mapping of 8 pages by process 1 whose address was taken away; process 2, its child, is to give it a new one. */
function handedOver(childLimit: number): Lab {
  const lab = new Lab().device();
  lab.good(map(lab, 0, 8));
  lab.feed(ev('fork', { ret: 2 }));
  const takeAway = struct(24, [4, UNMAP_VADDR], [16, 8 * PAGE, 8]);
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: takeAway }));
  limit(lab, childLimit, 2);
  caps(lab, 0, 2);
  return lab;
}

function takeOver(lab: Lab, errno = ''): Answer {
  const fields: FieldAt[] = [
    [4, MAP_VADDR],
    [8, MEMORY + 0x10_0000, 8],
  ];
  return lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0, 8 * PAGE, fields), errno, tid: 2 });
}

test('VADDR from another process moves the charge, if its limit allows', () => {
  const small = handedOver(7);
  refused(takeOver(small, 'ENOMEM'), R.vaddrMemlock.id);
  assert.equal([lockedOf(small).pages, lockedOf(small, 2).pages], [8, 0]);
  const enough = handedOver(8);
  assert.is(takeOver(enough).verdict, 'match');
  assert.equal([lockedOf(enough).pages, lockedOf(enough, 2).pages], [0, 8]);
  enough.good(enough.unmap(0, 8 * PAGE));
  assert.is(lockedOf(enough, 2).pages, 0);
});

test('law: map then unmap returns the account to what it was; fork leaves it with the parent', () => {
  const step = fc.record({ slot: fc.nat(7), pages: fc.integer({ min: 1, max: 64 }), fork: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 24 }), (steps) => {
      const lab = new Lab().device();
      const held = new Map<number, number>();
      let pid = 2;
      for (const { slot, pages, fork } of steps) {
        const iova = slot * 0x100_0000;
        const before = held.get(slot);
        if (before === undefined) {
          lab.good(map(lab, iova, pages));
          held.set(slot, pages);
        } else {
          lab.good(lab.unmap(iova, before * PAGE));
          held.delete(slot);
        }
        if (fork) {
          lab.feed(ev('fork', { ret: pid }));
          assert.is(lockedOf(lab, pid).pages, 0);
          pid++;
        }
        assert.is(
          lockedOf(lab).pages,
          [...held.values()].reduce((sum, each) => sum + each, 0),
        );
      }
    }),
    { numRuns: 50 },
  );
});
