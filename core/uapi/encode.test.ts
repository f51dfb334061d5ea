import { fc } from '../property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../bytes.js';
import type { MemNote } from '../event.js';
import { suite } from '../testing.js';
import { fromHalves, type U64 } from '../u64.js';
import { COMMANDS } from './commands.js';
import { decode } from './decode.js';
import { encode } from './encode.js';
import { formatCall } from './format.js';
import { scalarBytes, shapeBytes } from './layout.js';
import { commandByName } from './lookup.js';
import { chooseCase, choiceNames, Scope } from './scope.js';
import type { Command, Field, Length, Scalar, Selector, Shape, Struct } from './types.js';
import { isRecord, type Plain, type PlainRecord, valuesOf } from './values.js';

const test = suite('uapi/encode');
const AT = 0x7ffd_0000_1000;
const WITH_STRUCT = COMMANDS.filter((command) => command.struct !== undefined);

/** Random arguments that make sense: small counts, discriminators that select something, pointers to fresh memory. */
class Maker {
  #state: number;
  #nextPlace = 0x10_0000;
  readonly #counts = new Set<string>();
  readonly #pages = new Set<string>();
  readonly #strides = new Set<string>();
  readonly #choices = new Map<string, number[]>();

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  random(below: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 0x1_0000_0000) * below);
  }

  command(command: Command): PlainRecord {
    const of = command.struct as Struct;
    this.#roles(of);
    const made = this.#struct(of, new Scope());
    const own = command.sizeRule === 'fixed' ? undefined : (of.fields[0] as Field).name;
    const caps = of.caps === undefined ? {} : this.#caps(of, made);
    const all: PlainRecord = { ...made, ...caps };
    return own === undefined ? all : { ...all, [own]: usedBytes({ shape: 'struct', struct: of }, all) };
  }

  #caps(of: Struct, made: Record<string, Plain>): PlainRecord {
    const known = [...(of.caps?.known ?? [])];
    const scope = new Scope();
    let at = Math.ceil(of.sizeBytes / 8) * 8;
    const caps = Array.from({ length: 1 + this.random(3) }, (_, i, last = false) => {
      const [id, struct] = known[this.random(known.length)] as [number, Struct];
      const body = this.#struct(struct, scope);
      const here = at;
      at += Math.ceil(usedBytes({ shape: 'struct', struct }, body) / 8) * 8;
      last = this.random(2) === 0 || i === 2;
      const head = { id, version: 1, next: last ? 0 : at };
      const cap: PlainRecord = { at: here, ...body, ...(struct.byName.has('header') ? { header: head } : head) };
      return { cap, last };
    });
    const end = caps.findIndex((c) => c.last);
    const kept = (end < 0 ? caps.slice(0, 1) : caps.slice(0, end + 1)).map((c) => c.cap);
    const flags = Number(made['flags']) | (of.caps?.flag ?? 0);
    const first = kept[0] as PlainRecord;
    const lastCap = kept.at(-1) as PlainRecord;
    if (end < 0) {
      const header = isRecord(lastCap['header']) ? { header: { ...lastCap['header'], next: 0 } } : { next: 0 };
      kept[kept.length - 1] = { ...lastCap, ...header };
    }
    return { flags: flags >>> 0, cap_offset: first['at'], caps: kept };
  }

  #roles(of: Struct): void {
    for (const field of of.fields) {
      this.#shapeRoles(field.shape);
      if (field.target === undefined) continue;
      this.#shapeRoles(field.target.shape);
      this.#lengthRole(field.target.room);
      if (field.target.when) this.#selectorRole(field.target.when, [1, 0]);
    }
    for (const cap of of.caps?.known.values() ?? []) this.#roles(cap);
  }

  #shapeRoles(shape: Shape): void {
    if (shape.shape === 'struct') this.#roles(shape.struct);
    if (shape.shape === 'bytes' || shape.shape === 'array') this.#lengthRole(shape.length);
    if (shape.shape === 'array') {
      this.#shapeRoles(shape.of);
      if (shape.stride !== '') this.#strides.add(shape.stride);
    }
    if (shape.shape !== 'choice') return;
    this.#selectorRole(
      shape.by,
      shape.cases.flatMap((c) => c.values),
    );
    for (const c of shape.cases) this.#shapeRoles(c.shape);
  }

  #selectorRole(by: Selector, values: readonly number[]): void {
    this.#choices.set(by.field, [...(this.#choices.get(by.field) ?? []), ...values, 0]);
    for (const alias of ['in_data_type', 'out_data_type']) {
      if (by.field === alias) this.#choices.set('data_type', [...values, 0]);
    }
  }

  #lengthRole(length: Length): void {
    if (length.unit === 'field') this.#counts.add(length.field);
    if (length.unit === 'bitmap') this.#pages.add(length.page);
  }

  #struct(of: Struct, outer: Scope): Record<string, Plain> {
    const scope = new Scope(outer);
    const made: Record<string, Plain> = {};
    for (const field of of.fields) {
      const value = this.#value(field.shape, field.sizeBytes, scope, field.name);
      made[field.name] = value;
      const chosen = isRecord(value) ? Object.values(value)[0] : undefined;
      if (isNumber(value)) scope.set(field.name, value);
      if (isNumber(chosen)) for (const name of choiceNames(field.shape)) scope.set(name, chosen);
    }
    for (const field of of.fields) {
      const { target } = field;
      if (target === undefined || this.random(5) === 0) continue;
      const room = target.room.unit === 'rest' ? 0 : Number(scope.count(target.room));
      const used = (target.when && scope.select(target.when) === 0) || (target.room.unit !== 'rest' && room === 0);
      const addr = this.#nextPlace;
      this.#nextPlace += 0x10_0000;
      made[field.name] = used ? addr : { addr, target: this.#value(target.shape, room, scope, '') };
    }
    return made;
  }

  #value(shape: Shape, room: number, scope: Scope, name: string): Plain {
    switch (shape.shape) {
      case 'scalar':
        return this.#scalar(shape.scalar, name);
      case 'struct':
        return this.#struct(shape.struct, scope);
      case 'bytes':
        return this.#randomBytes(shape.length.unit === 'rest' ? room : Number(scope.count(shape.length)));
      case 'array':
        return Array.from({ length: Number(scope.count(shape.length)) }, () => {
          const stride = shape.stride === '' ? shapeBytes(shape.of) : Number(scope.get(shape.stride));
          return this.#value(shape.of, stride, scope, '');
        });
      case 'choice': {
        const chosen = chooseCase(shape.cases, scope.select(shape.by) as number, room || 1000);
        if (chosen === undefined) return this.#randomBytes(room || this.random(20));
        return { [chosen.name]: this.#value(chosen.shape, room, scope, name) };
      }
    }
  }

  #scalar(scalar: Scalar, name: string): U64 {
    if (this.#strides.has(name)) return 32;
    if (this.#pages.has(name)) return 4096;
    if (name === 'data_len') return this.random(2) * 64;
    if (this.#counts.has(name)) return this.random(5);
    if (name === 'length') return this.random(40) * 4096;
    const choices = this.#choices.get(name);
    if (choices !== undefined) return choices[this.random(choices.length)] as number;
    const low = this.random(0x1_0000_0000);
    if (scalar === 's32') return low | 0;
    return scalar === 'u64' ? fromHalves(low, this.random(0x1_0000_0000)) : low % 2 ** (8 * scalarBytes(scalar));
  }

  #randomBytes(count: number): Bytes {
    return new Bytes(Uint8Array.from({ length: count }, () => this.random(256)));
  }
}

function isNumber(value: Plain | undefined): value is U64 {
  return typeof value === 'number' || typeof value === 'bigint';
}

/** Bytes that a value takes, flexible ends and capabilities included. */
function usedBytes(shape: Shape, value: Plain | undefined): number {
  if (value instanceof Bytes) return value.length;
  if (shape.shape === 'array' && Array.isArray(value)) return value.length * shapeBytes(shape.of);
  if (shape.shape === 'choice' && isRecord(value)) {
    const chosen = shape.cases.find((c) => value[c.name] !== undefined);
    return chosen === undefined ? 0 : usedBytes(chosen.shape, value[chosen.name]);
  }
  if (shape.shape !== 'struct' || !isRecord(value)) return shapeBytes(shape);
  const { struct } = shape;
  let end = struct.sizeBytes;
  for (const field of struct.fields) {
    const flexible = field.sizeBytes === 0 || field.shape.shape === 'struct';
    if (flexible) end = Math.max(end, field.offset + usedBytes(field.shape, value[field.name]));
  }
  const caps = value['caps'];
  for (const cap of Array.isArray(caps) ? (caps as PlainRecord[]) : []) {
    const id = (isRecord(cap['header']) ? cap['header'] : cap)['id'];
    const known = struct.caps?.known.get(id as number) as Struct;
    end = Math.max(end, (cap['at'] as number) + usedBytes({ shape: 'struct', struct: known }, cap));
  }
  return end;
}

/** Empty lists and bytes at the end of a struct cannot be told from nothing. */
function withoutEmpty(value: Plain | undefined): Plain | undefined {
  if (value instanceof Bytes) return value.length === 0 ? undefined : value;
  if (Array.isArray(value)) return value.length === 0 ? undefined : value.map(withoutEmpty);
  if (!isRecord(value)) return value;
  const kept = Object.entries(value).flatMap(([name, inner]) => {
    const rest = withoutEmpty(inner);
    return rest === undefined ? [] : [[name, rest] as const];
  });
  const [only] = kept;
  if (kept.length === 1 && only?.[0] === 'addr') return only[1];
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

for (const command of WITH_STRUCT) {
  test(`${command.kind} ${command.name}: what was encoded is decoded again`, () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const values = new Maker(seed).command(command);
        const notes = encode(command, AT, values);
        assert.is(notes[0]?.addr, AT);
        assert.equal(withoutEmpty(valuesOf(decode(command, AT, notes))), withoutEmpty(values));
      }),
      { numRuns: 60 },
    );
  });
}

test('arbitrary bytes decode and print without harm, and the known part survives encoding', () => {
  const word = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 0xffff_ffff }));
  const words = fc.array(word, { maxLength: 40 });
  fc.assert(
    fc.property(
      fc.constantFrom(...WITH_STRUCT),
      words,
      words,
      fc.integer({ min: -64, max: 64 }),
      (command, a, b, gap) => {
        const bytes = (list: readonly number[]) => new Bytes(new Uint8Array(Uint32Array.from(list).buffer));
        const first = bytes(a);
        const notes: MemNote[] = [
          { addr: AT, bytes: first },
          { addr: AT + first.length + gap, bytes: bytes(b) },
          { addr: 0, bytes: bytes(b) },
        ];
        const line = formatCall(command.kind, command.request, AT, notes);
        assert.ok(!/[^\x20-\x7e]/.test(line), line);
        const values = valuesOf(decode(command, AT, notes));
        if (values !== undefined)
          assert.ok(encode(command, AT, values).length > 0 || withoutEmpty(values) === undefined);
      },
    ),
    { numRuns: 3000 },
  );
});

test('left out fields are zero and the size is filled in on request', () => {
  const map = commandByName('IOMMU_IOAS_MAP') as Command;
  const [note, ...more] = encode(map, AT, { ioas_id: 3, length: 0x1000 }, 'zero');
  assert.is(more.length, 0);
  assert.is(note?.bytes.toHex(), `2800000000000000030000000000000000000000000000000010000000000000${'00'.repeat(8)}`);
});

test('left out fields are not stated otherwise', () => {
  const unmap = commandByName('IOMMU_IOAS_UNMAP') as Command;
  const notes = encode(unmap, AT, { size: 24, length: 0x1000 });
  assert.equal(
    notes.map((n) => [n.addr, n.bytes.length]),
    [
      [AT, 4],
      [AT + 16, 8],
    ],
  );
});

test('values that do not fit throw', () => {
  const map = commandByName('IOMMU_IOAS_MAP') as Command;
  assert.throws(() => encode(map, AT, { ioas_id: [1] }), /number is needed/);
  assert.throws(() => encode(map, AT, [1]), /record is needed/);
});
