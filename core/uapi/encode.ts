import { Bytes, putU32, putU64 } from '../bytes.js';
import type { MemNote } from '../event.js';
import { low32, type U64 } from '../u64.js';
import { scalarBytes, shapeBytes } from './layout.js';
import { behind, Memory } from './memory.js';
import { choiceNames, Scope } from './scope.js';
import type { Command, Field, Scalar, Shape, Struct } from './types.js';
import { isRecord, type Plain, type PlainRecord } from './values.js';
import { infoCapHeader } from './vfio-container.js';

/**
 * The one encoder for all tables: plain values to the memory that a recording would state, so that
 * `valuesOf(decode(command, arg, encode(command, arg, values)))` is `values` again. It writes what it is given and
 * derives nothing (neither counts nor discriminators), so that wrong arguments can be made as well as right ones.
 * Values that do not fit the table are our own bug and throw.
 */

/** What is done with fields that the values leave out: not stated at all, or zero with `size`/`argsz` filled in. */
export type Gaps = 'unknown' | 'zero';

/**
 * @param arg where the argument lies
 * @param values of the struct, or the bytes of a text without its NUL
 * @returns notes in the order of the memory they state: first the argument's own, then what its pointers lead to
 */
export function encode(command: Command, arg: U64, values: Plain, gaps: Gaps = 'unknown'): readonly MemNote[] {
  const encoder = new Encoder(gaps);
  if (command.struct === undefined) {
    if (values instanceof Bytes) encoder.text(arg, values);
  } else {
    const own = command.struct.fields[0]?.name ?? '';
    const sized = gaps === 'zero' && command.sizeRule !== 'fixed';
    const complete = sized && isRecord(values) ? { [own]: command.struct.sizeBytes, ...values } : values;
    encoder.begin();
    encoder.value({ shape: 'struct', struct: command.struct }, arg, complete, new Scope());
  }
  return encoder.finish();
}

class Encoder {
  readonly #gaps: Gaps;
  /** One list of pieces for each place that a pointer leads to, so that notes of different places stay apart. */
  readonly #regions: MemNote[][] = [];
  #region: MemNote[] = [];
  #later: (() => void)[] = [];

  constructor(gaps: Gaps) {
    this.#gaps = gaps;
  }

  begin(): void {
    this.#region = [];
    this.#regions.push(this.#region);
  }

  finish(): readonly MemNote[] {
    for (let job = this.#later.shift(); job !== undefined; job = this.#later.shift()) {
      this.begin();
      job();
    }
    return this.#regions.flatMap(joined);
  }

  text(addr: U64, bytes: Bytes): void {
    this.begin();
    this.#put(addr, bytes);
    this.#put(behind(addr, bytes.length), zeros(1));
  }

  #put(addr: U64, bytes: Bytes): void {
    if (bytes.length > 0) this.#region.push({ addr, bytes });
  }

  /** @param roomBytes what the place holds beyond the value itself, such as a union with a longer member; else 0 */
  value(shape: Shape, addr: U64, value: Plain | undefined, scope: Scope, roomBytes = 0): void {
    if (value === undefined) return;
    if (value instanceof Bytes) {
      this.#put(addr, value);
      return;
    }
    switch (shape.shape) {
      case 'scalar':
        if (!isNumber(value)) throw new TypeError(`a number is needed at ${addr}`);
        this.#put(addr, scalarToBytes(shape.scalar, value));
        return;
      case 'struct':
        if (!isRecord(value)) throw new TypeError(`a record is needed for ${shape.struct.name}`);
        this.#struct(shape.struct, addr, value, scope);
        return;
      case 'bytes':
        throw new TypeError(`bytes are needed at ${addr}`);
      case 'array':
        this.#array(shape, addr, value, scope);
        return;
      case 'choice':
        for (const c of shape.cases) {
          if (!isRecord(value) || value[c.name] === undefined) continue;
          this.value(c.shape, addr, value[c.name], scope);
          if (roomBytes > 0) this.#padding(addr, shapeBytes(c.shape), roomBytes);
        }
    }
  }

  #array(shape: Extract<Shape, { shape: 'array' }>, addr: U64, value: Plain, scope: Scope): void {
    if (!Array.isArray(value)) throw new TypeError(`a list is needed at ${addr}`);
    const stride = shape.stride === '' ? shapeBytes(shape.of) : Number(scope.get(shape.stride) ?? 0);
    value.forEach((item: Plain | undefined, i) => {
      const at = behind(addr, i * stride);
      this.value(shape.of, at, item, scope, stride);
      if (item !== undefined && shape.of.shape !== 'choice') this.#padding(at, shapeBytes(shape.of), stride);
    });
  }

  /** Zeros from `written` to `whole`: room that no field claims, so that a struct or array is stated in one piece. */
  #padding(addr: U64, written: number, whole: number): void {
    if (written < whole) this.#put(behind(addr, written), zeros(whole - written));
  }

  #struct(of: Struct, addr: U64, values: PlainRecord, outer: Scope): void {
    const scope = new Scope(outer);
    const fields = of.fields.map((field) => ({ field, value: this.#given(field, values) }));
    for (const { field, value } of fields) {
      const own = pointed(value)?.addr ?? value;
      if (isNumber(own)) scope.set(field.name, own);
      const chosen = isRecord(own) ? Object.values(own)[0] : undefined;
      if (isNumber(chosen)) for (const name of choiceNames(field.shape)) scope.set(name, chosen);
    }
    let end = 0;
    let whole = true;
    for (const { field, value } of fields) {
      if (value === undefined) {
        whole = false;
        continue;
      }
      if (whole) this.#padding(addr, end, field.offset);
      this.#field(field, addr, value, scope);
      end = field.offset + field.sizeBytes;
      whole = true;
    }
    if (whole && end > 0) this.#padding(addr, end, of.sizeBytes);
    const caps = values['caps'];
    if (Array.isArray(caps)) for (const cap of caps) if (isRecord(cap)) this.#cap(of, addr, cap, scope);
  }

  #given(field: Field, values: PlainRecord): Plain | undefined {
    const value = values[field.name];
    return value === undefined && this.#gaps === 'zero' && field.sizeBytes > 0 ? zeros(field.sizeBytes) : value;
  }

  #field(field: Field, addr: U64, value: Plain, scope: Scope): void {
    const at = behind(addr, field.offset);
    const pointer = pointed(value);
    const { target } = field;
    if (pointer === undefined || target === undefined) {
      this.value(field.shape, at, value, scope, field.sizeBytes);
      return;
    }
    this.value(field.shape, at, pointer.addr, scope);
    this.#later.push(() => this.value(target.shape, pointer.addr, pointer.target, scope));
  }

  /** A capability that is known has a header of its own; of any other the header's fields stand in the record. */
  #cap(of: Struct, addr: U64, cap: PlainRecord, scope: Scope): void {
    const { at, header, raw } = cap;
    if (typeof at !== 'number') throw new TypeError('a capability needs its place');
    const id = (isRecord(header) ? header : cap)['id'];
    const known = typeof id === 'number' ? of.caps?.known.get(id) : undefined;
    this.#struct(known ?? infoCapHeader, behind(addr, at), cap, scope);
    if (raw instanceof Bytes) this.#put(behind(addr, at + infoCapHeader.sizeBytes), raw);
  }
}

function zeros(count: number): Bytes {
  return new Bytes(new Uint8Array(count));
}

function isNumber(value: Plain | undefined): value is U64 {
  return typeof value === 'number' || typeof value === 'bigint';
}

function pointed(value: Plain | undefined): { addr: U64; target: Plain | undefined } | undefined {
  if (!isRecord(value)) return undefined;
  const { addr, target } = value;
  return isNumber(addr) && 'target' in value ? { addr, target } : undefined;
}

function scalarToBytes(scalar: Scalar, value: U64): Bytes {
  const bytes = new Uint8Array(8);
  if (scalar === 'u64') putU64(bytes, 0, value);
  else putU32(bytes, 0, typeof value === 'number' ? value >>> 0 : low32(value));
  return new Bytes(bytes, 0, scalarBytes(scalar));
}

/** Pieces that touch become one note. Of pieces that overlap the first one counts, as everywhere. */
function joined(pieces: readonly MemNote[]): readonly MemNote[] {
  if (pieces.length < 2) return pieces;
  return new Memory(pieces).segments.map(({ addr, bytes }) => ({ addr, bytes }));
}
