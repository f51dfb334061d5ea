import type { MemNote } from '../event.js';
import { low32, type U64 } from '../u64.js';
import type {
  DecodedArray,
  DecodedBytes,
  DecodedCall,
  DecodedCap,
  DecodedField,
  DecodedStruct,
  Value,
} from './decoded.js';
import { bytesShape, REST, scalarBytes, shapeBytes } from './layout.js';
import { behind, Memory } from './memory.js';
import { chooseCase, choiceNames, Scope } from './scope.js';
import type { Command, Field, Scalar, Shape, Struct, Target } from './types.js';
import { infoCapHeader } from './vfio-container.js';

/**
 * The one decoder for all tables. It follows pointers through what was recorded of the caller's memory, walks
 * capability chains and picks union members by their discriminator. Whatever a recording holds, the work is bounded by
 * the bytes that it states: counts are cut to the known bytes, and a capability ends where the next one begins.
 */

/** Room that nothing bounds: only what is known does. */
const BOUNDLESS = Number.POSITIVE_INFINITY;
/** No text argument of these interfaces is longer (strndup_user with a page). */
const TEXT_BYTES = 4096;
const CAP_HEADER_BYTES = 8;

/**
 * Decodes an ioctl's argument.
 * @param arg the third argument
 * @param notes memory of the caller before the call (what the kernel reads) or after it (what it wrote)
 * @param maxItems stops arrays after so many elements; they still say how many there are
 */
export function decode(
  command: Command,
  arg: U64,
  notes: readonly MemNote[],
  maxItems: number = Number.POSITIVE_INFINITY,
): DecodedCall {
  const decoder = new Decoder(new Memory(notes), maxItems);
  return { command, arg, value: decoder.argument(command, arg) };
}

class Decoder {
  readonly #memory: Memory;
  readonly #maxItems: number;

  constructor(memory: Memory, maxItems: number) {
    this.#memory = memory;
    this.#maxItems = maxItems;
  }

  argument(command: Command, arg: U64): Value | undefined {
    if (command.arg === 'string') return this.#text(arg);
    if (command.struct === undefined || this.#memory.knownFrom(arg) === 0) return undefined;
    return this.#struct(command.struct, arg, this.#callersSize(command, arg), new Scope());
  }

  #text(arg: U64): DecodedBytes | undefined {
    const known = Math.min(this.#memory.knownFrom(arg), TEXT_BYTES);
    const bytes = this.#memory.read(arg, known);
    if (bytes === undefined || known === 0) return undefined;
    const text = bytes.cString();
    return { kind: 'bytes', bytes: bytes.slice(0, text.length), count: text.length };
  }

  /** How many bytes of the struct mean something. A VFIO driver reads the mandatory part before it looks at argsz. */
  #callersSize(command: Command, arg: U64): number {
    if (command.sizeRule === 'fixed') return command.sizeBytes;
    const size = this.#memory.read(arg, 4)?.u32(0);
    if (size === undefined) return BOUNDLESS;
    return Math.max(size, command.sizeRule === 'argsz' ? command.minSizeBytes : 4);
  }

  #struct(of: Struct, addr: U64, room: number, outer: Scope): DecodedStruct {
    const scope = new Scope(outer);
    const inline = of.fields.map((field) => this.#inline(field, addr, room, scope));
    // Only now are all fields known that lengths and discriminators of pointers may name.
    const fields = inline.map((decoded) => {
      const target = decoded.field.target;
      return target === undefined ? decoded : { ...decoded, target: this.#target(decoded.value, target, scope) };
    });
    const { caps, problem } = this.#caps(of, addr, room, scope);
    return { kind: 'struct', struct: of, fields, caps, problem };
  }

  #inline(field: Field, addr: U64, room: number, scope: Scope): DecodedField {
    const left = room - field.offset;
    if (left < field.sizeBytes || left <= 0) return { field, knowledge: 'absent', value: undefined, target: null };
    const own = field.sizeBytes === 0 ? left : Math.min(left, field.sizeBytes);
    const value = this.#value(field.shape, behind(addr, field.offset), own, scope);
    if (typeof value === 'number' || typeof value === 'bigint') scope.set(field.name, value);
    if (isChoice(value) && (typeof value.value === 'number' || typeof value.value === 'bigint')) {
      for (const name of choiceNames(field.shape)) scope.set(name, value.value);
    }
    return { field, knowledge: value === undefined ? 'unknown' : 'known', value, target: null };
  }

  #value(shape: Shape, addr: U64, room: number, scope: Scope): Value | undefined {
    switch (shape.shape) {
      case 'scalar':
        return this.#scalar(shape.scalar, addr);
      case 'struct':
        // Too short for its first field: no struct, only bytes.
        if (room < (shape.struct.fields[0]?.sizeBytes ?? 0)) return this.#bytes(room, addr, room);
        return this.#memory.knownFrom(addr) === 0 && !this.#anyKnown(shape.struct, addr)
          ? undefined
          : this.#struct(shape.struct, addr, room, scope);
      case 'bytes':
        return this.#bytes(shape.length.unit === 'rest' ? room : scope.count(shape.length), addr, room);
      case 'array':
        return this.#array(shape, addr, room, scope);
      case 'choice': {
        const selected = scope.select(shape.by);
        if (selected === undefined) return undefined;
        const chosen = chooseCase(shape.cases, selected, room);
        if (chosen === undefined) return this.#value(bytesShape(REST), addr, room, scope);
        return { kind: 'choice', name: chosen.name, value: this.#value(chosen.shape, addr, room, scope) };
      }
    }
  }

  /** Whether a later field of a struct is known though its first byte is not. */
  #anyKnown(of: Struct, addr: U64): boolean {
    return of.fields.some((field) => this.#memory.knownFrom(behind(addr, field.offset)) > 0);
  }

  #scalar(scalar: Scalar, addr: U64): U64 | undefined {
    const bytes = this.#memory.read(addr, scalarBytes(scalar));
    if (bytes === undefined) return undefined;
    switch (scalar) {
      case 'u8':
        return bytes.u8(0);
      case 'u16':
        return bytes.u16(0);
      case 'u32':
        return bytes.u32(0);
      case 's32':
        return bytes.s32(0);
      case 'u64':
        return bytes.u64(0);
    }
  }

  #bytes(count: U64 | undefined, addr: U64, room: number): DecodedBytes | undefined {
    if (count === undefined || count === BOUNDLESS) return undefined;
    const shown = Math.min(this.#memory.knownFrom(addr), room, Number(count));
    const bytes = this.#memory.read(addr, shown);
    if (bytes === undefined || (shown === 0 && count > 0)) return undefined;
    return { kind: 'bytes', bytes, count };
  }

  #array(shape: Extract<Shape, { shape: 'array' }>, addr: U64, room: number, scope: Scope): DecodedArray | undefined {
    const stride = shape.stride === '' ? shapeBytes(shape.of) : scope.get(shape.stride);
    const count = scope.count(shape.length);
    if (count === undefined || typeof stride !== 'number') return undefined;
    const items: (Value | undefined)[] = [];
    const known = stride === 0 ? 0 : Math.floor(Math.min(this.#memory.knownFrom(addr), room) / stride);
    const shown = Math.min(known, this.#maxItems, count > known ? known : Number(count));
    for (let i = 0; i < shown; i++) items.push(this.#value(shape.of, behind(addr, i * stride), stride, scope));
    return items.length === 0 && count > 0 && known === 0 ? undefined : { kind: 'array', items, count };
  }

  #target(pointer: Value | undefined, target: Target, scope: Scope): Value | undefined | null {
    if (typeof pointer !== 'number' && typeof pointer !== 'bigint') return null;
    if (pointer === 0) return null;
    if (target.when !== undefined && scope.select(target.when) === 0) return null;
    const given = target.room.unit === 'rest' ? BOUNDLESS : scope.count(target.room);
    if (given === undefined) return undefined;
    if (given === 0) return null;
    return this.#value(target.shape, pointer, Number(given), scope);
  }

  #caps(of: Struct, addr: U64, room: number, scope: Scope): { caps: readonly DecodedCap[]; problem: string } {
    const caps: DecodedCap[] = [];
    const chain = of.caps;
    const flags = scope.get('flags');
    let at = chain === undefined ? undefined : scope.get(chain.offsetField);
    if (chain === undefined || flags === undefined || (low32(flags) & chain.flag) === 0) at = 0;
    while (chain !== undefined && typeof at === 'number' && at !== 0) {
      if (at + CAP_HEADER_BYTES > room) return { caps, problem: `capability at ${at} lies beyond the ${room} bytes` };
      const header = this.#memory.read(behind(addr, at), CAP_HEADER_BYTES);
      if (header === undefined) return { caps, problem: `capability at ${at} was not recorded` };
      const next = header.u32(4);
      const end = next > at ? Math.min(next, room) : room;
      caps.push(this.#cap(chain.known.get(header.u16(0)), behind(addr, at), at, end - at, scope));
      if (next !== 0 && next <= at) return { caps, problem: `capability at ${at} leads back to ${next}` };
      at = next;
    }
    return { caps, problem: '' };
  }

  #cap(known: Struct | undefined, addr: U64, at: number, room: number, scope: Scope): DecodedCap {
    const value = this.#struct(known ?? infoCapHeader, addr, room, scope);
    const rest = room - CAP_HEADER_BYTES;
    const raw = known === undefined ? this.#bytes(rest, behind(addr, CAP_HEADER_BYTES), rest) : undefined;
    return { at, value, raw };
  }
}

function isChoice(value: Value | undefined): value is Extract<Value, { kind: 'choice' }> {
  return typeof value === 'object' && value.kind === 'choice';
}
