import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { mirrorBare } from '../invariants/mirror-bare.js';
import { ev } from '../testing.js';
import { command, ioctl, Lab, MEMORY, PAGE, READ, TO_DEV, TO_SYS, WRITE } from './testing.js';

/**
 * Which calls of dmirror go through device-private memory itself, told by a second model that knows nothing of runs: page by page, as
 * lib/test_hmm.c and mm/hmm.c walk. The invariant must find these calls and no others.
 */
const test = suite('hmm/bare');

/** More than the 32 pages of one step of a device fault. */
const PAGES = 44;
const STEP = 32;

interface Page {
  /** 'none', 'zero', 'system', or the minor of the device that has it. */
  readonly at: 'none' | 'zero' | 'system' | 0 | 1;
  readonly write: boolean;
}

interface Entry {
  readonly write: boolean;
  readonly bare: boolean;
}

const DEAD = Symbol('the kernel died');

/** One page of a device entry each; `dies` throws. */
class PageWise {
  readonly cpu: Page[] = Array.from({ length: PAGES }, () => ({ at: 'none', write: false }));
  readonly mirrors: [(Entry | undefined)[], (Entry | undefined)[]] = [[], []];
  /** Whether a call stored an entry for device-private memory of its own. */
  stored = false;

  /** dmirror drops one page more than it is told, and nothing for the migrations of its own device. */
  invalidate(from: number, to: number, owner = -1): void {
    for (const minor of [0, 1] as const)
      if (minor !== owner) for (let page = from; page <= to + 1; page++) this.mirrors[minor][page] = undefined;
  }

  touch(page: number, write: boolean): void {
    const was = this.cpu[page] as Page;
    if (was.at === 0 || was.at === 1) {
      this.invalidate(page, page, was.at);
      this.mirrors[was.at][page] = undefined;
      this.cpu[page] = { at: 'system', write: was.write || write };
    } else if (was.at === 'system') this.cpu[page] = { at: 'system', write: was.write || write };
    else if (write && was.at === 'zero') {
      this.invalidate(page, page);
      this.cpu[page] = { at: 'system', write: true };
    } else if (was.at === 'none') this.cpu[page] = write ? { at: 'system', write } : { at: 'zero', write };
  }

  discard(from: number, to: number): void {
    this.invalidate(from, to);
    for (let page = from; page <= to; page++) this.cpu[page] = { at: 'none', write: false };
  }

  /** Rights to write that go and come again, but for device-private entries: theirs are gone. */
  demote(from: number, to: number): void {
    this.invalidate(from, to);
    for (let page = from; page <= to; page++) {
      const was = this.cpu[page] as Page;
      if (was.at === 0 || was.at === 1) this.cpu[page] = { ...was, write: false };
      if (was.at === 'system') this.cpu[page] = { ...was, write: true };
    }
  }

  toDevice(minor: 0 | 1, from: number, to: number): string {
    this.invalidate(from, to, minor);
    for (let page = from; page <= to; page++) {
      const was = this.cpu[page] as Page;
      if (was.at === 0 || was.at === 1) continue;
      const present = was.at === 'system';
      this.cpu[page] = { at: minor, write: present ? was.write : true };
      this.mirrors[minor][page] = { write: present && was.write, bare: false };
    }
    return this.#through(minor, from, to, false) > to ? '' : 'ENOENT';
  }

  toSystem(minor: 0 | 1, from: number, to: number): void {
    this.invalidate(from, to, minor);
    for (let page = from; page <= to; page++) {
      const was = this.cpu[page] as Page;
      if (was.at !== minor) continue;
      this.cpu[page] = { at: 'system', write: was.write };
      this.mirrors[minor][page] = undefined;
    }
  }

  /** READ and WRITE: through the mirror, and where it refuses a fault of all that is left. */
  access(minor: 0 | 1, from: number, to: number, write: boolean): string {
    for (let at = this.#through(minor, from, to, write); at <= to; at = this.#through(minor, at, to, write)) {
      for (let step = at; step <= to; step += STEP)
        if (!this.#fault(minor, step, Math.min(to, step + STEP - 1), write)) return 'EFAULT';
    }
    return '';
  }

  /** The first page that the mirror refuses, or the one behind the range. */
  #through(minor: 0 | 1, from: number, to: number, write: boolean): number {
    for (let page = from; page <= to; page++) {
      const entry = this.mirrors[minor][page];
      if (entry === undefined || (write && !entry.write)) return page;
      if (entry.bare) throw DEAD;
    }
    return to + 1;
  }

  /** One step: the first page that is not as asked makes it and all behind it be touched, and the walk begins anew. */
  #fault(minor: 0 | 1, from: number, to: number, write: boolean): boolean {
    for (let page = from; page <= to; page++) {
      const { at, write: writable } = this.cpu[page] as Page;
      if (at === minor) continue;
      const present = at === 'zero' || at === 'system';
      if (!present || (write && !writable)) for (let rest = page; rest <= to; rest++) this.touch(rest, write);
    }
    for (let page = from; page <= to; page++) {
      const { at, write: writable } = this.cpu[page] as Page;
      if (write && !writable) return false;
      const bare = at === minor;
      this.stored ||= bare;
      this.mirrors[minor][page] = { write: writable, bare };
    }
    return true;
  }
}

interface Step {
  readonly what: 'touch' | 'discard' | 'demote' | 'toDevice' | 'toSystem' | 'access';
  readonly minor: 0 | 1;
  readonly from: number;
  readonly count: number;
  readonly write: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom('touch', 'discard', 'demote', 'demote', 'toDevice', 'toDevice', 'toSystem', 'access', 'access'),
  minor: fc.constantFrom(0, 1),
  from: fc.nat(PAGES - 1),
  count: fc.integer({ min: 1, max: PAGES }),
  write: fc.boolean(),
});

/** Makes the step in both models, which must answer alike; whether the kernel dies in it. */
function both(lab: Lab, pages: PageWise, { what, minor, from, count, write }: Step): boolean {
  const to = Math.min(PAGES, from + count) - 1;
  const addr = MEMORY + from * PAGE;
  const npages = to - from + 1;
  if (what === 'touch') {
    lab.populate(addr, npages, write);
    for (let page = from; page <= to; page++) pages.touch(page, write);
    return false;
  }
  if (what === 'discard') {
    lab.feed(ev('madvise', { addr, lengthBytes: npages * PAGE, advice: 4 }));
    pages.discard(from, to);
    return false;
  }
  if (what === 'demote') {
    for (const prot of [1, 3]) lab.feed(ev('mprotect', { addr, lengthBytes: npages * PAGE, prot }));
    pages.demote(from, to);
    return false;
  }
  const request = what === 'access' ? (write ? WRITE : READ) : what === 'toDevice' ? TO_DEV : TO_SYS;
  const [errno, dead] = answerOf(pages, { what, minor, from, to, write });
  const end = dead ? { ret: null } : errno === '' ? {} : { ret: -1 as const, errno };
  const verdict = lab.feed(ioctl(3 + minor, request, command(addr, npages), end));
  assert.is(verdict, dead ? 'unknown' : 'match');
  return dead;
}

function answerOf(
  pages: PageWise,
  { what, minor, from, to, write }: Omit<Step, 'count'> & { to: number },
): [string, boolean] {
  try {
    if (what === 'access') return [pages.access(minor, from, to, write), false];
    if (what === 'toDevice') return [pages.toDevice(minor, from, to), false];
    pages.toSystem(minor, from, to);
    return ['', false];
  } catch (error) {
    if (error !== DEAD) throw error;
    return ['', true];
  }
}

test('the calls in which the kernel dies are found, and no others', () => {
  let deaths = 0;
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 24 }), (steps) => {
      const lab = new Lab([mirrorBare]);
      const pages = new PageWise();
      for (const each of steps) {
        const dead = both(lab, pages, each);
        assert.is(lab.findings.length > 0, dead || pages.stored, JSON.stringify(each));
        if (lab.findings.length === 0) continue;
        deaths += dead ? 1 : 0;
        assert.is(lab.findings[0]?.seq, lab.next - 1);
        return;
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(deaths > 8, `only ${deaths} died`);
});
