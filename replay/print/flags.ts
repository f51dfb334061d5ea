import { and, hex, sub, type U64 } from '../../core/u64.js';
import {
  CLONE,
  FCNTL,
  MADV,
  MAP,
  MLOCK,
  MREMAP,
  OPEN,
  PROT,
  RLIMIT,
  SECBIT,
  type Symbols,
} from '../../traces/strace/symbols.js';

/** The names behind the numbers of an event: the importer's tables, read the other way round. */

/**
 * The bits of `value` by name. Of the names that fit, those of more bits go first (O_SYNC contains O_DSYNC); what has no
 * name stays a number.
 */
function bitsText(value: U64, names: Symbols, none: string): string {
  const fitting = [...names].filter(([, bits]) => bits !== 0 && and(value, bits) === bits);
  fitting.sort(([, a], [, b]) => bitCount(b) - bitCount(a));
  const chosen: [string, number][] = [];
  let rest = value;
  for (const [name, bits] of fitting) {
    if (and(rest, bits) !== bits) continue;
    rest = sub(rest, bits);
    chosen.push([name, bits]);
  }
  const texts = chosen.sort(([, a], [, b]) => a - b).map(([name]) => name);
  if (rest !== 0) texts.push(hex(rest));
  return texts.length > 0 ? texts.join('|') : none;
}

function bitCount(value: number): number {
  let count = 0;
  for (let rest = value; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2;
  return count;
}

function valueText(value: number, names: Symbols): string {
  for (const [name, each] of names) if (each === value) return name;
  return String(value);
}

/** Flag fields come as 32-bit values of either sign. */
function unsigned(value: number): number {
  return value >>> 0;
}

// These are no single bits: a mask for the access mode, and the place of a page size in MAP_HUGE_*.
const OPEN_BITS: Symbols = new Map([...OPEN].filter(([name]) => name !== 'O_ACCMODE'));
const MAP_BITS: Symbols = new Map([...MAP].filter(([name]) => name !== 'MAP_HUGE_SHIFT'));

const MCL_BITS: Symbols = new Map([...MLOCK].filter(([name]) => name.startsWith('MCL_')));

export function mlockallText(value: number): string {
  return bitsText(unsigned(value), MCL_BITS, '0');
}

export function securebitsText(value: number): string {
  return bitsText(unsigned(value), SECBIT, '0');
}

export function protText(value: number): string {
  return bitsText(unsigned(value), PROT, 'PROT_NONE');
}

export function mapFlagsText(value: number): string {
  return bitsText(unsigned(value), MAP_BITS, '0');
}

export function mremapFlagsText(value: number): string {
  return bitsText(unsigned(value), MREMAP, '0');
}

export function openFlagsText(value: number): string {
  const rest = bitsText(unsigned(value), OPEN_BITS, '');
  if ((value & 3) !== 0) return rest;
  return rest === '' ? 'O_RDONLY' : `O_RDONLY|${rest}`;
}

/** The low byte is the signal of the child's end and no flag. */
export function cloneFlagsText(value: U64): string {
  return bitsText(sub(value, and(value, 0xff)), CLONE, '0');
}

export function adviceText(value: number): string {
  return valueText(value, MADV);
}

export function fcntlText(value: number): string {
  return valueText(value, FCNTL);
}

export function rlimitText(value: number): string {
  return valueText(value, RLIMIT);
}

/** `enum mmu_notifier_event` of include/linux/mmu_notifier.h. */
const INVALIDATIONS = [
  'UNMAP',
  'CLEAR',
  'PROTECTION_VMA',
  'PROTECTION_PAGE',
  'SOFT_DIRTY',
  'RELEASE',
  'MIGRATE',
  'EXCLUSIVE',
] as const;

export function invalidationText(value: number): string {
  return INVALIDATIONS[value] ?? String(value);
}
