import type { Call } from '../call.js';
import { listText, rangeText, type Told } from '../explain.js';
import { givenField } from '../explain-given.js';
import { objectOf, typedObject } from './context.js';
import type { Area, Ioas, IommufdContext, IommuObject, ObjectType } from './state.js';

/** Objects of a context in words, and what uses one. */

const NAMES: Readonly<Record<ObjectType, string>> = {
  ioas: 'IOAS',
  'hwpt-paging': 'HWPT',
  'hwpt-nested': 'nested HWPT',
  device: 'device',
  access: 'access',
  selftest: 'test device',
  fault: 'fault queue',
  veventq: 'event queue',
  viommu: 'vIOMMU',
  vdevice: 'vDEVICE',
  'hw-queue': 'HW queue',
};

/** `HWPT 4 of event 12`. */
export function namedText(object: IommuObject): string {
  return `${NAMES[object.type]} ${object.id} of event ${object.since}`;
}

/** `ioas_id 7 is no object; the context has IOAS 1, 2`: and where it is none of the types that were asked for, which there are. */
export function objectText(
  call: Call,
  field: string,
  id: number,
  types: readonly ObjectType[] = ['ioas'],
  contextId = call.file.object,
): Told {
  const object = objectOf(call.tx, contextId, id);
  const is = object === undefined ? 'is no object' : `is ${namedText(object)}`;
  if (object !== undefined && types.includes(object.type)) return { text: `${field} ${id} ${is}` };
  const others = [...(call.tx.world.iommufds.get(contextId)?.objects.values() ?? [])];
  const there = types.map((type) => {
    const ids = others.filter((other) => other.type === type).map((other) => String(other.id));
    return ids.length === 0 ? `no ${NAMES[type]}` : `${NAMES[type]} ${listText(ids, 8)}`;
  });
  return {
    text: `${field} ${id} ${is}; the context has ${there.join(' and ')}`,
    about: object === undefined ? { kind: 'object', context: contextId, id } : undefined,
  };
}

/** Who uses the object that DESTROY names. */
export function destroyBusyText(call: Call): string {
  const context = call.tx.world.iommufds.get(call.file.object);
  const object = objectOf(call.tx, call.file.object, call.struct.u32(4));
  if (context === undefined || object === undefined) return '';
  const users = [...usersOf(call, context, object)];
  return `${namedText(object)}${users.length === 0 ? '' : ` is used by ${listText(users)}`}`;
}

function* usersOf(call: Call, context: IommufdContext, object: IommuObject): Generator<string> {
  if (object.type === 'device' || object.type === 'access') yield 'the driver that it is bound to';
  if (object.type === 'fault' || object.type === 'veventq') yield 'its open file';
  for (const attachment of context.attachments.values())
    if (attachment.hwpt === object.id)
      for (const id of attachment.devices) {
        const device = objectOf(call.tx, context.id, id);
        if (device !== undefined) yield namedText(device);
      }
  for (const other of context.objects.values()) if (refersTo(call, context, other, object)) yield namedText(other);
}

/** Whether one object holds another. */
function refersTo(call: Call, context: IommufdContext, other: IommuObject, object: IommuObject): boolean {
  switch (other.type) {
    case 'hwpt-paging':
      return other.ioas === object.id || other.fault === object.id;
    case 'hwpt-nested':
      return other.parent === object.id || other.viommu === object.id || other.fault === object.id;
    case 'access':
      return other.ioas === object.id;
    case 'viommu':
      return other.hwpt === object.id;
    case 'vdevice':
      return other.viommu === object.id || other.device === object.id;
    case 'veventq':
      return other.viommu === object.id;
    case 'hw-queue':
      return other.viommu === object.id || other.previous === object.id;
    case 'selftest':
      return other.device === object.id && typedObject(call.tx, context.id, object.id, 'device') !== undefined;
    default:
      return false;
  }
}

/** The context of the call; a device that is bound has it elsewhere than its own file. */
export function contextIdOf(call: Call): number {
  const { kind, object, objectKey } = call.file;
  return kind === 'vfio-device' ? (call.tx.world.devices.get(objectKey)?.iommufd ?? 0) : object;
}

/** The IOAS behind an object id. */
export function ioasOf(call: Call, id: number): Ioas | undefined {
  const object = typedObject(call.tx, contextIdOf(call), id, 'ioas');
  return object === undefined ? undefined : call.tx.world.ioases.get(object.ioas);
}

export function areaText(area: Area): string {
  return `area ${rangeText(area.start, area.last)} of event ${area.since}`;
}

/** The IOAS that a command makes a domain, an access or a reserved range in. */
export function attachedIoas(call: Call): Ioas | undefined {
  for (const name of ['pt_id', 'ioas_id', 'object_id', 'id']) {
    const id = givenField(call, name);
    const object = id === undefined ? undefined : objectOf(call.tx, contextIdOf(call), Number(id));
    if (object?.type === 'ioas') return ioasOf(call, object.id);
    if (object?.type === 'hwpt-paging') return ioasOf(call, object.ioas);
  }
  return undefined;
}
