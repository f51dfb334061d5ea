import { hex } from '../../core/u64.js';
import { MOCK_OWNER } from '../devices/mock-domain.js';
import type { FileKind } from '../files/state.js';
import type { World } from '../world.js';
import { ofCharges, ofIoas, ofMappedFiles, ofPins, ofSharedPages } from './consistency-space.js';
import type { AccessObject, BoundDevice, FaultQueue, IommufdContext, IommuObject, Viommu } from './state.js';

/**
 * What must hold of the model itself after every event, whatever the event was: a breach is a bug in a reducer, never one
 * in a recording. For tests; the reducers rely on it.
 *
 * - Ids are unique: an id is an object, free, or reserved; all are below the first that was never given out.
 * - Users of an object are as many as refer to it: objects, files, attachments.
 * - References lead to objects of the right type, and back where both sides keep one.
 * - Areas of an IOAS are disjoint, keep to its alignment and out of its reserved ranges, which are the union of
 *   what each owner reserved. Pins of accesses are counted in each area that they touch.
 * - Every domain of an IOAS maps the same: areas are pinned exactly where the IOAS has a domain, and what is dirty in a
 *   domain is mapped.
 * - Each page that is held is charged once, to whom it is to be charged.
 * - A file lives while memory is mapped by it.
 * - Nothing half made is left: no IOAS record, entry of the pin index, file or offer to mmap without its object.
 *
 * Of a recording that contradicted the model once the state follows the recording: then areas may stand where the model
 * thinks that the kernel lets none be, and nothing else of this may be broken. `before` is a snapshot that was
 * checked already.
 */
export function breaches(world: World, before?: World, contradicted = false): string[] {
  const found: string[] = [];
  const tell = (where: string, list: Iterable<string>): void => {
    for (const breach of list) found.push(`${where}: ${breach}`);
  };
  const isSame = (...tables: (keyof World)[]): boolean =>
    before !== undefined && tables.every((table) => before[table].root === world[table].root);
  const around = isSame('files', 'groups', 'devices', 'ioases');
  for (const context of world.iommufds.values())
    if (!around || before?.iommufds.get(context.id) !== context)
      tell(`iommufd ${context.id}`, ofContext(world, context));
  for (const ioas of world.ioases.values()) {
    const sameContext = before?.iommufds.get(ioas.context) === world.iommufds.get(ioas.context);
    if (!sameContext || before?.ioases.get(ioas.id) !== ioas)
      tell(`IOAS ${ioas.id}`, ofIoas(world, ioas, contradicted));
  }
  for (const space of world.spaces.values())
    if (!isSame('ioases') || before?.spaces.get(space.id)?.pins.root !== space.pins.root)
      tell(`space ${space.id}`, ofPins(world, space.pins.values()));
  if (!isSame('ioases', 'iommufds', 'sharedPages')) tell('pages', ofSharedPages(world));
  if (!isSame('ioases', 'sharedPages', 'userLocked')) tell('user', ofCharges(world));
  if (!isSame('ioases', 'files')) tell('files', ofMappedFiles(world));
  return found;
}

// ---- objects ------------------------------------------------------------------------------------------------

function* ofContext(world: World, context: IommufdContext): Generator<string> {
  const users = usersByReference(world, context);
  for (const [id, object] of context.objects) {
    const name = `${object.type} ${id}`;
    if (object.id !== id) yield `${name} says that it is ${object.id}`;
    if (context.freeIds.has(id)) yield `the id of ${name} is free`;
    if (id >= context.nextObjectId) yield `the id of ${name} was never given out`;
    if (object.users !== (users.get(id) ?? 0))
      yield `${name} has ${object.users} users and ${users.get(id) ?? 0} refer to it`;
    for (const breach of ofObject(world, context, object)) yield `${name} ${breach}`;
  }
  for (const id of users.keys()) if (!context.objects.has(id)) yield `something refers to ${id}, which is no object`;
  for (const id of context.freeIds.keys()) if (id >= context.nextObjectId) yield `free id ${id} is not below the first`;
  if (context.vfioIoas !== 0 && typeOf(context, context.vfioIoas) !== 'ioas') yield 'the compatibility IOAS is none';
  const holders = holdersOf(world, context);
  if (context.holders !== holders) yield `${context.holders} holders are counted, there are ${holders}`;
  if (context.closed && context.holders === 0) yield 'it is closed and nothing holds it';
  yield* ofAttachments(context);
  for (const [start, offer] of context.mmaps) {
    const owner = context.objects.get(offer.owner);
    if (owner?.type !== 'viommu' || owner.mmapOffset !== start) yield `the offer at ${hex(start)} has no owner`;
  }
}

function typeOf(context: IommufdContext, id: number): string {
  return context.objects.get(id)?.type ?? 'none';
}

/** What an object holds a reference to; its own file and driver are users of itself. */
function referencesOf(world: World, context: IommufdContext, object: IommuObject): number[] {
  const { id } = object;
  switch (object.type) {
    case 'hwpt-paging':
      return [object.ioas, object.fault];
    case 'hwpt-nested':
      return [object.viommu !== 0 ? object.viommu : object.parent, object.fault];
    case 'device': {
      const attached = [...context.attachments.values()].filter(({ devices }) => devices.includes(id));
      return [...(hasDriver(world, context, object) ? [id] : []), ...attached.map(() => id)];
    }
    case 'access':
      return [...(hasDriver(world, context, object) ? [id] : []), object.ioas];
    case 'viommu':
      return [object.hwpt];
    case 'vdevice':
      return [object.viommu];
    case 'hw-queue':
      return [object.viommu, object.previous];
    case 'veventq':
      return [object.viommu, ...(fileOf(world, context, id, 'iommufd-veventq') ? [id] : [])];
    case 'fault':
      return fileOf(world, context, id, 'iommufd-fault') ? [id] : [];
    case 'ioas':
    case 'selftest':
      return [];
  }
}

/** Whether the driver that made a device or an access still has it: a mock device, a HW queue, VFIO or an open file. */
function hasDriver(world: World, context: IommufdContext, object: BoundDevice | AccessObject): boolean {
  const { id } = object;
  const owners = [...context.objects.values()];
  if (object.type === 'access') {
    if (object.internal) return owners.some((owner) => owner.type === 'hw-queue' && owner.access === id);
    if (fileOf(world, context, id, 'iommufd-access')) return true;
  } else if (object.mock !== null) return owners.some((owner) => owner.type === 'selftest' && owner.device === id);
  for (const device of world.devices.values()) if (device.iommufd === context.id && device.devid === id) return true;
  return false;
}

function usersByReference(world: World, context: IommufdContext): Map<number, number> {
  const users = new Map<number, number>();
  const count = (id: number, by = 1): void => {
    if (id !== 0) users.set(id, (users.get(id) ?? 0) + by);
  };
  for (const object of context.objects.values()) for (const id of referencesOf(world, context, object)) count(id);
  for (const { hwpt, devices } of context.attachments.values()) count(hwpt, devices.length);
  return users;
}

/** Whether an open file stands for an object of a context. */
function fileOf(world: World, context: IommufdContext, id: number, kind: FileKind): boolean {
  const key = `${context.id}/${id}`;
  for (const file of world.files.values()) if (file.kind === kind && file.objectKey === key) return true;
  return false;
}

/** What keeps a context alive besides its own file: groups of VFIO that it is the container of, and what drivers and files have. */
function holdersOf(world: World, context: IommufdContext): number {
  let holders = 0;
  for (const group of world.groups.values()) if (group.iommufd === context.id) holders++;
  for (const { id, ...object } of context.objects.values()) {
    if (object.type === 'device') holders += object.mock === null ? 1 : 0;
    else if (object.type === 'access') holders += object.internal ? 0 : 1;
    else if (object.type === 'fault') holders += fileOf(world, context, id, 'iommufd-fault') ? 1 : 0;
    else if (object.type === 'veventq') holders += fileOf(world, context, id, 'iommufd-veventq') ? 1 : 0;
  }
  return holders;
}

function* ofAttachments(context: IommufdContext): Generator<string> {
  for (const [key, { hwpt, devices }] of context.attachments) {
    if (!typeOf(context, hwpt).startsWith('hwpt')) yield `${key} is attached to ${hwpt}, which is no HWPT`;
    if (devices.length === 0 || new Set(devices).size < devices.length) yield `${key} has devices ${devices.join()}`;
    for (const id of devices) {
      const device = context.objects.get(id);
      if (device?.type !== 'device' || !key.startsWith(`${device.group}/`))
        yield `${key} has device ${id}, of another group`;
    }
  }
}

function* ofObject(world: World, context: IommufdContext, object: IommuObject): Generator<string> {
  const { id } = object;
  const wrong = (other: number, type: string): boolean => other !== 0 && typeOf(context, other) !== type;
  switch (object.type) {
    case 'ioas': {
      const ioas = world.ioases.get(object.ioas);
      if (ioas?.objectId !== id || ioas.context !== context.id) yield 'has no record';
      return;
    }
    case 'hwpt-paging':
      if (typeOf(context, object.ioas) !== 'ioas') yield 'stands on no IOAS';
      if (wrong(object.fault, 'fault')) yield 'has no fault queue';
      if (object.auto && object.users === 0) yield 'is automatic and without users';
      return;
    case 'hwpt-nested':
      if (wrong(object.viommu, 'viommu') || wrong(object.parent, 'hwpt-paging')) yield 'has no parent';
      if (wrong(object.fault, 'fault')) yield 'has no fault queue';
      return;
    case 'device':
      yield* ofDevice(context, object);
      return;
    case 'access':
      if (wrong(object.ioas, 'ioas')) yield 'is attached to no IOAS';
      if (object.ioas === 0 && object.items.length > 0) yield 'is detached and holds pages';
      if (object.items.some((item) => item.id >= object.nextItem && !object.internal)) yield 'has an item from nowhere';
      return;
    case 'selftest':
      if (typeOf(context, object.device) !== 'device') yield 'has no device';
      return;
    case 'vdevice': {
      const viommu = context.objects.get(object.viommu);
      const device = context.objects.get(object.device);
      if (viommu?.type !== 'viommu' || viommu.vdevices.get(object.virtId) !== id) yield 'is none of its vIOMMU';
      if (device?.type !== 'device' || device.vdevice !== id) yield 'is none of its device';
      return;
    }
    case 'viommu':
      yield* ofViommu(context, object);
      return;
    case 'hw-queue': {
      const viommu = context.objects.get(object.viommu);
      // The mock driver may forget the first one.
      const forgotten = object.index === 0 && viommu?.type === 'viommu' && viommu.owner === MOCK_OWNER;
      if (!forgotten && (viommu?.type !== 'viommu' || viommu.queues.get(object.index) !== id))
        yield 'is none of its vIOMMU';
      if (typeOf(context, object.access) !== 'access' || wrong(object.previous, 'hw-queue'))
        yield 'lacks its access or its predecessor';
      return;
    }
    case 'veventq': {
      const told = [...object.deliver.values()].filter(({ lost }) => !lost).length;
      if (told !== object.eventCount || told > object.depth) yield `counts ${object.eventCount} events, holds ${told}`;
      const viommu = context.objects.get(object.viommu);
      if (viommu?.type !== 'viommu' || !viommu.veventqs.includes(id)) yield 'is none of its vIOMMU';
      return;
    }
    case 'fault':
      yield* ofCookies(object);
  }
}

function* ofDevice(context: IommufdContext, device: BoundDevice): Generator<string> {
  const vdevice = context.objects.get(device.vdevice);
  if (device.vdevice !== 0 && (vdevice?.type !== 'vdevice' || vdevice.device !== device.id))
    yield 'has no such vDEVICE';
  const { mock } = device;
  if (mock === null) return;
  if (mock.viommu !== 0 && typeOf(context, mock.viommu) !== 'viommu') yield 'is in no vIOMMU';
  let faults = 0;
  for (const { hwpt, devices } of context.attachments.values()) {
    const attached = context.objects.get(hwpt);
    if (devices.includes(device.id) && attached !== undefined && 'fault' in attached && attached.fault !== 0) faults++;
  }
  if (mock.faultUsers !== faults) yield `counts ${mock.faultUsers} attached domains with faults, ${faults} are`;
}

function* ofViommu(context: IommufdContext, viommu: Viommu): Generator<string> {
  if (typeOf(context, viommu.hwpt) !== 'hwpt-paging') yield 'stands on no HWPT';
  for (const id of viommu.vdevices.values()) if (typeOf(context, id) !== 'vdevice') yield `has no vDEVICE ${id}`;
  for (const id of viommu.veventqs) if (typeOf(context, id) !== 'veventq') yield `has no event queue ${id}`;
  for (const id of viommu.queues.values())
    if (id !== 0 && typeOf(context, id) !== 'hw-queue') yield `has no HW queue ${id}`;
  if (viommu.mmapOffset !== 0 && context.mmaps.get(viommu.mmapOffset)?.owner !== viommu.id)
    yield 'offers nothing to mmap';
}

function* ofCookies(queue: FaultQueue): Generator<string> {
  for (const [cookie, group] of queue.pending) {
    if (group.cookie !== cookie || cookie >= queue.nextCookie) yield `has no cookie ${cookie}`;
    if (queue.freeCookies.has(cookie)) yield `gave cookie ${cookie} out and has it free`;
  }
  for (let cookie = 1; cookie < queue.nextCookie; cookie++)
    if (!queue.pending.has(cookie) && !queue.freeCookies.has(cookie)) yield `lost cookie ${cookie}`;
}
