import type { IoctlEvent } from '../core/event.js';
import type { Value } from '../core/uapi/decoded.js';
import { decode } from '../core/uapi/decode.js';
import { formatCall, formatNumber } from '../core/uapi/format.js';
import { findCommand } from '../core/uapi/lookup.js';
import type { Command, Field } from '../core/uapi/types.js';
import { hex, type U64 } from '../core/u64.js';
import type { Call } from './call.js';

/**
 * What a rejected call gave, where the rule's own words need no more than that: the fields that a rule of such a name is
 * about, or all fields that the kernel reads.
 */

/** Fields by the last word of a rule's name. */
const ABOUT: Readonly<Record<string, readonly string[]>> = {
  argsz: ['argsz', 'flags'],
  size: ['length', 'num_iovas', 'data_len'],
  room: ['argsz', 'data_len'],
  flags: ['flags', 'dev_flags', 'type', 'iommufd', 'veventq_depth'],
  op: ['op', 'type'],
  index: ['index'],
  overflow: ['iova', 'start', 'length', 'nesting_parent_iova'],
  length: ['length'],
  data: ['data_type', 'data_len', 'data_uptr', 'type'],
  'data-type': ['data_type', 'flags'],
  'data-size': ['data_len', 'argsz', 'flags'],
};

/** Names that say nothing of what was asked. */
const FRAME: ReadonlySet<string> = new Set(['size', 'argsz', 'last', 'pad', 'reserved']);
const SHOWN = 6;

/** `flags 0x4, dev_id 7`; of a command without fields, whose file it is. */
export function givenText(call: Call): string {
  const { event } = call;
  if (event.kind === 'io')
    return `${event.offset === null ? '' : `offset ${hex(event.offset)}, `}${event.lengthBytes} bytes`;
  const command = findCommand(call.file.kind, event.request);
  if (command === undefined) return `request ${hex(event.request)}`;
  if (command.arg === 'none') return call.file.path;
  if (command.arg === 'string')
    return formatCall(call.file.kind, event.request, call.arg, event.memIn).slice(command.name.length + 1);
  if (command.arg === 'int') return `argument ${formatNumber(call.arg, command.argAs)}`;
  const given = inputs(call, event, command);
  const names = ABOUT[call.rule.slice(call.rule.lastIndexOf('.') + 1)] ?? [];
  const asked = given.filter(([field]) => names.includes(field.name));
  const shown = asked.length > 0 ? asked : given.filter(([{ name }]) => !FRAME.has(name) && !name.startsWith('__'));
  if (shown.length === 0) return call.file.path;
  return shown
    .slice(0, SHOWN)
    .map(([{ name, shape }, value]) => `${name} ${formatNumber(value, shape.shape === 'scalar' ? shape.as : 'hex')}`)
    .join(', ');
}

/** A field of the caller's struct, at any depth, as it was before the call; undefined where it was not recorded. */
export function givenField(call: Call, name: string): U64 | undefined {
  const { event } = call;
  const command = event.kind === 'ioctl' ? findCommand(call.file.kind, event.request) : undefined;
  if (event.kind !== 'ioctl' || command === undefined) return undefined;
  return inputs(call, event, command).find(([field]) => field.name === name)?.[1];
}

function inputs(call: Call, event: IoctlEvent, command: Command): (readonly [Field, U64])[] {
  return [...scalars(decode(command, call.arg, event.memIn, 0).value)];
}

function* scalars(value: Value | undefined): Generator<readonly [Field, U64]> {
  if (typeof value !== 'object') return;
  if (value.kind === 'choice') yield* scalars(value.value);
  if (value.kind !== 'struct') return;
  for (const { field, value: part } of value.fields) {
    if (field.direction === 'out') continue;
    if (typeof part === 'number' || typeof part === 'bigint') yield [field, part];
    else yield* scalars(part);
  }
}
