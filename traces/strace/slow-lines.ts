import { type BlockState, MAX_LINE_BYTES } from '../input/line-blocks.js';
import { CallLines } from './call-lines.js';
import type { Context } from './context.js';
import { type Leader, readLeader } from './leader.js';
import { isNoise, quoteLength, readMessage, SummaryTables, withoutColour } from './noise.js';
import { copied, cutText } from './text.js';
import type { Thread } from './recorder.js';
import { SIGNALS } from './symbols.js';

const BINARY = /[\u0000-\u0008\u000e-\u001a\u001c-\u001f]/;
const CALL = /[a-zA-Z_][a-zA-Z0-9_]*\(/y;
const RESUMED = /^<\.\.\. (\w+) resumed>/;
const UNFINISHED = /\s?<unfinished \.\.\.>$/;
const DETACHED = /\s?<detached \.\.\.>$/;

/**
 * Reads any line of an strace text, from a string: the complete reader that the fast one (fast-lines.ts) hands over
 * to. What strace prints is described at the places that read it; see the files named in the imports.
 */
export class SlowLines {
  readonly #context: Context;
  readonly #calls: CallLines;
  readonly #tables = new SummaryTables();
  /** The beginning of a line that a message of strace broke off. */
  #broken = '';

  constructor(context: Context) {
    this.#context = context;
    this.#calls = new CallLines(context);
  }

  /** Whether the next line is the rest of a broken one, so that nobody else may read it. */
  get inside(): boolean {
    return this.#broken !== '';
  }

  /** `raw` is the line without its newline. */
  line(raw: string, state: BlockState): void {
    const context = this.#context;
    let text = raw.endsWith('\r') ? raw.slice(0, -1) : raw;
    if (text.includes('\u001b')) text = withoutColour(text);
    if (BINARY.test(text)) return context.skip('IOT107', '', text.search(BINARY) + 1);
    if (this.#isMessage(text)) return;
    if (this.#broken !== '') {
      text = this.#broken + text;
      this.#broken = '';
    }
    if (state === 'cut') context.report('IOT103', `${raw.length} bytes kept`, 1);
    if (this.#tables.takes(text) || isNoise(text)) return;
    const leader = readLeader(text, quoteLength(text));
    const rest = text.slice(leader.end);
    if (!looksLikeContent(rest)) return context.skip('IOT101', sample(text), leader.end + 1);
    const thread = this.#begin(leader);
    if (thread !== undefined) this.#content(thread, rest, leader, state);
  }

  /** The end of the input: what was begun and never ended. */
  end(): void {
    if (this.#broken !== '') this.line('', 'open');
    for (const thread of this.#context.recorder.unfinished) this.#calls.neverResumed(thread);
    this.#context.recorder.finish();
  }

  #isMessage(text: string): boolean {
    const message = readMessage(text);
    if (message === undefined) return false;
    const tids = this.#context.tids;
    if (message.what === 'attached') tids.attached(message.pid);
    if (message.what === 'detached') tids.ended(tids.translate(message.pid));
    if (quoteLength(message.before) < message.before.length) this.#broken += message.before;
    if (this.#broken.length > MAX_LINE_BYTES) {
      this.#broken = '';
      this.#context.skip('IOT103', 'broken off by messages of strace again and again');
    }
    return true;
  }

  /** Sets the clock and finds the thread. */
  #begin(leader: Leader): Thread | undefined {
    const { clock, tids, recorder } = this.#context;
    const inRange = !leader.range && (leader.clock === 'none' || clock[leader.clock](leader.seconds, leader.ns));
    if (!inRange) {
      this.#context.skip('IOT105', 'time or thread number', 1);
      return undefined;
    }
    if (leader.pid < 0) return recorder.thread(tids.unnumbered());
    return recorder.thread(leader.bracketed ? tids.bracketed(leader.pid) : tids.numbered(leader.pid));
  }

  #content(thread: Thread, rest: string, leader: Leader, state: BlockState): void {
    const column = leader.end + 1;
    if (rest.startsWith('--- ')) return this.#signal(thread, rest);
    if (rest.startsWith('+++ ')) return this.#ended(thread, rest, column);
    const resumed = RESUMED.exec(rest);
    if (resumed !== null) {
      const behind = rest.slice(resumed[0].length).replace(' <unfinished ...>', '');
      return this.#calls.resumed(thread, resumed[1] as string, behind, leader.pid >= 0, state, column);
    }
    if (UNFINISHED.test(rest)) return this.#calls.entered(thread, rest.replace(UNFINISHED, ''));
    if (DETACHED.test(rest)) return this.#calls.detached(thread, rest.replace(DETACHED, ''));
    this.#calls.whole(thread, rest, state, column);
  }

  #signal(thread: Thread, rest: string): void {
    const text = /^--- (.*?)(?: ---)?$/.exec(rest)?.[1] ?? '';
    const { recorder, clock, file, line } = this.#context;
    const { tid } = thread;
    const head = { seq: recorder.nextSeq, tsNs: clock.nowNs, pid: 0, tid, file, line };
    recorder.push({ kind: 'signal', ...head, text: cutText(text) });
  }

  #ended(thread: Thread, rest: string, column: number): void {
    const exited = /^\+\+\+ exited with (-?[0-9]{1,10})/.exec(rest);
    const killed = /^\+\+\+ killed by (\w+)/.exec(rest);
    const superseded = /^\+\+\+ superseded by execve in pid ([0-9]{1,9})/.exec(rest);
    if (exited !== null) this.#calls.gone(thread, 'exit', Number(exited[1]));
    else if (killed !== null) this.#calls.gone(thread, 'killed', SIGNALS.get(killed[1] as string) ?? 0);
    else if (superseded !== null) this.#calls.superseded(thread, Number(superseded[1]));
    else this.#context.skip('IOT101', sample(rest), column);
  }
}

function looksLikeContent(rest: string): boolean {
  CALL.lastIndex = 0;
  return CALL.test(rest) || rest.startsWith('--- ') || rest.startsWith('+++ ') || RESUMED.test(rest);
}

function sample(text: string): string {
  return text.length <= 60 ? copied(text) : `${copied(text.slice(0, 60))}…`;
}
