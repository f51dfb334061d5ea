import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../testing.js';
import { fromBig, type U64 } from '../u64.js';
import { COMMANDS } from './commands.js';
import * as constants from './constants.js';
import * as hmm from './hmm.js';
import * as iommufd from './iommufd.js';
import * as iommufdData from './iommufd-data.js';
import * as iommufdTest from './iommufd-test.js';
import { shapeBytes } from './layout.js';
import type { EnumSet, Field, FlagSet, NamedValue, Rendering, Shape, Struct } from './types.js';
import * as container from './vfio-container.js';
import * as device from './vfio-device.js';
import * as feature from './vfio-feature.js';
import * as infoCaps from './vfio-info-caps.js';
import * as spapr from './vfio-spapr.js';

/**
 * The tables against what gcc says of the headers (fixtures/make-layout.mjs), in both directions: whatever a header
 * declares must be in the tables with the same number, place and size, and nothing else may be there.
 */
const test = suite('uapi/table');

interface Layout {
  readonly structs: Readonly<
    Record<string, { sizeBytes: number; fields: Record<string, [offset: number, size: number, sign: string]> }>
  >;
  readonly constants: Readonly<Record<string, string>>;
}

function layout(name: string): Layout {
  const url = new URL(`../../../core/uapi/fixtures/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, 'utf8')) as Layout;
}

const LINUX = layout('layout-7.2');
const SHARED = layout('layout-shared');
const MODULES = [constants, hmm, iommufd, iommufdData, iommufdTest, container, device, feature, infoCaps, spapr];

/** Everything that the tables declare, by name. */
class Tables {
  readonly structs = new Map<string, Struct[]>();
  readonly constants = new Map<string, U64>();

  struct(of: Struct): void {
    const same = this.structs.get(of.name) ?? [];
    if (same.includes(of)) return;
    this.structs.set(of.name, [...same, of]);
    for (const field of of.fields) {
      this.shape(field.shape);
      if (field.target) this.shape(field.target.shape);
    }
    for (const cap of of.caps?.known.values() ?? []) this.struct(cap);
  }

  shape(shape: Shape): void {
    if (shape.shape === 'struct') this.struct(shape.struct);
    if (shape.shape === 'array') this.shape(shape.of);
    if (shape.shape === 'choice') for (const c of shape.cases) this.shape(c.shape);
    if (shape.shape === 'scalar') this.rendering(shape.as);
  }

  rendering(as: Rendering): void {
    if (typeof as === 'string') return;
    for (const value of as.values) this.constant(value);
    if (as.set === 'flags' && as.low) this.rendering(as.low);
  }

  constant({ name, value }: NamedValue): void {
    const known = this.constants.get(name);
    assert.ok(known === undefined || known === value, `${name} has two values`);
    this.constants.set(name, value);
  }

  exported(value: unknown): void {
    if (typeof value !== 'object' || value === null) return;
    if ('byName' in value) this.struct(value as Struct);
    else if (isSet(value)) this.rendering(value);
    else for (const part of Object.values(value)) if (isSet(part)) this.rendering(part);
  }
}

function isSet(value: unknown): value is EnumSet | FlagSet {
  return typeof value === 'object' && value !== null && 'values' in value && Array.isArray(value.values);
}

const tables = new Tables();
for (const module of MODULES) for (const value of Object.values(module)) tables.exported(value);
for (const command of COMMANDS) {
  tables.constant({ name: command.name, label: '', value: command.request });
  tables.rendering(command.argAs);
  if (command.struct) tables.struct(command.struct);
}

/** `name → [offset, size, sign]`, unions and structs in them flattened as C sees them. */
function flatten(
  fields: readonly Field[],
  base: number,
  prefix: string,
  out: Record<string, [number, number, string]>,
) {
  for (const field of fields) {
    const at = base + field.offset;
    const name = prefix + field.name;
    if (field.shape.shape === 'choice' && field.sizeBytes > 0) {
      for (const c of field.shape.cases) {
        if (c.shape.shape === 'struct' && c.shape.struct.name.includes('.')) {
          flatten(c.shape.struct.fields, at, `${prefix}${c.name}.`, out);
        } else out[prefix + c.name] = [at, shapeBytes(c.shape), signOf(c.shape)];
      }
    } else out[name] = [at, field.sizeBytes, signOf(field.shape)];
  }
  return out;
}

function signOf(shape: Shape): string {
  const element = shape.shape === 'array' ? shape.of : shape;
  return element.shape === 'scalar' && element.scalar === 's32' ? 'signed' : 'unsigned';
}

for (const [name, expected] of Object.entries(LINUX.structs)) {
  test(`struct ${name} is laid out as gcc does`, () => {
    const found = tables.structs.get(name);
    assert.ok(found, 'missing in the tables');
    for (const struct of found ?? []) {
      assert.is(struct.sizeBytes, expected.sizeBytes);
      assert.equal(flatten(struct.fields, 0, '', {}), expected.fields);
    }
  });
}

test('no struct is invented', () => {
  const names = [...tables.structs.keys()].filter((name) => !(name in LINUX.structs));
  // Plain numbers behind a pointer, and the members of the mock devices' union, have no name of their own in C.
  assert.equal(
    names.filter((name) => !name.startsWith('__') && !name.startsWith('iommu_test_cmd.')),
    [],
  );
});

test('structs of the earlier headers are prefixes of the present ones', () => {
  for (const [name, earlier] of Object.entries(SHARED.structs)) {
    const found = tables.structs.get(name)?.[0];
    assert.ok(found, `${name} is missing`);
    if (!found) continue;
    const fields = flatten(found.fields, 0, '', {});
    assert.ok(found.sizeBytes >= earlier.sizeBytes, name);
    for (const [field, place] of Object.entries(earlier.fields)) {
      // The padding in iommu_hw_info became fields, and the plane's ids lost their common name.
      if (name === 'iommu_hw_info' && field === '__reserved') continue;
      assert.equal(fields[field], place, `${name}.${field}`);
    }
  }
});

/** Names of the headers that say nothing about the interface's values, or only repeat others. */
const NOT_IN_TABLES =
  /^(_UAPI|VFIO_TYPE$|VFIO_BASE$|IOMMUFD_TYPE$|IOMMUFD_CMD_|.*_MASK$|.*_NUM_(IRQS|REGIONS)$|VFIO_DEVICE_STATE_NR$|__|.*_H$)/;

test('every constant of the headers is in the tables, with its value', () => {
  for (const source of [LINUX, SHARED]) {
    const missing: string[] = [];
    for (const [name, text] of Object.entries(source.constants)) {
      if (NOT_IN_TABLES.test(name)) continue;
      const value = tables.constants.get(name);
      if (value === undefined) missing.push(`${name} = ${text}`);
      // Bits up to 31 and -1 are ints in the headers, unsigned in the tables.
      else if (BigInt(text) >> 31n === 0x1_ffff_ffffn) assert.is(BigInt(value), BigInt.asUintN(32, BigInt(text)), name);
      else assert.is(BigInt(value), BigInt(text), name);
    }
    assert.equal(missing, []);
  }
});

test('no constant is invented', () => {
  const known = { ...LINUX.constants, ...SHARED.constants };
  assert.equal(
    [...tables.constants.keys()].filter((name) => !(name in known)),
    [],
  );
});

test('every request of the headers is a command', () => {
  const names = new Set(COMMANDS.map((c) => c.name));
  for (const [name, text] of Object.entries(LINUX.constants)) {
    const value = fromBig(BigInt(text));
    const isRequest = typeof value === 'number' && ((value >= 0x3b64 && value <= 0x3bff) || value >>> 8 === 0xc02848);
    if (isRequest) assert.ok(names.has(name), name);
  }
});
