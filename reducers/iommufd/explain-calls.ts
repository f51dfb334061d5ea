import { firstOverlap, type Interval, overlaps } from '../../core/interval.js';
import { add, hex, lastOf, modPow2 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { type Explanations, listText, rangeText, type Told } from '../explain.js';
import { givenField, givenText } from '../explain-given.js';
import { areaText, attachedIoas, contextIdOf, ioasOf, namedText, objectText } from './explain-objects.js';
import { mockTraits } from '../devices/mock-domain.js';
import { objectOf, typedObject } from './context.js';
import { PAGE, usableRanges } from './iopt.js';
import type { Ioas, ObjectType } from './state.js';

/**
 * Why the commands other than MAP, COPY and UNMAP fail on /dev/iommu: which object an id is and which there are, what uses,
 * holds or reserves what stands in the way. Rules that need no more than the fields of the call are left to `givenText`.
 */

const HWPTS: readonly ObjectType[] = ['hwpt-paging', 'hwpt-nested'];

/** The field that a rule looks up, and what it may be. */
const LOOKED_UP: Readonly<Record<string, readonly [field: string, ...types: ObjectType[]]>> = {
  'access-replace.ioas': ['ioas_id', 'ioas'],
  'allow-iovas.ioas': ['ioas_id', 'ioas'],
  'attach.object': ['pt_id', 'ioas', ...HWPTS],
  'attach.type': ['pt_id', 'ioas', ...HWPTS],
  'check-cache.device': ['id', 'device'],
  'check-iotlb.hwpt': ['id', 'hwpt-nested'],
  'check-map.hwpt': ['id', 'hwpt-paging'],
  'create-access.ioas': ['id', 'ioas'],
  'dirty-bitmap.hwpt': ['hwpt_id', 'hwpt-paging'],
  'dirty-bitmap.unsupported': ['hwpt_id', 'hwpt-paging'],
  'dirty-tracking.hwpt': ['hwpt_id', 'hwpt-paging'],
  'dirty-tracking.unsupported': ['hwpt_id', 'hwpt-paging'],
  'hw-info.device': ['dev_id', 'device'],
  'hw-queue.viommu': ['viommu_id', 'viommu'],
  'hwpt-alloc.device': ['dev_id', 'device'],
  'hwpt-alloc.fault': ['fault_id', 'fault'],
  'hwpt-alloc.no-nest-parent': ['pt_id', 'hwpt-paging'],
  'hwpt-alloc.parent': ['pt_id', 'ioas', 'hwpt-paging', 'viommu'],
  'hwpt-alloc.parent-type': ['pt_id', 'ioas', 'hwpt-paging', 'viommu'],
  'invalidate.object': ['hwpt_id', 'hwpt-nested', 'viommu'],
  'invalidate.type': ['hwpt_id', 'hwpt-nested', 'viommu'],
  'iova-ranges.ioas': ['ioas_id', 'ioas'],
  'mock-attach.vdevice': ['pt_id', 'vdevice'],
  'mock-replace.device': ['id', 'selftest'],
  'option.ioas': ['object_id', 'ioas'],
  'pasid-check.hwpt': ['hwpt_id', ...HWPTS],
  'pasid-check.type': ['hwpt_id', ...HWPTS],
  'test-dirty.hwpt': ['id', 'hwpt-paging'],
  'test-reserve.ioas': ['id', 'ioas'],
  'trigger-fault.device': ['dev_id', 'device'],
  'trigger-vevent.device': ['dev_id', 'device'],
  'vdevice-alloc.device': ['dev_id', 'device'],
  'vdevice-alloc.viommu': ['viommu_id', 'viommu'],
  'veventq-alloc.viommu': ['viommu_id', 'viommu'],
  'vfio-ioas.ioas': ['ioas_id', 'ioas'],
  'viommu-alloc.device': ['dev_id', 'device'],
  'viommu-alloc.hwpt': ['hwpt_id', 'hwpt-paging'],
  'viommu-alloc.no-nest-parent': ['hwpt_id', 'hwpt-paging'],
};

export const CALL_EXPLANATIONS: Explanations = {
  ...Object.fromEntries(
    Object.entries(LOOKED_UP).map(([rule, [field, ...types]]) => [rule, (call) => lookedUp(call, field, types)]),
  ),
  'allow-iovas.in-use': reservedThere,
  'allow-iovas.order': allowedText,
  'allow-iovas.overlap': allowedText,
  'alignment.in-use': unalignedArea,
  'attach.twice': attachedText,
  'attach.other-hwpt': attachedText,
  'attach.pasid-compat': attachedText,
  'change-process.user-memory': mappedByAddress,
  'hw-queue.order': queuesText,
  'hw-queue.taken': queuesText,
  'iova-ranges.size': rangeCount,
  'option.huge-in-use': hugeInUse,
  'option.rlimit-busy': objectsText,
  'replace.not-attached': attachedText,
  'reserve.in-use': inUse,
  'vfio-ioas.none': objectsText,
};

/** A command of the self-tests that attaches a new device names its page table in `id`. */
function lookedUp(call: Call, name: string, types: readonly ObjectType[]): Told {
  const field = name === 'pt_id' && givenField(call, name) === undefined ? 'id' : name;
  const id = givenField(call, field);
  return id === undefined ? { text: '' } : objectText(call, field, Number(id), types, contextIdOf(call));
}

function objectsText(call: Call): string {
  const objects = [...(call.tx.world.iommufds.get(call.file.object)?.objects.values() ?? [])].map(namedText);
  return objects.length === 0 ? 'the context has no objects' : `the context has ${listText(objects)}`;
}

/** What the page tables of a device are, and which one was asked for. */
function attachedText(call: Call): string {
  const id = contextIdOf(call);
  const context = call.tx.world.iommufds.get(id);
  const asked = objectOf(call.tx, id, Number(givenField(call, 'pt_id') ?? 0));
  const standing = typedObject(call.tx, id, Number(givenField(call, 'id') ?? 0), 'selftest');
  const device = standing?.device ?? call.tx.world.devices.get(call.file.objectKey)?.devid ?? 0;
  const group = typedObject(call.tx, id, device, 'device')?.group;
  const held: string[] = [];
  for (const [key, { hwpt }] of context?.attachments ?? []) {
    const table = objectOf(call.tx, id, hwpt);
    if (key.startsWith(`${group}/`) && table !== undefined)
      held.push(`${namedText(table)} for PASID ${key.slice(key.lastIndexOf('/') + 1)}`);
  }
  const has = held.length === 0 ? 'nothing' : listText(held, 4);
  return `${givenText(call)}${asked === undefined ? '' : `, which is ${namedText(asked)}`}; its group is attached to ${has}`;
}

/** What of the IOAS is where a range is to become reserved: the one of the call, or all outside of the aperture of a mock domain. */
function inUse(call: Call): string {
  const ioas = attachedIoas(call);
  if (ioas === undefined) return '';
  const start = givenField(call, 'start');
  const last = start === undefined ? undefined : lastOf(start, givenField(call, 'length') ?? 0);
  if (start !== undefined && last !== undefined)
    return thereText(`${rangeText(start, last)}: `, ioas, (range) => overlaps(range, start, last));
  const { aperture } = mockTraits(false, false);
  if (isReal(call) || aperture === null)
    return thereText('the device or its IOMMU reserves a range: ', ioas, () => true);
  const isOutside = (range: Interval): boolean => range.start < aperture.start || range.last > aperture.last;
  return thereText(`a mock domain maps ${rangeText(aperture.start, aperture.last)} only: `, ioas, isOutside);
}

function isReal(call: Call): boolean {
  const device = typedObject(call.tx, contextIdOf(call), Number(givenField(call, 'dev_id') ?? 0), 'device');
  return call.file.kind === 'vfio-device' || device?.mock === null;
}

function thereText(where: string, ioas: Ioas, isMeant: (range: Interval) => boolean): string {
  const there = [...ioas.areas.values()].filter(isMeant).map(areaText);
  for (const range of ioas.allowed.values())
    if (isMeant(range)) there.push(`allowed ${rangeText(range.start, range.last)}`);
  return there.length === 0 ? '' : `${where}IOAS ${ioas.objectId} has ${listText(there, 3)}`;
}

/** The first area that does not keep to whole pages, which is what everything that raises the alignment asks for. */
function unalignedArea(call: Call): string {
  const ioas = attachedIoas(call);
  for (const area of ioas?.areas.values() ?? []) {
    const inPage = modPow2(area.startByte, PAGE);
    const uneven = modPow2(area.start, PAGE) !== 0 || modPow2(add(area.last, 1), PAGE) !== 0;
    if (uneven || inPage !== 0)
      return `IOAS ${ioas?.objectId} has ${areaText(area)}${inPage === 0 ? '' : `, from byte ${hex(inPage)} of a page on`}; multiples of ${hex(PAGE)} are needed`;
  }
  return '';
}

function hugeInUse(call: Call): string {
  const ioas = attachedIoas(call);
  const [area] = ioas?.areas.values() ?? [];
  return ioas === undefined || area === undefined ? '' : `IOAS ${ioas.objectId} has ${areaText(area)} and a domain`;
}

/** The ranges that ALLOW_IOVAS was given, as far as they were recorded: num_iovas 8, allowed_iovas 16. */
function allowedRanges(call: Call): Interval[] {
  const { struct } = call;
  const ranges: Interval[] = [];
  for (let i = 0; struct.has(16, 8) && i < struct.u32(8); i++) {
    const bytes = call.bytesAt(add(struct.u64(16), i * 16), 16);
    if (bytes === undefined) break;
    ranges.push({ start: bytes.u64(0), last: bytes.u64(8) });
  }
  return ranges;
}

function allowedText(call: Call): string {
  return listText(allowedRanges(call).map(({ start, last }) => rangeText(start, last)));
}

function reservedThere(call: Call): string {
  const ioas = attachedIoas(call);
  for (const { start, last } of ioas === undefined ? [] : allowedRanges(call)) {
    const blocked = ioas === undefined ? undefined : firstOverlap(ioas.blocked, start, last);
    if (blocked !== undefined)
      return `${rangeText(start, last)} touches ${rangeText(blocked.start, blocked.last)}, which is reserved`;
  }
  return '';
}

/** IOVA_RANGES: num_iovas 8. */
function rangeCount(call: Call): string {
  const ioas = attachedIoas(call);
  const there =
    ioas === undefined || ioas.unknownHardware.length > 0 ? '' : `; there are ${[...usableRanges(ioas)].length}`;
  return `${givenText(call)}${there}`;
}

/** HW queues of a vIOMMU come one after the other. */
function queuesText(call: Call): string {
  const viommu = typedObject(call.tx, call.file.object, Number(givenField(call, 'viommu_id') ?? 0), 'viommu');
  const queues = listText([...(viommu?.queues.entries() ?? [])].map(([index]) => String(index)));
  return `index ${givenField(call, 'index')}; vIOMMU ${viommu?.id} has ${queues === '' ? 'no queue' : `queue ${queues}`}`;
}

function mappedByAddress(call: Call): string {
  for (const object of call.tx.world.iommufds.get(call.file.object)?.objects.values() ?? [])
    for (const area of (object.type === 'ioas' ? ioasOf(call, object.id)?.areas.values() : undefined) ?? [])
      if (area.pages.kind !== 'file') return `IOAS ${object.id} has ${areaText(area)}`;
  return '';
}
