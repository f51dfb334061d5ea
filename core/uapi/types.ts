import type { U64 } from '../u64.js';

/**
 * The vocabulary of the uAPI tables: what an ioctl is called, which files take it, how its argument is laid out.
 *
 * A table is data. One decoder, one encoder and one printer (decode.ts, encode.ts, format.ts) work for every
 * command, so a new command is a new row. Offsets are those of x86-64 and every other LP64 machine.
 */

/** The kinds of file that take these ioctls; the same words as the model's kinds of file. */
export type CommandKind = 'vfio-container' | 'vfio-group' | 'vfio-device' | 'iommufd' | 'vfio-migration' | 'dmirror';

export type Scalar = 'u8' | 'u16' | 'u32' | 'u64' | 's32';

/** Who writes a field: the caller (`in`), the kernel (`out`), both (`inout`), nobody (`reserved`: must be zero or is padding). */
export type Direction = 'in' | 'out' | 'inout' | 'reserved';

export interface NamedValue {
  /** The header's name, e.g. `IOMMU_IOAS_MAP_WRITEABLE`. */
  readonly name: string;
  /** Short form for one-line texts: the name without the prefix of its set. */
  readonly label: string;
  readonly value: U64;
}

/** Values of which a field holds one. */
export interface EnumSet {
  readonly set: 'enum';
  readonly values: readonly NamedValue[];
}

/** Bits of which a field holds any; `low` names the values of a number kept in the bits of `lowMask`. */
export interface FlagSet {
  readonly set: 'flags';
  readonly values: readonly NamedValue[];
  readonly lowMask: number;
  readonly low: EnumSet | undefined;
}

export type Rendering = 'decimal' | 'hex' | EnumSet | FlagSet;

/**
 * How many there are, read from fields of the struct or of one that encloses it.
 * `field`: that field's value times `scale`. `bitmap`: bytes of a bitmap with one bit for each `page` of
 * `length`. `rest`: whatever lies before the end of the buffer.
 */
export type Length =
  | { readonly unit: 'fixed'; readonly count: number }
  | { readonly unit: 'field'; readonly field: string; readonly scale: number }
  | { readonly unit: 'bitmap'; readonly length: string; readonly page: string }
  | { readonly unit: 'rest' };

/** A field's bits that decide: `(value of field & mask) >>> 0`; a mask of 0 stands for the whole field. */
export interface Selector {
  readonly field: string;
  readonly mask: number;
}

export interface Case {
  /** Member of the union, or the struct's name where the header has no union. */
  readonly name: string;
  /** Selected values; the case with none is taken when no other fits. */
  readonly values: readonly number[];
  readonly shape: Shape;
}

/** What lies at a place in memory. */
export type Shape =
  | { readonly shape: 'scalar'; readonly scalar: Scalar; readonly as: Rendering }
  | { readonly shape: 'struct'; readonly struct: Struct }
  | { readonly shape: 'bytes'; readonly length: Length }
  | {
      readonly shape: 'array';
      readonly of: Shape;
      readonly length: Length;
      /** Field that holds the distance of two elements in bytes, or '' for the element's own size. */
      readonly stride: string;
    }
  /** A union with its discriminator. Of several fitting cases the largest that the room allows is taken. */
  | { readonly shape: 'choice'; readonly by: Selector; readonly cases: readonly Case[] };

/** Where a pointer leads. */
export interface Target {
  readonly shape: Shape;
  /** Bytes the caller gives for it; `rest` when the shape alone tells. */
  readonly room: Length;
  /** Seen from the pointed-to memory: who writes it. */
  readonly direction: Direction;
  /** The pointer means something only when these bits are set. */
  readonly when: Selector | undefined;
}

export interface Field {
  readonly name: string;
  readonly offset: number;
  /** 0 for a flexible array. */
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly direction: Direction;
  readonly shape: Shape;
  readonly target: Target | undefined;
}

/** A chain of capabilities behind the fixed part of a VFIO info struct. */
export interface CapChain {
  /** Field that holds the offset of the first capability, from the start of the struct; 0 for none. */
  readonly offsetField: string;
  /** Bit of `flags` that says that the chain is there. */
  readonly flag: number;
  /** Capability by its id; the first field of each struct is the header. */
  readonly known: ReadonlyMap<number, Struct>;
}

export interface Struct {
  /** The header's name without `struct`. */
  readonly name: string;
  /** `sizeof`: without flexible arrays. */
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly fields: readonly Field[];
  readonly byName: ReadonlyMap<string, Field>;
  readonly caps: CapChain | undefined;
}

/**
 * What the third argument is. `struct`: pointer to {@link Command.struct}. `fd`: pointer to an `__s32` that holds an fd.
 * `int`: the value itself. `string`: pointer to a NUL-terminated text. `none`: ignored.
 */
export type ArgKind = 'struct' | 'int' | 'fd' | 'string' | 'none';

/** Which field tells how long the caller's struct is: VFIO's `argsz`, iommufd's `size`, or none (`fixed`). */
export type SizeRule = 'argsz' | 'size' | 'fixed';

export interface Command {
  readonly name: string;
  /** The whole 32-bit request. */
  readonly request: number;
  readonly kind: CommandKind;
  /** True for commands that only the POWER (sPAPR TCE) backend of a container knows. */
  readonly spapr: boolean;
  readonly arg: ArgKind;
  /** Layout of what the argument points to, for `struct` and `fd`. */
  readonly struct: Struct | undefined;
  /** How an `int` argument is printed. */
  readonly argAs: Rendering;
  readonly sizeRule: SizeRule;
  /** Shortest struct that the kernel accepts. */
  readonly minSizeBytes: number;
  /** `sizeof` of the struct in Linux 7.2, 0 where there is none. */
  readonly sizeBytes: number;
  /** What a successful call returns besides 0: a new fd, a plain number. */
  readonly returns: 'zero' | 'fd' | 'number';
}
