import type { U64 } from '../u64.js';
import type {
  CapChain,
  Case,
  Command,
  CommandKind,
  Direction,
  EnumSet,
  Field,
  FlagSet,
  Length,
  NamedValue,
  Rendering,
  Scalar,
  Selector,
  Shape,
  Struct,
  Target,
} from './types.js';

/**
 * Builders for the tables. A struct is written as the header has it, field after field; offsets, padding and size
 * follow from C's rules of natural alignment, and a test compares them with what a compiler says.
 */

const SCALAR_BYTES: Readonly<Record<Scalar, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, s32: 4 };

export function scalarBytes(scalar: Scalar): number {
  return SCALAR_BYTES[scalar];
}

function named(prefix: string, values: Readonly<Record<string, U64>>): NamedValue[] {
  return Object.entries(values).map(([label, value]) => ({ name: prefix + label, label, value }));
}

/** One of several values; header names are `prefix` + key. */
export function oneOf(prefix: string, values: Readonly<Record<string, U64>>): EnumSet {
  return { set: 'enum', values: named(prefix, values) };
}

/** Any of several bits; header names are `prefix` + key. `low` names a number kept in the bits of `lowMask`. */
export function bits(prefix: string, values: Readonly<Record<string, U64>>, lowMask = 0, low?: EnumSet): FlagSet {
  return { set: 'flags', values: named(prefix, values), lowMask, low };
}

/** Joins sets that share a field but not a prefix. */
export function joinBits(...sets: readonly FlagSet[]): FlagSet {
  return { set: 'flags', values: sets.flatMap((s) => s.values), lowMask: 0, low: undefined };
}

export function joinEnums(...sets: readonly EnumSet[]): EnumSet {
  return { set: 'enum', values: sets.flatMap((s) => s.values) };
}

// ---- lengths and selectors ---------------------------------------------------------------------------------

export const REST: Length = { unit: 'rest' };

export function fixed(count: number): Length {
  return { unit: 'fixed', count };
}

/** The value of `field`, times `scale`. */
export function countOf(field: string, scale = 1): Length {
  return { unit: 'field', field, scale };
}

/** Bytes of a bitmap with one bit for each page. */
export function bitmapOf(length: string, page: string): Length {
  return { unit: 'bitmap', length, page };
}

export function by(field: string, mask = 0): Selector {
  return { field, mask };
}

// ---- shapes ------------------------------------------------------------------------------------------------

export function scalarShape(scalar: Scalar, as: Rendering = 'decimal'): Shape {
  return { shape: 'scalar', scalar, as };
}

export function structShape(struct: Struct): Shape {
  return { shape: 'struct', struct };
}

export function bytesShape(length: Length): Shape {
  return { shape: 'bytes', length };
}

export function arrayShape(of: Shape, length: Length, stride = ''): Shape {
  return { shape: 'array', of, length, stride };
}

export function choiceShape(selector: Selector, cases: readonly Case[]): Shape {
  return { shape: 'choice', by: selector, cases };
}

/** A member of a union, taken when the selector has one of `values` (none: taken when nothing else fits). */
export function member(name: string, values: readonly number[], shape: Shape): Case {
  return { name, values, shape };
}

/** Case whose shape is a struct, under the struct's own name. */
export function structCase(struct: Struct, ...values: readonly number[]): Case {
  return { name: struct.name, values, shape: structShape(struct) };
}

export function pointsTo(shape: Shape, direction: Direction, options: { room?: Length; when?: Selector } = {}): Target {
  return { shape, direction, room: options.room ?? REST, when: options.when };
}

/** Bytes of the fixed part. */
export function shapeBytes(shape: Shape): number {
  switch (shape.shape) {
    case 'scalar':
      return SCALAR_BYTES[shape.scalar];
    case 'struct':
      return shape.struct.sizeBytes;
    case 'bytes':
      return shape.length.unit === 'fixed' ? shape.length.count : 0;
    case 'array':
      return shape.length.unit === 'fixed' ? shape.length.count * shapeBytes(shape.of) : 0;
    case 'choice':
      return Math.max(...shape.cases.map((c) => shapeBytes(c.shape)));
  }
}

function shapeAlign(shape: Shape): number {
  switch (shape.shape) {
    case 'scalar':
      return SCALAR_BYTES[shape.scalar];
    case 'struct':
      return shape.struct.alignBytes;
    case 'bytes':
      return 1;
    case 'array':
      return shapeAlign(shape.of);
    case 'choice':
      return Math.max(...shape.cases.map((c) => shapeAlign(c.shape)));
  }
}

// ---- fields ------------------------------------------------------------------------------------------------

/** A field before its struct gives it a name and a place. */
export interface FieldSpec {
  readonly shape: Shape;
  readonly direction: Direction;
  readonly target?: Target;
  readonly alignBytes?: number;
  readonly sizeBytes?: number;
}

export function u8(direction: Direction = 'in', as: Rendering = 'decimal'): FieldSpec {
  return { shape: scalarShape('u8', as), direction };
}

export function u16(direction: Direction = 'in', as: Rendering = 'decimal'): FieldSpec {
  return { shape: scalarShape('u16', as), direction };
}

export function u32(direction: Direction = 'in', as: Rendering = 'decimal'): FieldSpec {
  return { shape: scalarShape('u32', as), direction };
}

/** A signed 32-bit field: in these interfaces always an fd, -1 for none. */
export function fd(direction: Direction = 'in'): FieldSpec {
  return { shape: scalarShape('s32'), direction };
}

/** 64-bit fields are addresses, sizes and masks: hexadecimal unless told otherwise. */
export function u64(direction: Direction = 'in', as: Rendering = 'hex'): FieldSpec {
  return { shape: scalarShape('u64', as), direction };
}

export function pointer(target: Target): FieldSpec {
  return { shape: scalarShape('u64', 'hex'), direction: 'in', target };
}

export const reserved16: FieldSpec = u16('reserved');
export const reserved32: FieldSpec = u32('reserved');

export function reserved8(count: number): FieldSpec {
  return { shape: arrayShape(scalarShape('u8'), fixed(count)), direction: 'reserved' };
}

/** `scalar name[count]`. */
export function array(scalar: Scalar, count: number, direction: Direction, as: Rendering = 'hex'): FieldSpec {
  return { shape: arrayShape(scalarShape(scalar, as), fixed(count)), direction };
}

/** A struct inside a struct. */
export function nested(struct: Struct, direction: Direction): FieldSpec {
  return { shape: structShape(struct), direction };
}

/** `struct element name[]` at the end of a struct. */
export function flexible(of: Shape, length: Length, direction: Direction): FieldSpec {
  return { shape: arrayShape(of, length), direction };
}

/** `__u8 name[]` whose content depends on another field. */
export function flexibleChoice(selector: Selector, cases: readonly Case[], direction: Direction): FieldSpec {
  return { shape: choiceShape(selector, cases), direction, alignBytes: 1, sizeBytes: 0 };
}

/** An anonymous union; its name here is the printer's and decoder's only. */
export function union(selector: Selector, cases: readonly Case[], direction: Direction): FieldSpec {
  return { shape: choiceShape(selector, cases), direction };
}

const roundUp = (value: number, power: number): number => Math.ceil(value / power) * power;

/** Lays the fields out one after the other as a C compiler does. */
export function struct(name: string, specs: Readonly<Record<string, FieldSpec>>, caps?: CapChain): Struct {
  const fields: Field[] = [];
  let at = 0;
  let alignBytes = 1;
  for (const [fieldName, spec] of Object.entries(specs)) {
    const align = spec.alignBytes ?? shapeAlign(spec.shape);
    const sizeBytes = spec.sizeBytes ?? shapeBytes(spec.shape);
    at = roundUp(at, align);
    alignBytes = Math.max(alignBytes, align);
    const { direction, shape, target } = spec;
    fields.push({ name: fieldName, offset: at, sizeBytes, alignBytes: align, direction, shape, target });
    at += sizeBytes;
  }
  const byName = new Map(fields.map((f) => [f.name, f]));
  return { name, sizeBytes: roundUp(at, alignBytes), alignBytes, fields, byName, caps };
}

/** The offset just behind a field: the kernel's `offsetofend`. */
export function endOf(of: Struct, fieldName: string): number {
  const field = of.byName.get(fieldName);
  if (field === undefined) throw new Error(`${of.name} has no field ${fieldName}`);
  return field.offset + field.sizeBytes;
}

// ---- commands ----------------------------------------------------------------------------------------------

/** `_IO(';', nr)`, the form of all VFIO and iommufd requests: no direction, no size. */
export function semicolonRequest(nr: number): number {
  return 0x3b00 + nr;
}

const BARE = {
  spapr: false,
  struct: undefined,
  argAs: 'decimal',
  sizeRule: 'fixed',
  minSizeBytes: 0,
  sizeBytes: 0,
  returns: 'zero',
} as const;

export type CommandOptions = Partial<Pick<Command, 'spapr' | 'argAs' | 'returns'>>;

/** A command whose argument is a value, a text or nothing. */
export function plainCommand(
  kind: CommandKind,
  name: string,
  nr: number,
  arg: 'int' | 'string' | 'none',
  options: CommandOptions = {},
): Command {
  return { ...BARE, name, request: semicolonRequest(nr), kind, arg, ...options };
}

/** A command whose argument points to a struct that begins with its own size; `lastField` is the last that must be there. */
export function sizedCommand(
  kind: CommandKind,
  name: string,
  nr: number,
  of: Struct,
  lastField: string,
  options: CommandOptions = {},
): Command {
  const sizeRule = of.fields[0]?.name === 'size' ? 'size' : 'argsz';
  const minSizeBytes = endOf(of, lastField);
  const request = semicolonRequest(nr);
  return {
    ...BARE,
    name,
    request,
    kind,
    arg: 'struct',
    struct: of,
    sizeRule,
    minSizeBytes,
    sizeBytes: of.sizeBytes,
    ...options,
  };
}

/** A command whose argument points to something of one size only. */
export function fixedCommand(
  kind: CommandKind,
  name: string,
  request: number,
  of: Struct,
  options: CommandOptions & { arg?: 'fd' } = {},
): Command {
  const { sizeBytes } = of;
  return { ...BARE, name, request, kind, arg: 'struct', struct: of, minSizeBytes: sizeBytes, sizeBytes, ...options };
}
