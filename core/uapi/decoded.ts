import type { Bytes } from '../bytes.js';
import type { U64 } from '../u64.js';
import type { Command, Field, Struct } from './types.js';

/**
 * What decode() makes of an ioctl's argument: a plain tree. `undefined` stands wherever the recording lacks a byte;
 * nothing is guessed.
 */

/** A number is a scalar; a signed field may be negative. */
export type Value = U64 | DecodedStruct | DecodedArray | DecodedBytes | DecodedChoice;

/**
 * `known`: all its bytes were recorded (of an array or a struct: its own parts tell). `unknown`: some were not.
 * `absent`: the caller's struct is too short to hold it, so its bytes mean nothing.
 */
export type Knowledge = 'known' | 'unknown' | 'absent';

export interface DecodedField {
  readonly field: Field;
  readonly knowledge: Knowledge;
  readonly value: Value | undefined;
  /** What the pointer leads to; null where the field is no pointer, is NULL or unused. */
  readonly target: Value | undefined | null;
}

export interface DecodedStruct {
  readonly kind: 'struct';
  readonly struct: Struct;
  readonly fields: readonly DecodedField[];
  readonly caps: readonly DecodedCap[];
  /** What is wrong with the capability chain, or ''. */
  readonly problem: string;
}

export interface DecodedArray {
  readonly kind: 'array';
  /** Elements up to the first gap of what is known. */
  readonly items: readonly (Value | undefined)[];
  /** How many there should be. */
  readonly count: U64;
}

export interface DecodedBytes {
  readonly kind: 'bytes';
  /** Bytes up to the first gap of what is known. */
  readonly bytes: Bytes;
  /** How many there should be. */
  readonly count: U64;
}

export interface DecodedChoice {
  readonly kind: 'choice';
  /** Member of the union. */
  readonly name: string;
  readonly value: Value | undefined;
}

export interface DecodedCap {
  /** Offset from the start of the info struct. */
  readonly at: number;
  readonly value: DecodedStruct;
  /** What follows the header of a capability with an id that no table knows. */
  readonly raw: DecodedBytes | undefined;
}

export interface DecodedCall {
  readonly command: Command;
  readonly arg: U64;
  /** Content of what `arg` points to; undefined where nothing was recorded, or for `int` and `none`. */
  readonly value: Value | undefined;
}
