import { fc } from '../../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { Bytes } from '../../../core/bytes.js';
import { mttyHeaderValid } from '../../devices/vfio-mtty.js';
import { MIGRATION_FILE_RULES as F } from '../migration-file.js';
import { checkRows, Lab, MDEV, type Row, struct, text } from '../testing.js';
import {
  DEVICE_FEATURE,
  DEVICE_GET_REGION_INFO,
  DEVICE_RESET,
  FEATURE_GET,
  FEATURE_MIG_DEVICE_STATE,
  FEATURE_MIG_PRECOPY_INFO_V2,
  FEATURE_MIGRATION,
  FEATURE_PROBE,
  FEATURE_SET,
  GROUP_GET_DEVICE_FD,
  MIG_GET_PRECOPY_INFO,
  MIGRATION_P2P,
  MIGRATION_PRE_COPY,
  MIGRATION_STOP_COPY,
} from '../uapi.js';
import { MIG_STATE_RULES as R } from './migration.js';
import {
  nextState,
  STATE_ERROR as ERROR,
  STATE_PRE_COPY as PRE_COPY,
  STATE_PRE_COPY_P2P as PRE_COPY_P2P,
  STATE_RESUMING as RESUMING,
  STATE_RUNNING as RUNNING,
  STATE_RUNNING_P2P as RUNNING_P2P,
  STATE_STOP as STOP,
  STATE_STOP_COPY as STOP_COPY,
} from './migration-fsm.js';

const test = suite('vfio migration');

// ---- the machine, against the header's path rules computed another way --------------------------------------

/** The header's arcs as edges. */
const EDGES: readonly (readonly [number, number])[] = [
  [RESUMING, STOP],
  [STOP, RESUMING],
  [STOP, STOP_COPY],
  [STOP_COPY, STOP],
  [RUNNING, RUNNING_P2P],
  [RUNNING_P2P, RUNNING],
  [RUNNING_P2P, STOP],
  [STOP, RUNNING_P2P],
  [RUNNING, PRE_COPY],
  [PRE_COPY, RUNNING],
  [PRE_COPY, PRE_COPY_P2P],
  [PRE_COPY_P2P, PRE_COPY],
  [PRE_COPY_P2P, RUNNING_P2P],
  [PRE_COPY_P2P, STOP_COPY],
  [RUNNING_P2P, PRE_COPY_P2P],
];
const SAVING = new Set([PRE_COPY, PRE_COPY_P2P, STOP_COPY]);
const STATES = [STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P];

/** Distances by relaxation (Floyd-Warshall over allowed interiors), no paths kept. */
function distance(from: number, to: number): number {
  const interior = (state: number): boolean => !SAVING.has(state) || (SAVING.has(from) && SAVING.has(to));
  const best = new Map<number, number>([[from, 0]]);
  for (let round = 0; round < 8; round++) {
    for (const [a, b] of EDGES) {
      const at = best.get(a);
      if (at === undefined || (a !== from && !interior(a))) continue;
      if (at + 1 < (best.get(b) ?? 99)) best.set(b, at + 1);
    }
  }
  return best.get(to) ?? 99;
}

const supported = (flags: number, state: number): boolean => {
  if (state === RUNNING_P2P) return (flags & MIGRATION_P2P) !== 0;
  if (state === PRE_COPY) return (flags & MIGRATION_PRE_COPY) !== 0;
  if (state === PRE_COPY_P2P) return (flags & MIGRATION_P2P) !== 0 && (flags & MIGRATION_PRE_COPY) !== 0;
  return state !== ERROR && state < 8;
};

test('with all states each step is an arc, and the walk is as short as the rules allow', () => {
  const all = MIGRATION_STOP_COPY | MIGRATION_P2P | MIGRATION_PRE_COPY;
  for (const from of STATES) {
    for (const to of STATES) {
      if (from === to) continue;
      let at = from;
      let steps = 0;
      for (let next = nextState(all, at, to); next !== undefined && at !== to && steps < 9; steps++) {
        assert.ok(
          EDGES.some(([a, b]) => a === at && b === next),
          `${at} -> ${next} is no arc`,
        );
        at = next;
        if (at !== to) next = nextState(all, at, to);
      }
      const blocked = from === STOP_COPY && SAVING.has(to);
      if (blocked) assert.is(steps, 0, `${from} -> ${to} is not permitted`);
      else assert.is(steps, distance(from, to), `${from} -> ${to}`);
    }
  }
});

test('whatever the device supports, a walk reaches its end through supported states', () => {
  const anyState = fc.integer({ min: 0, max: 9 });
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 7 }), anyState, anyState, (flags, from, to) => {
      fc.pre(from !== to);
      const stop = (flags & MIGRATION_STOP_COPY) !== 0;
      const possible = stop && supported(flags, from) && supported(flags, to);
      if (!possible || (from === STOP_COPY && SAVING.has(to))) {
        assert.is(nextState(flags, from, to), undefined);
        return;
      }
      let at = from;
      for (let steps = 0; at !== to && steps < 9; steps++) {
        const next = nextState(flags, at, to);
        if (next === undefined || !supported(flags, next) || steps > 7)
          assert.unreachable(`${from} -> ${to}: stuck at ${at}`);
        else at = next;
      }
    }),
    { numRuns: 2000 },
  );
});

test('without optional states RUNNING and STOP are neighbours', () => {
  assert.is(nextState(1, RUNNING, STOP), STOP);
  assert.is(nextState(1, STOP, RUNNING), RUNNING);
  assert.is(nextState(MIGRATION_STOP_COPY | MIGRATION_PRE_COPY, PRE_COPY, STOP_COPY), STOP_COPY);
});

// ---- mtty --------------------------------------------------------------------------------------------------

const STATE_GET = FEATURE_GET | FEATURE_MIG_DEVICE_STATE;
const STATE_SET = FEATURE_SET | FEATURE_MIG_DEVICE_STATE;
const NO_FD = 0xffff_ffff;

/** An mtty on fd 5, running, whose number of ports nothing told. */
function anyMtty(lab: Lab): Lab {
  lab.device(MDEV);
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_PROBE | FEATURE_MIGRATION]) }));
  lab.good(lab.ioctl(5, DEVICE_RESET));
  return lab;
}

function ports(lab: Lab, many: number) {
  const bar1 = struct(32, [4, 3], [8, 1], [16, many === 2 ? 8 : 0, 8], [28, 0x100]);
  return lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(32, [8, 1]), out: bar1 });
}

/** {@link anyMtty} with two ports. */
function mtty(lab: Lab): Lab {
  anyMtty(lab).good(ports(lab, 2));
  return lab;
}

function go(lab: Lab, state: number, fd = NO_FD, errno = '') {
  const out = struct(16, [4, STATE_SET], [8, state], [12, fd]);
  return lab.ioctl(5, DEVICE_FEATURE, { in: struct(16, [4, STATE_SET], [8, state]), out, errno });
}

function at(lab: Lab, state: number) {
  const out = struct(16, [4, STATE_GET], [8, state], [12, NO_FD]);
  return lab.ioctl(5, DEVICE_FEATURE, { in: struct(16, [4, STATE_GET]), out });
}

test('a request that leads nowhere fails, and data_fd is -1', () => {
  const rows: readonly Row[] = [
    { rule: R.noWay, errno: 'EINVAL', run: (l, e) => go(mtty(l), ERROR, NO_FD, e) },
    { rule: R.noWay, errno: 'EINVAL', run: (l, e) => go(mtty(l), 8, NO_FD, e) },
    {
      rule: R.noWay,
      errno: 'EINVAL',
      run(lab, e) {
        mtty(lab).good(go(lab, STOP_COPY, 6));
        return go(lab, PRE_COPY, NO_FD, e);
      },
    },
    {
      rule: R.incomplete,
      errno: 'EINVAL',
      run(lab, e) {
        mtty(lab).good(go(lab, RESUMING, 6));
        return go(lab, RUNNING, NO_FD, e);
      },
    },
  ];
  checkRows(R, rows);
  const lab = mtty(new Lab());
  assert.is(go(lab, ERROR, 6, 'EINVAL').verdict, 'diverge', 'data_fd comes back as -1');
});

test('the state is where the walk ended, also after a failure', () => {
  const lab = mtty(new Lab());
  lab.good(at(lab, RUNNING));
  lab.good(go(lab, RESUMING, 6));
  const stuck = go(lab, RUNNING, NO_FD, 'EINVAL');
  lab.good(stuck);
  assert.is(stuck.looked, 'RUNNING was asked for; the device is left in RESUMING, with 0 bytes written');
  lab.good(at(lab, RESUMING));
  lab.good(lab.ioctl(5, DEVICE_RESET));
  lab.good(at(lab, RUNNING));
});

const header = struct(96, [0, 0x7e9d_0989_8c3e_2c4en, 8], [8, 1], [16, 2]);
const read = (lab: Lab, count: number, ret: number, errno = '') =>
  lab.io(6, 'read', count, Bytes.EMPTY, { ret, errno });
const write = (lab: Lab, data: Bytes, errno = '') => lab.io(6, 'write', data.length, data, { errno });

test('saving: the header at once, the ports when stopped, then the end', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, PRE_COPY, 6));
  lab.good(read(lab, 4096, 24));
  lab.good(read(lab, 4096, 0));
  lab.good(go(lab, STOP_COPY));
  assert.is(read(lab, 4096, 96).verdict, 'diverge');
  const again = mtty(new Lab());
  again.good(go(again, STOP_COPY, 6));
  again.good(read(again, 40, 40));
  again.good(read(again, 4096, 56));
  again.good(go(again, RUNNING));
  again.good(read(again, 1, 0, 'ENODEV'));
});

test('the file is checked as the driver does', () => {
  const saving = (lab: Lab): Lab => {
    mtty(lab).good(go(lab, PRE_COPY, 6));
    return lab;
  };
  const resuming = (lab: Lab): Lab => {
    mtty(lab).good(go(lab, RESUMING, 6));
    return lab;
  };
  const precopy = (lab: Lab, errno: string, bytes = 24) =>
    lab.ioctl(6, MIG_GET_PRECOPY_INFO, { in: struct(bytes), errno });
  checkRows(F, [
    { rule: F.direction, errno: 'EBADF', run: (l, e) => read(resuming(l), 1, 0, e) },
    { rule: F.positioned, errno: 'ESPIPE', run: (l, e) => saving(l).io(6, 'pread64', 1, Bytes.EMPTY, { errno: e }) },
    {
      rule: F.disabled,
      errno: 'ENODEV',
      run(lab, e) {
        saving(lab).good(lab.ioctl(5, DEVICE_RESET));
        return read(lab, 1, 0, e);
      },
    },
    { rule: F.header, errno: 'EFAULT', run: (l, e) => write(resuming(l), struct(96, [0, 1]), e) },
    { rule: F.tooMuch, errno: 'ENOMEM', run: (l, e) => write(resuming(l), struct(97), e) },
    { rule: F.command, errno: 'ENOTTY', run: (l, e) => precopy(resuming(l), e) },
    { rule: F.argsz, errno: 'EINVAL', run: (l, e) => precopy(saving(l), e, 23) },
    {
      rule: F.notPreCopy,
      errno: 'EINVAL',
      run(lab, e) {
        saving(lab).good(go(lab, STOP_COPY));
        return precopy(lab, e);
      },
    },
  ]);
});

test('resuming: a whole state lets the device stop', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, RESUMING, 6));
  lab.good(write(lab, header.slice(0, 10)));
  lab.good(write(lab, header.slice(10)));
  lab.good(go(lab, RUNNING));
  lab.good(at(lab, RUNNING));
  assert.ok(mttyHeaderValid(header, 2) && !mttyHeaderValid(header, 1));
});

test('what was written counts, and not the fd: RESUMING ends by the file that the driver holds', () => {
  for (const target of [STOP, RUNNING, PRE_COPY, STOP_COPY]) {
    const empty = mtty(new Lab());
    empty.good(go(empty, RESUMING, 6));
    empty.close(6);
    empty.good(go(empty, target, NO_FD, 'EINVAL'));
    empty.good(at(empty, RESUMING));
  }
  const part = mtty(new Lab());
  part.good(go(part, RESUMING, 6));
  part.good(write(part, header.slice(0, 95)));
  part.close(6);
  part.good(go(part, RUNNING, NO_FD, 'EINVAL'));
  const whole = mtty(new Lab());
  whole.good(go(whole, RESUMING, 6));
  whole.good(write(whole, header));
  whole.close(6);
  whole.good(go(whole, PRE_COPY, 6));
  whole.good(at(whole, PRE_COPY));
  assert.is(whole.world.migrations.size, 1, 'the file of the ended transfer is gone');
});

test('an mtty that was closed in RESUMING has lost its file: what a SET does is not known', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, RESUMING, 6));
  lab.close(5);
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
  lab.good(at(lab, RESUMING));
  lab.good(go(lab, RESUMING));
  const answer = go(lab, STOP, NO_FD, 'EINVAL');
  assert.is(answer.verdict, 'unknown');
  assert.match(answer.unknown, 'lost by closing');
});

test('an mtty that was closed in PRE_COPY gets a new file only where it stops to copy', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, PRE_COPY_P2P, 6));
  lab.close(5);
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
  lab.good(go(lab, PRE_COPY));
  lab.good(read(lab, 1, 0, 'ENODEV'));
  lab.good(go(lab, STOP_COPY, 7));
  lab.good(lab.io(7, 'read', 200, Bytes.EMPTY, { ret: 96 }));
});

test('the file of PRE_COPY goes on in STOP_COPY, also behind its end and through a closed fd of it', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, PRE_COPY, 6));
  lab.good(read(lab, 24, 24));
  lab.good(read(lab, 24, 0));
  lab.good(go(lab, STOP_COPY));
  lab.good(go(lab, STOP_COPY));
  lab.good(read(lab, 26, 26));
  lab.good(read(lab, 64, 46));
  const shut = mtty(new Lab());
  shut.good(go(shut, PRE_COPY, 6));
  shut.close(6);
  shut.good(go(shut, STOP_COPY));
  shut.good(go(shut, RUNNING));
  assert.is(shut.world.migrations.size, 0);
});

test('the first feature seen of an mtty can be a SET: its state and data fd are taken from the answer', () => {
  const lab = new Lab().device(MDEV);
  assert.is(go(lab, PRE_COPY, 6).verdict, 'unknown');
  lab.good(at(lab, PRE_COPY));
  lab.good(read(lab, 4096, 24));
});

// ---- how many ports -------------------------------------------------------------------------------------------

test('answers tell how many ports an mtty has where these decide, and only there', () => {
  const saving = (): Lab => {
    const lab = anyMtty(new Lab());
    lab.good(go(lab, STOP_COPY, 6));
    assert.is(read(lab, 60, 60).verdict, 'match', 'any mtty has one port');
    return lab;
  };
  const resuming = (): Lab => {
    const lab = anyMtty(new Lab());
    lab.good(go(lab, RESUMING, 6));
    return lab;
  };
  const noHeader = (lab: Lab): Lab => {
    // It fails the first time, and counts.
    lab.good(write(lab, struct(24), 'EFAULT'));
    return lab;
  };
  const rows: readonly [string, Lab, (lab: Lab) => { verdict: string }, string, number][] = [
    ['read to the end of one', saving(), (l) => read(l, 36, 0), 'learned', 1],
    ['read on', saving(), (l) => read(l, 30, 30), 'learned', 2],
    ['write too much for one', noHeader(resuming()), (l) => write(l, struct(72), 'ENOMEM'), 'unknown', 1],
    ['write more than one takes', noHeader(resuming()), (l) => write(l, struct(72)), 'learned', 2],
    ['header of two taken', resuming(), (l) => write(l, header.slice(0, 24)), 'learned', 2],
    ['header of two refused', resuming(), (l) => write(l, header.slice(0, 24), 'EFAULT'), 'unknown', 1],
  ];
  for (const [name, lab, call, verdict, many] of rows) {
    assert.is(call(lab).verdict, verdict, name);
    assert.is(ports(lab, many).verdict, 'match', name);
  }
  for (const [errno, many] of [
    ['', 1],
    ['EINVAL', 2],
  ] as const) {
    const lab = noHeader(resuming());
    assert.is(write(lab, struct(36)).verdict, 'match');
    assert.is(go(lab, STOP, NO_FD, errno).verdict, 'unknown');
    lab.good(at(lab, errno === '' ? STOP : RESUMING));
    assert.is(ports(lab, many).verdict, 'match');
  }
});

test('the header that is read names the ports', () => {
  const lab = anyMtty(new Lab());
  lab.good(go(lab, PRE_COPY, 6));
  const answer = lab.io(6, 'read', 24, header.slice(0, 24));
  assert.is(answer.verdict, 'learned');
  assert.is(ports(lab, 2).verdict, 'match');
});

test('GET_PRECOPY_INFO counts what is left, and clears flags once version 2 is asked for', () => {
  const lab = mtty(new Lab());
  lab.good(go(lab, PRE_COPY_P2P, 6));
  const info = (left: number, flags: number) =>
    lab.ioctl(6, MIG_GET_PRECOPY_INFO, {
      in: struct(24, [4, 9]),
      out: struct(24, [4, flags], [8, left]),
    });
  lab.good(info(24, 9));
  lab.good(read(lab, 20, 20));
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_SET | FEATURE_MIG_PRECOPY_INFO_V2]) }));
  lab.good(info(4, 0));
});
