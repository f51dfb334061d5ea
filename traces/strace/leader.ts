/**
 * What stands before a call, from text: number and name of the thread, security context, times, call number,
 * instruction pointer. strace prints them in a fixed order, but pasted excerpts lose parts of it, so any order is read.
 */
export interface Leader {
  /** The thread's number, or -1. */
  pid: number;
  /** Whether the number stood in `[pid N]`. */
  bracketed: boolean;
  clock: 'none' | 'epoch' | 'day' | 'relative';
  seconds: number;
  ns: number;
  /** Where the rest of the line begins. */
  end: number;
  /** A number too large for its place. */
  range: boolean;
}

const BRACKETED_PID = /\[pid +([0-9]+)(?:<[^>]*>)?\] */y;
const BARE_PID = /([0-9]+)(?:<[^>]*>)? +/y;
const DAY = /([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))? +/y;
const EPOCH = /([0-9]{8,15})(?:\.([0-9]{1,9}))? +/y;
const RELATIVE = / *([0-9]{1,7})\.([0-9]{1,9}) +/y;
const RELATIVE_IN_PARENTHESES = /\(\+ *([0-9]{1,9})(?:\.([0-9]{1,9}))?\) */y;
/** `-n`, `-i` (`[????????????????]` where it is unknown) and security contexts. */
const BRACKETS = /\[(?!pid )[^\][]*\] +/y;

const MAX_PID = 0x7fff_ffff;

export function readLeader(text: string, from: number): Leader {
  const leader: Leader = { pid: -1, bracketed: false, clock: 'none', seconds: 0, ns: 0, end: from, range: false };
  while (readTime(text, leader) || readPid(text, leader) || skip(text, leader)) {
    // Each step moves `end` on.
  }
  return leader;
}

function match(pattern: RegExp, text: string, leader: Leader): RegExpExecArray | null {
  pattern.lastIndex = leader.end;
  const found = pattern.exec(text);
  if (found !== null) leader.end = pattern.lastIndex;
  return found;
}

function readPid(text: string, leader: Leader): boolean {
  if (leader.pid >= 0) return false;
  const bracketed = match(BRACKETED_PID, text, leader);
  const found = bracketed ?? (leader.clock === 'none' ? match(BARE_PID, text, leader) : null);
  if (found === null) return false;
  leader.pid = Number(found[1]);
  leader.bracketed = bracketed !== null;
  if (leader.pid > MAX_PID) leader.range = true;
  return true;
}

function readTime(text: string, leader: Leader): boolean {
  const day = leader.clock === 'none' ? match(DAY, text, leader) : null;
  if (day !== null) {
    const seconds = Number(day[1]) * 3600 + Number(day[2]) * 60 + Number(day[3]);
    return setTime(leader, 'day', seconds, day[4]);
  }
  const epoch = leader.clock === 'none' ? match(EPOCH, text, leader) : null;
  if (epoch !== null) return setTime(leader, 'epoch', Number(epoch[1]), epoch[2]);
  const relative = match(RELATIVE_IN_PARENTHESES, text, leader) ?? match(RELATIVE, text, leader);
  if (relative === null) return false;
  if (leader.clock === 'none') setTime(leader, 'relative', Number(relative[1]), relative[2]);
  return true;
}

function setTime(leader: Leader, clock: Leader['clock'], seconds: number, fraction: string | undefined): boolean {
  leader.clock = clock;
  leader.seconds = seconds;
  leader.ns = fraction === undefined ? 0 : Number(fraction.padEnd(9, '0'));
  return true;
}

function skip(text: string, leader: Leader): boolean {
  return match(BRACKETS, text, leader) !== null;
}
