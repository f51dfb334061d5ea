import * as assert from 'uvu/assert';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import { Tx } from '../tx.js';
import type { World } from '../world.js';
import { breaches } from './consistency.js';
import { addUsers, contextOf, giveId, objectOf, patchContext, patchIoas, patchObject, putObject } from './context.js';
import { insertArea, PAGE, replaceArea } from './iopt.js';
import type { Area, IommuObject, ObjectType } from './state.js';
import { Bench, type Field, note, struct } from './testing.js';

const test = suite('iommufd consistency');
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const DATA = 0x6000_0000;
const SELFTEST = 0xdeadbeef;

function queues(...entries: readonly [index: number, id: number][]): OrderedMap<number, number> {
  const made = OrderedMap.numeric<number, number>();
  for (const [index, id] of entries) made.set(index, id);
  return made.freeze();
}

/** One context with an object of every type, pages that an access holds, and a request and an event that wait. */
function everything(): World {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  b.mmap(DATA, 0x1000);
  const ioas = b.ioasAlloc();
  const { device, standing } = b.mockDomain(ioas);
  b.map(ioas, BUFFER, 0x2000, APERTURE);
  b.map(ioas, BUFFER, 0x1000);
  const parent = b.hwptAlloc(device, ioas, 1).u32(16);
  const fault = b.ioctl(3, 0x3b8e, struct(16)).u32(8);
  const mem = [note(DATA, struct(24, [0, 5]))];
  const viommu = b
    .ioctl(3, 0x3b90, struct(40, [8, SELFTEST], [12, device], [16, parent], [24, 24], [32, DATA, 8]), { mem })
    .u32(20);
  b.ioctl(3, 0x3b91, struct(24, [4, viommu], [8, device], [16, 9, 8]));
  b.ioctl(3, 0x3b93, struct(32, [8, viommu], [12, 0xbeefbeef], [16, 2]));
  for (const index of [0, 1])
    b.ioctl(3, 0x3b94, struct(40, [8, viommu], [12, SELFTEST], [16, index], [24, APERTURE, 8], [32, 64, 8]));
  const nested: Field[] = [
    [4, 4],
    [8, device],
    [12, viommu],
    [24, 0xdead],
    [28, 8],
    [32, DATA, 8],
    [40, fault],
  ];
  const hwpt = b.ioctl(3, 0x3b89, struct(48, ...nested), { mem: [note(DATA, struct(8, [0, 5]))] }).u32(16);
  b.test(10, standing, [16, hwpt]);
  b.test(15, 0, [16, device]);
  b.test(17, 0, [16, device]);
  const fd = b.test(5, ioas, [20, 1]).u32(16);
  b.test(7, fd, [24, APERTURE + PAGE, 8], [32, PAGE, 8]);
  b.copy(ioas, APERTURE, ioas, PAGE, APERTURE + 0x10_0000);
  b.ioctl(3, 0x3b88, struct(12, [4, ioas], [8, 1, 2]));
  b.destroy(b.ioasAlloc());
  return b.world;
}

const WORLD = everything();
const CONTEXT = 1;
const IOAS = 1;

function firstOf<T extends ObjectType>(tx: Tx, type: T): Extract<IommuObject, { type: T }> {
  for (const object of contextOf(tx, CONTEXT).objects.values())
    if (object.type === type) return object as Extract<IommuObject, { type: T }>;
  throw new Error(`no ${type}`);
}

/** Changes fields of the first object of a type. */
function spoil<T extends ObjectType>(type: T, patch: Partial<Extract<IommuObject, { type: T }>>): (tx: Tx) => void {
  return (tx) => {
    patchObject<IommuObject>(tx, CONTEXT, firstOf(tx, type), patch);
  };
}

function area(tx: Tx): Area {
  return tx.world.ioases.get(IOAS)?.areas.get(APERTURE) as Area;
}

function spoilArea(patch: Partial<Area>): (tx: Tx) => void {
  return (tx) => replaceArea(tx, IOAS, { ...area(tx), ...patch });
}

const BREACHES: readonly [report: RegExp, breach: (tx: Tx) => void][] = [
  [/the id of ioas 1 is free/, (tx) => giveId(tx, CONTEXT, 1)],
  [
    /device 1 says that it is \d/,
    (tx) => tx.openTable(tx.world.iommufds, CONTEXT, 'objects').set(1, firstOf(tx, 'device')),
  ],
  [/was never given out/, (tx) => patchContext(tx, CONTEXT, { nextObjectId: 2 })],
  [/free id 90 is not below/, (tx) => tx.openTable(tx.world.iommufds, CONTEXT, 'freeIds').set(90, true)],
  [/has 4 users and \d refer/, (tx) => addUsers(tx, CONTEXT, firstOf(tx, 'viommu').id, -1)],
  [/refers to \d+, which is no object/, spoil('hwpt-paging', { fault: 77 })],
  [/the compatibility IOAS is none/, (tx) => patchContext(tx, CONTEXT, { vfioIoas: 2 })],
  [/7 holders are counted/, (tx) => patchContext(tx, CONTEXT, { holders: 7 })],
  [/attached to 1, which is no HWPT/, (tx) => attachment(tx, { hwpt: 1, devices: [firstOf(tx, 'device').id] })],
  [/has devices $/, (tx) => attachment(tx, { hwpt: firstOf(tx, 'hwpt-nested').id, devices: [] })],
  [/has device 1, of another group/, (tx) => attachment(tx, { hwpt: firstOf(tx, 'hwpt-nested').id, devices: [1] })],
  [/the offer at 0x9000 has no owner/, (tx) => offer(tx)],
  [/offers nothing to mmap/, spoil('viommu', { mmapOffset: 0x9000 })],
  [/ioas 1 has no record/, (tx) => tx.world.ioases.delete(IOAS)],
  [/stands on no IOAS/, spoil('hwpt-paging', { ioas: 3 })],
  [/has no fault queue/, spoil('hwpt-nested', { fault: 1 })],
  [/is automatic and without users/, spoil('hwpt-paging', { auto: true, users: 0 })],
  [/hwpt-nested \d+ has no parent/, spoil('hwpt-nested', { viommu: 1 })],
  [/has no such vDEVICE/, spoil('device', { vdevice: 1 })],
  [/is none of its device/, spoil('device', { vdevice: 0 })],
  [/is in no vIOMMU/, (tx) => spoilMock(tx, { viommu: 1 })],
  [/counts 5 attached domains with faults, 1 are/, (tx) => spoilMock(tx, { faultUsers: 5 })],
  [/access \d+ is attached to no IOAS/, spoil('access', { ioas: 2 })],
  [/is detached and holds pages/, spoil('access', { ioas: 0 })],
  [/has an item from nowhere/, (tx) => spoilItems(tx)],
  [/has no device/, spoil('selftest', { device: 1 })],
  [/vdevice \d+ is none of its vIOMMU/, spoil('vdevice', { virtId: 1 })],
  [/stands on no HWPT/, spoil('viommu', { hwpt: 1 })],
  [/has no HW queue 1/, spoil('viommu', { queues: queues([0, 1]) })],
  [/has no event queue 1/, spoil('viommu', { veventqs: [1] })],
  [/hw-queue \d+ is none of its vIOMMU/, spoil('viommu', { queues: queues() })],
  [/lacks its access or its predecessor/, spoil('hw-queue', { access: 1 })],
  [/counts 2 events, holds 1/, spoil('veventq', { eventCount: 2 })],
  [/veventq \d+ is none of its vIOMMU/, spoil('viommu', { veventqs: [] })],
  [/lost cookie 1/, spoil('fault', { nextCookie: 2 })],
  [/no object has it/, (tx) => patchIoas(tx, IOAS, { objectId: 2 })],
  [/areas overlap/, (tx) => tx.openTable(tx.world.ioases, IOAS, 'areas').set(APERTURE + 1, area(tx))],
  [/is reserved and not blocked/, (tx) => tx.openTable(tx.world.ioases, IOAS, 'blocked').delete(0)],
  [/0x9000000 is blocked by nobody/, (tx) => block(tx, 0x900_0000, 0x900_0fff)],
  [/lies in a reserved range/, (tx) => block(tx, APERTURE, APERTURE + 1)],
  [/is reserved and allowed/, (tx) => allow(tx)],
  [/lists HWPTs/, (tx) => patchIoas(tx, IOAS, { hwpts: [] })],
  [/lists accesses/, (tx) => patchIoas(tx, IOAS, { accesses: [] })],
  [/has alignment 1 where 4096/, (tx) => patchIoas(tx, IOAS, { alignment: 1 })],
  [/does not keep to the alignment/, spoilArea({ last: APERTURE + 0x1ffe })],
  [/has gaps where areas are/, (tx) => tx.openTable(tx.world.ioases, IOAS, 'areas').delete(APERTURE)],
  [/counts 9 pins/, spoilArea({ accesses: 9 })],
  [/counts 3 pins, 3 of them locks/, spoilArea({ locks: 3 })],
  [/is held since -1/, spoilArea({ pinnedSince: -1 })],
  [/is dirty at 0x90000000, where nothing is mapped/, (tx) => dirty(tx)],
  [/is pinned by ioas:1 at 0x1000000, which does not map it/, spoilArea({ pin: 0 })],
  [/are in \d areas, counted are 9/, (tx) => share(tx, { areas: 9 })],
  [/are not known to be shared/, (tx) => tx.world.sharedPages.delete(area(tx).pages.id)],
  [/are shared by nobody/, (tx) => tx.world.sharedPages.set(99, { ...tx.world.sharedPages.first()! })],
  [/is held by 1 domains, there are 2/, (tx) => oneDomainLess(tx)],
  [/is charged with 0 and 9 pages, holds 0 and 3/, (tx) => chargeMore(tx)],
];

function attachment(tx: Tx, value: { hwpt: number; devices: number[] }): void {
  const key = contextOf(tx, CONTEXT).attachments.firstKey() as string;
  tx.openTable(tx.world.iommufds, CONTEXT, 'attachments').set(key, value);
}

function offer(tx: Tx): void {
  tx.openTable(tx.world.iommufds, CONTEXT, 'mmaps').set(0x9000, { owner: 1, lengthBytes: PAGE });
}

function spoilMock(tx: Tx, patch: object): void {
  const device = firstOf(tx, 'device');
  putObject(tx, CONTEXT, { ...device, mock: { ...device.mock!, ...patch } });
}

function spoilItems(tx: Tx): void {
  for (const object of contextOf(tx, CONTEXT).objects.values())
    if (object.type === 'access' && !object.internal) putObject(tx, CONTEXT, { ...object, nextItem: 0 });
}

function block(tx: Tx, start: number, last: number): void {
  tx.openTable(tx.world.ioases, IOAS, 'blocked').set(start, { start, last });
}

function allow(tx: Tx): void {
  tx.openTable(tx.world.ioases, IOAS, 'allowed').set(0, { start: 0, last: 0xfff });
}

function dirty(tx: Tx): void {
  const hwpt = firstOf(tx, 'hwpt-paging');
  const ranges = hwpt.dirty.edit().set(0x9000_0000, { start: 0x9000_0000, last: 0x9000_0fff });
  putObject(tx, CONTEXT, { ...hwpt, dirty: ranges.freeze() });
}

function share(tx: Tx, patch: { areas: number }): void {
  const id = area(tx).pages.id;
  tx.world.sharedPages.set(id, { ...tx.world.sharedPages.get(id)!, ...patch });
}

function chargeMore(tx: Tx): void {
  const user = area(tx).pages.user;
  tx.world.userLocked.set(user, { ...tx.world.userLocked.get(user)!, maybePages: 9 });
}

function oneDomainLess(tx: Tx): void {
  const runs = tx.openTable(tx.world.sharedPages, area(tx).pages.id, 'runs');
  const run = runs.first()!;
  runs.set(run.start, { ...run, domains: run.domains - 1 });
}

test('a context with everything in it holds together', () => {
  assert.equal(breaches(WORLD), []);
  const types = new Set([...WORLD.iommufds.first()!.objects.values()].map(({ type }) => type));
  assert.is(types.size, 11, [...types].join());
});

test('each breach is told', () => {
  const untold: string[] = [];
  for (const [report, breach] of BREACHES) {
    const tx = new Tx(WORLD);
    breach(tx);
    const world = tx.commit();
    for (const told of [breaches(world), breaches(world, WORLD)])
      if (!told.some((text) => report.test(text))) untold.push(`${report}: ${told.join('; ')}`);
  }
  assert.equal(untold, []);
});

test('areas that a contradicting recording put somewhere are let be', () => {
  const tx = new Tx(WORLD);
  block(tx, APERTURE, APERTURE + 1);
  const told = breaches(tx.commit(), undefined, true);
  assert.not(told.some((text) => /lies in a reserved range/.test(text)));
});

test('nothing is left of a context that is gone', () => {
  const tx = new Tx(WORLD);
  assert.ok(objectOf(tx, CONTEXT, 1));
  insertArea(tx, IOAS, { ...area(tx), start: 0x5000_0000, last: 0x5000_0fff });
  tx.world.iommufds.delete(CONTEXT);
  const told = breaches(tx.commit());
  assert.ok(told.some((text) => /IOAS 1: no object has it/.test(text)));
});
