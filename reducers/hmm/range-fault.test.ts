import * as assert from 'uvu/assert';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { newPte, type Pte, type PteKind, type PteRun, setRun } from '../memory/pagetable.js';
import { VMA_PFNMAP, type Vma } from '../memory/state.js';
import { type HmmRequest, hmmRangeFault, hmmWalk } from './range-fault.js';

const test = suite('hmm/range-fault');

const PAGE = 4096;
const BASE = 0x4000_0000;
const OWNER = 0;

function view(prot: number, entries: readonly (Partial<Pte> | undefined)[], traits = 0) {
  const vmas = OrderedMap.numeric<U64, Vma>();
  const last = BASE + entries.length * PAGE - 1;
  vmas.set(BASE, { start: BASE, last, prot, flags: 0x22, file: 0, offset: 0, since: 0, traits });
  const runs = OrderedMap.numeric<U64, PteRun>();
  entries.forEach((entry, index) => {
    if (entry === undefined) return;
    const pte = newPte('anon', index, entry);
    setRun(runs, BASE + index * PAGE, BASE + index * PAGE + PAGE - 1, pte);
  });
  return { vmas, runs };
}

function ask(pages: number, fault: boolean, write = false): HmmRequest {
  return { start: BASE, last: BASE + pages * PAGE - 1, fault, write, owner: OWNER };
}

/** `V` valid, `W` writable, `E` error, `.` nothing, for each page. */
function shown(request: HmmRequest, of: ReturnType<typeof view>): string {
  const step = hmmWalk(of, request);
  if (step.kind === 'error') return `${step.errno}@${(Number(step.at) - BASE) / PAGE}`;
  if (step.kind === 'fault') {
    const from = (Number(step.start) - BASE) / PAGE;
    return `fault ${from}-${((Number(step.last) - BASE) / PAGE) | 0}${step.write ? ' write' : ''}`;
  }
  let text = '';
  for (const pfns of step.pfns) {
    const count = (Number(pfns.last) + 1 - Number(pfns.start)) / PAGE;
    text += (pfns.error ? 'E' : pfns.write ? 'W' : pfns.valid ? 'V' : '.').repeat(count);
  }
  return text;
}

const R = 1;
const RW = 3;
const OTHER: Partial<Pte> = { kind: 'private', device: 1, write: true };
const OWN: Partial<Pte> = { kind: 'private', device: OWNER, write: true };

const ROWS: readonly [string, number, readonly (Partial<Pte> | undefined)[], HmmRequest, string][] = [
  ['a snapshot of everything', RW, [undefined, {}, { write: true }, { kind: 'zero' }], ask(4, false), '.VWV'],
  ['own device-private memory is reported', R, [OWN, { ...OWN, write: false }], ask(2, false), 'WV'],
  ["another's is as if nothing were there", R, [OTHER], ask(1, false), '.'],
  ['coherent memory is present', R, [{ kind: 'coherent', device: 2, write: true }], ask(1, false), 'W'],
  ['exclusive pages are not', RW, [{ kind: 'exclusive' }], ask(1, false), '.'],
  ['no rights, no request: error', 0, [{}], ask(1, false), 'E'],
  ['beyond the VMA: error', R, [{}], ask(2, false), 'VE'],
  ['a request for unreadable memory', 0, [{}], ask(1, true), 'EFAULT@0'],
  ['a request beyond the VMA, with the VMA in order', R, [{}], ask(2, true), 'EFAULT@1'],
  ['the first missing page is faulted with all behind it', R, [{}, undefined, {}], ask(3, true), 'fault 1-2'],
  ['nothing is missing', R, [{}, { kind: 'zero' }], ask(2, true), 'VV'],
  ['a write to what is read-only', RW, [{ write: true }, {}], ask(2, true, true), 'fault 1-1 write'],
  ['a write where the VMA forbids it', R, [{}], ask(1, true, true), 'EPERM@0'],
  ['a write to what is missing where the VMA forbids it', R, [undefined], ask(1, true, true), 'EPERM@0'],
  [
    'own device-private memory satisfies even a write it does not allow',
    RW,
    [{ ...OWN, write: false }],
    ask(1, true, true),
    'V',
  ],
  ["another's is faulted", RW, [OTHER], ask(1, true), 'fault 0-0'],
  ['exclusive pages are faulted', RW, [{ kind: 'exclusive' }], ask(1, true), 'fault 0-0'],
];

for (const [title, prot, entries, request, expected] of ROWS) {
  test(title, () => assert.is(shown(request, view(prot, entries)), expected));
}

test('memory of a device without struct pages is an error', () => {
  assert.is(shown(ask(1, false), view(RW, [{}], VMA_PFNMAP)), 'E');
  assert.is(shown(ask(1, true), view(RW, [{}], VMA_PFNMAP)), 'EFAULT@0');
});

test('a fault goes to the end of its 2 MiB block', () => {
  const pages = 1024;
  const of = view(
    RW,
    Array.from({ length: pages }, () => undefined),
  );
  assert.is(shown(ask(pages, true), of), 'fault 0-511');
});

test('huge entries tell their order where they are whole', () => {
  const of = view(RW, []);
  of.vmas.set(BASE, {
    start: BASE,
    last: BASE + 2 ** 22 - 1,
    prot: RW,
    flags: 0x22,
    file: 0,
    offset: 0,
    since: 0,
    traits: 0,
  });
  const huge = newPte('anon', 0, { write: true, huge: true, large: true });
  setRun(of.runs, BASE, BASE + 2 ** 21 + PAGE - 1, huge);
  const step = hmmWalk(of, { start: BASE, last: BASE + 2 ** 22 - 1, fault: false, write: false, owner: OWNER });
  assert.equal(step.kind === 'done' ? step.pfns.map((p) => p.order) : [], [9, 0, 0]);
});

test('faults are made until the range is as asked', () => {
  const of = view(RW, [undefined, {}, { kind: 'exclusive' as PteKind }]);
  const asked: string[] = [];
  const answer = hmmRangeFault(of, ask(3, true, true), (_vma, start, last) => {
    asked.push(`${(Number(start) - BASE) / PAGE}-${Math.floor((Number(last) - BASE) / PAGE)}`);
    setRun(of.runs, start, last, newPte('anon', 9, { write: true }));
    return true;
  });
  assert.equal([answer.errno, asked], ['', ['0-2']]);
});

test('faults that fail are EFAULT, faults that do not help EBUSY', () => {
  const of = view(RW, [undefined]);
  assert.is(hmmRangeFault(of, ask(1, true), () => false).errno, 'EFAULT');
  assert.is(hmmRangeFault(of, ask(1, true), () => true).errno, 'EBUSY');
});
