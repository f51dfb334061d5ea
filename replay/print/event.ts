import { basename } from 'node:path';
import type { Bytes } from '../../core/bytes.js';
import {
  type EnterEvent,
  type Event,
  type IoctlEvent,
  type MemNote,
  MIRROR_ATOMIC,
  MIRROR_READ,
  MIRROR_WRITE,
  type MirrorEvent,
} from '../../core/event.js';
import { hex, type U64 } from '../../core/u64.js';
import { formatCall } from '../../core/uapi/format.js';
import { withPlaces } from '../events-named.js';
import type { Judged, JudgedEvent } from '../judged.js';
import type { LookBack } from '../look-back.js';
import {
  adviceText,
  cloneFlagsText,
  fcntlText,
  invalidationText,
  mapFlagsText,
  mlockallText,
  mremapFlagsText,
  openFlagsText,
  protText,
  rlimitText,
  securebitsText,
} from './flags.js';
import { printable } from './style.js';

/** Events in the words of the system call: `munmap(0x7f0000000000, 4096) = 0`. One line, whatever the event holds. */

/** `file:line`. */
export function placeOf(files: readonly string[], event: { readonly file: number; readonly line: number }): string {
  return `${files[event.file] ?? '?'}:${event.line}`;
}

/** The same without the directories, for lists below a place in full. */
export function shortPlaceOf(
  files: readonly string[],
  event: { readonly file: number; readonly line: number },
): string {
  return `${basename(files[event.file] ?? '?')}:${event.line}`;
}

/** A text with a place behind each event that it names, by line where the recording is one file. */
export function placesIn(files: readonly string[], back: LookBack, text: string): string {
  return withPlaces(text, (seq) => {
    const place = back.places.get(seq);
    if (place === undefined) return '';
    return files.length > 1 ? shortPlaceOf(files, place) : `line ${place.line}`;
  });
}

/** The call with its result. */
export function eventText({ event, judged, meaning }: JudgedEvent): string {
  const call = printable(event.kind === 'io' ? ioText(event, meaning) : callText(event, judged));
  return 'enteredAt' in event ? `${call} = ${outcomeText(event)}` : call;
}

function outcomeText(event: { ret: U64 | -1 | null; errno: string; injected: boolean; kind: string }): string {
  const injected = event.injected ? ' (injected)' : '';
  if (event.ret === null) return `?${injected}`;
  if (event.ret === -1) return `-1 ${event.errno}${injected}`;
  const isAddress = event.kind === 'mmap' || event.kind === 'mremap' || event.kind === 'brk';
  return `${isAddress ? hex(event.ret) : numberText(event.ret)}${injected}`;
}

/** Small numbers in decimal, what looks like an address in hex. */
function numberText(value: U64): string {
  return typeof value === 'number' && value < 0x1_0000_0000 ? String(value) : hex(value);
}

function fdText(fd: number, path: string): string {
  return path === '' ? String(fd) : `${fd}<${path}>`;
}

/** What the system call is named in a recording; for `--call`. */
export function callName({ event, judged }: JudgedEvent): string {
  if (judged !== undefined) return judged.name;
  return 'call' in event ? event.call : event.kind;
}

function callText(event: Event, judged: Judged | undefined): string {
  switch (event.kind) {
    case 'ioctl':
      return ioctlText(event, judged);
    case 'io':
      return ioText(event, undefined);
    case 'open':
      return `${event.call}(${JSON.stringify(event.path)}, ${openFlagsText(event.flags)})`;
    case 'close':
      return `close(${fdText(event.fd, event.path)})`;
    case 'closeRange':
      return `close_range(${event.firstFd}, ${event.lastFd}, ${event.flags})`;
    case 'dup': {
      const name = event.newFd < 0 ? 'dup' : event.flags !== 0 ? 'dup3' : 'dup2';
      return `${name}(${fdText(event.fd, event.path)}${event.newFd < 0 ? '' : `, ${event.newFd}`})`;
    }
    case 'fcntl':
      return `fcntl(${fdText(event.fd, event.path)}, ${fcntlText(event.cmd)}, ${numberText(event.arg)})`;
    case 'newFds':
      return `${event.call}([${event.fds.map((fd, i) => fdText(fd, event.paths[i] ?? '')).join(', ')}])`;
    case 'fork':
      return `${event.call}(${cloneFlagsText(event.flags)})`;
    case 'exec':
      return `execve(${JSON.stringify(event.path)})`;
    case 'exit':
      return event.call === 'killed' ? `killed by signal ${event.status}` : `${event.call}(${event.status})`;
    case 'prlimit':
      return prlimitText(event);
    case 'creds':
      return credsText(event);
    case 'signal':
      return event.text;
    case 'other':
      return `${event.call}(${event.text})`;
    case 'enter':
      return `${event.call}(${enteredText(event)}) begins`;
    case 'fault':
      return `page fault at ${hex(event.addr)}, flags ${hex(event.flags)}, answer ${hex(event.ret)}`;
    case 'invalidateStart':
    case 'invalidateEnd': {
      const what = event.kind === 'invalidateStart' ? 'begins' : 'ends';
      return `invalidation ${invalidationText(event.type)} ${what}: ${rangeText(event)}`;
    }
    case 'mirrorMap': {
      const memory = event.memory === 0 ? '' : `, device-private memory of ${hex(event.memory)}`;
      const read = event.notifierSeq === null ? '' : `, read at ${event.notifierSeq}`;
      return `${mirrorText(event)} takes ${rangeText(event)} for ${accessText(event.flags)}${memory}${read}`;
    }
    case 'mirrorUnmap':
      return `${mirrorText(event)} drops ${rangeText(event)}`;
    case 'mirrorInvalidate': {
      const number = event.notifierSeq === null ? '' : `, number ${event.notifierSeq}`;
      return `${mirrorText(event)} is told of an invalidation: ${rangeText(event)}${number}`;
    }
    case 'mirrorEnd':
      return `${mirrorText(event)} ends`;
    default:
      return memoryText(event);
  }
}

function mirrorText(event: MirrorEvent): string {
  const name = event.kind === 'mirrorMap' && event.driver !== '' ? `${event.driver} ` : '';
  return `mirror ${name}${hex(event.mirror)}`;
}

function rangeText(range: { readonly start: U64; readonly last: U64 }): string {
  return `${hex(range.start)}-${hex(range.last)}`;
}

function accessText(flags: number): string {
  const names = [
    [MIRROR_READ, 'read'],
    [MIRROR_WRITE, 'write'],
    [MIRROR_ATOMIC, 'atomic access'],
  ] as const;
  return names
    .filter(([bit]) => (flags & bit) !== 0)
    .map(([, name]) => name)
    .join(' and ');
}

/** The argument as the kernel read it and, where the call changed it, as it was afterwards. */
function ioctlText(event: IoctlEvent, judged: Judged | undefined): string {
  const kind = judged?.kind ?? 'unknown';
  const before = formatCall(kind, event.request, event.arg, event.memIn);
  const after = hasAnswer(event) ? formatCall(kind, event.request, event.arg, event.memOut) : before;
  const changed = after === before ? '' : ` => ${after.slice(after.indexOf(' ') + 1)}`;
  return `ioctl(${event.fd}, ${before}${changed})`;
}

/** A failed call that left its struct alone answered nothing, whatever is behind the struct's pointers. */
function hasAnswer(event: IoctlEvent): boolean {
  if (event.memOut.length === 0) return false;
  if (event.ret !== -1) return true;
  const structIn = (notes: readonly MemNote[]): Bytes | undefined =>
    notes.find(({ addr }) => addr === event.arg)?.bytes;
  const before = structIn(event.memIn);
  const after = structIn(event.memOut);
  return before !== undefined && after !== undefined && !before.equals(after);
}

/** What a call shows of itself where it begins. */
function enteredText(event: EnterEvent): string {
  if (event.call === 'ioctl') return `${fdText(event.fd, event.path)}, ${hex(event.request)}`;
  const range = `${hex(event.addr)}, ${hex(event.lengthBytes)}`;
  switch (event.call) {
    case 'mprotect':
      return `${range}, ${protText(event.prot)}`;
    case 'madvise':
      return `${range}, ${adviceText(event.advice)}`;
    case 'mmap':
      return `${range}, ${protText(event.prot)}, ${mapFlagsText(event.flags)}`;
    default:
      return range;
  }
}

type MemoryEvent = Extract<Event, { kind: 'mmap' | 'munmap' | 'mprotect' | 'mremap' | 'madvise' | 'brk' | 'mlock' }>;

function memoryText(event: MemoryEvent): string {
  const at = hex(event.addr);
  switch (event.kind) {
    case 'mmap': {
      const file = event.fd < 0 ? '' : `, ${fdText(event.fd, event.path)}, ${hex(event.offset)}`;
      const how = `${protText(event.prot)}, ${mapFlagsText(event.flags)}${file}`;
      return `mmap(${event.addr === 0 ? 'NULL' : at}, ${hex(event.lengthBytes)}, ${how})`;
    }
    case 'munmap':
      return `munmap(${at}, ${hex(event.lengthBytes)})`;
    case 'mprotect':
      return `mprotect(${at}, ${hex(event.lengthBytes)}, ${protText(event.prot)})`;
    case 'madvise':
      return `madvise(${at}, ${hex(event.lengthBytes)}, ${adviceText(event.advice)})`;
    case 'mlock':
      return mlockText(event);
    case 'brk':
      return `brk(${event.addr === 0 ? 'NULL' : at})`;
    case 'mremap': {
      const fixed = (event.flags & 2) !== 0 ? `, ${hex(event.newAddr)}` : '';
      const sizes = `${hex(event.oldLengthBytes)}, ${hex(event.newLengthBytes)}`;
      return `mremap(${at}, ${sizes}, ${mremapFlagsText(event.flags)}${fixed})`;
    }
  }
}

function mlockText(event: Extract<Event, { kind: 'mlock' }>): string {
  if (event.call.endsWith('all')) return `${event.call}(${event.call === 'mlockall' ? mlockallText(event.flags) : ''})`;
  const flags = event.flags === 0 ? '' : `, ${hex(event.flags)}`;
  return `${event.call}(${hex(event.addr)}, ${hex(event.lengthBytes)}${flags})`;
}

const SHOWN_BYTES = 16;

function ioText(event: Extract<Event, { kind: 'io' }>, meaning: string | undefined): string {
  const shown = event.data.slice(0, Math.min(SHOWN_BYTES, event.data.length)).toHex();
  const data = event.data.length === 0 ? '' : `, ${shown}${event.data.length > SHOWN_BYTES ? '…' : ''}`;
  const about = meaning === undefined ? '' : ` (${meaning})`;
  const offset = event.offset === null ? '' : `, offset ${hex(event.offset)}${about}`;
  return `${event.call}(${fdText(event.fd, event.path)}${data}, ${numberText(event.lengthBytes)} bytes${offset})`;
}

function prlimitText(event: Extract<Event, { kind: 'prlimit' }>): string {
  const limits = (name: string, soft: U64 | null, hard: U64 | null): string =>
    soft === null && hard === null ? '' : `, ${name} ${limitText(soft)}/${limitText(hard)}`;
  const set = limits('new', event.newSoft, event.newHard);
  const was = limits('old', event.oldSoft, event.oldHard);
  return `prlimit(${event.targetPid}, ${rlimitText(event.resource)}${set}${was})`;
}

/** `setresuid(real 1000, effective 1000)`, `capset(effective caps 0x4000)`: what the call tells or changes. */
function credsText(event: Extract<Event, { kind: 'creds' }>): string {
  const parts = [
    event.targetPid === 0 ? '' : `of ${event.targetPid}`,
    event.realUid === null ? '' : `real ${event.realUid}`,
    event.effectiveUid === null ? '' : `effective ${event.effectiveUid}`,
    event.savedUid === null ? '' : `saved ${event.savedUid}`,
    event.effectiveCaps === null ? '' : `effective caps ${hex(event.effectiveCaps)}`,
    event.permittedCaps === null ? '' : `permitted caps ${hex(event.permittedCaps)}`,
    event.flags === 0 ? '' : event.call === 'prctl' ? securebitsText(event.flags) : cloneFlagsText(event.flags >>> 0),
  ];
  return `${event.call}(${parts.filter((part) => part !== '').join(', ')})`;
}

function limitText(value: U64 | null): string {
  return value === null ? '?' : value === 0xffff_ffff_ffff_ffffn ? 'unlimited' : String(value);
}
