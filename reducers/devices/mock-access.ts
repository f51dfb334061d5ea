import { add, alignDown, lastOf, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import {
  accessIds,
  addItem,
  changeAccessIoas,
  refusedUnseen,
  destroyAccess,
  dropItem,
  makeAccess,
  refusePin,
  refuseReadWrite,
} from '../iommufd/access.js';
import { lookupIoas, missing, typedObject } from '../iommufd/context.js';
import { handOutFd } from '../iommufd/eventq.js';
import { nthAreaIova, PAGE } from '../iommufd/iopt.js';
import { predictRefusal } from '../iommufd/refuse.js';
import type { Rule } from '../iommufd/rules.js';
import type { AccessObject, Ioas } from '../iommufd/state.js';
import { probeBuffer } from '../iommufd/user-buffer.js';
import { sameMemory } from './mock-compare.js';
import { unknownSinceText } from '../answer.js';

/**
 * Accesses of the self-tests (drivers/iommu/iommufd/selftest.c): an in-kernel user of an IOAS behind an fd, which the
 * operations name, whichever context they are called on: the access works in its own. Closing the fd ends it.
 */
export const ACCESS_TEST_RULES: readonly Rule[] = [
  { id: 'create-access.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag is set' },
  { id: 'create-access.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'create-access.ok', errno: '', text: 'an access and its file are made' },
  { id: 'access-fd', errno: 'EBADFD', text: 'the fd is no access' },
  { id: 'access-pages.size', errno: 'ENOMEM', text: 'more than 16 MiB' },
  { id: 'access-pages.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag is set' },
  { id: 'access-pages.kind', errno: 'EOPNOTSUPP', text: 'the access was not made to pin pages' },
  { id: 'access-pages.fault', errno: 'EFAULT', text: 'the memory to compare with is not mapped' },
  { id: 'access-pages.other', errno: 'EBADE', text: 'the memory to compare with is other memory' },
  { id: 'access-pages.ok', errno: '', text: 'the pages are pinned as an item' },
  { id: 'destroy-pages.item', errno: 'ENOENT', text: 'the access has no such item' },
  { id: 'destroy-pages.ok', errno: '', text: 'the item is let go' },
  { id: 'access-rw.size', errno: 'ENOMEM', text: 'more than 16 MiB' },
  { id: 'access-rw.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag is set' },
  { id: 'access-rw.fault', errno: 'EFAULT', text: 'the buffer cannot be read or written' },
  { id: 'access-rw.ok', errno: '', text: 'the bytes are copied' },
  { id: 'access-replace.detached', errno: 'ENOENT', text: 'the access is attached to no IOAS' },
  { id: 'access-replace.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'access-replace.ok', errno: '', text: 'the access is attached to another IOAS' },
];

const NEEDS_PIN_PAGES = 1;
const WRITE = 1;
const SLOW_PATH = 4;
const SYZ = 0x1_0000;
const MAX_BYTES = 16 * 1024 * 1024;

export function createAccess(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  const flags = s.u32(20);
  if ((flags & ~NEEDS_PIN_PAGES) !== 0 && call.fail('EOPNOTSUPP', 'create-access.flags')) return;
  call.trial();
  const access = makeAccess(tx, contextId, flags & NEEDS_PIN_PAGES ? PAGE : 1, false, call.event.seq);
  const ioasId = s.u32(8);
  if (typedObject(tx, contextId, ioasId, 'ioas') === undefined) {
    destroyAccess(tx, contextId, access.id);
    missing(call, contextId, 'create-access.ioas');
    return;
  }
  const refused = changeAccessIoas(tx, contextId, access.id, ioasId);
  if (refused !== undefined) {
    predictRefusal(call, refused);
    destroyAccess(tx, contextId, access.id);
    return;
  }
  if (refusedUnseen(call, contextId, ioasId) || !call.succeed('create-access.ok')) return;
  const path = 'anon_inode:[iommufd_test_staccess]';
  handOutFd(call, 16, 'out_access_fd', 'iommufd-access', path, `${contextId}/${access.id}`);
}

interface Found {
  readonly contextId: number;
  readonly access: AccessObject;
}

/** The access behind the fd at 8; undefined after a prediction was made. */
function accessOfFd(call: Call): Found | undefined {
  const fd = call.struct.s32(8);
  const table = call.tx.world.fdTables.get(call.process.fdTable);
  const entry = table?.fds.get(fd);
  const file = entry === undefined ? undefined : call.tx.world.files.get(entry.file);
  if (file === undefined && !table?.complete && fd >= 0) {
    call.unknown('the fd was opened outside of the recording');
    return undefined;
  }
  if (file === undefined || file.kind !== 'iommufd-access') {
    if (file?.kind === 'unknown') call.unknown('what is behind the fd was not recorded');
    else call.fail('EBADFD', 'access-fd');
    return undefined;
  }
  const [contextId, id] = accessIds(file);
  const access = typedObject(call.tx, contextId, id, 'access');
  if (access !== undefined) return { contextId, access };
  call.unknown('the access was made outside of the recording');
  return undefined;
}

export function accessPages(call: Call): void {
  const s = call.struct;
  const flags = s.u32(16);
  const length = s.u64(32);
  const compareWith = s.u64(40);
  if (length > MAX_BYTES && call.fail('ENOMEM', 'access-pages.size')) return;
  if ((flags & ~(WRITE | SYZ)) !== 0 && call.fail('EOPNOTSUPP', 'access-pages.flags')) return;
  const found = accessOfFd(call);
  if (found === undefined) return;
  const { contextId, access } = found;
  if (access.alignment !== PAGE && call.fail('EOPNOTSUPP', 'access-pages.kind')) return;
  const iova = targetIova(call, found, 24, (flags & SYZ) !== 0);
  const refused = refusePin(call.tx, contextId, access, iova, length, (flags & WRITE) !== 0);
  if (refused !== undefined && predictRefusal(call, refused)) return;
  const last = lastOf(iova, length);
  if (last === undefined) return;
  if (compareWith !== 0 && refused === undefined && differs(call, found, iova, last)) return;
  if (call.succeed('access-pages.ok'))
    call.out32(20, addItem(call.tx, contextId, access, iova, last, call.event.seq), 'out_access_pages_id');
}

/** Predicts a failure where the pinned pages are not those at the given address; true when the call fails. */
function differs(call: Call, found: Found, iova: number | bigint, last: number | bigint): boolean {
  // Whole pages are compared: with those that the address and the IOVA lie in.
  const pages = { start: alignDown(iova, PAGE), last: add(alignDown(last, PAGE), PAGE - 1) };
  const address = alignDown(call.struct.u64(40), PAGE);
  const same = sameMemory(call, found.contextId, found.access.ioas, pages.start, pages.last, address);
  if (same === 'fault') return call.fail('EFAULT', 'access-pages.fault');
  if (same === 'other') return call.fail('EBADE', 'access-pages.other');
  if (same !== 'same') call.unknown(same.unknown);
  return false;
}

export function destroyAccessPages(call: Call): void {
  const found = accessOfFd(call);
  if (found === undefined) return;
  const { contextId, access } = found;
  const id = call.struct.u32(16);
  if (!access.items.some((item) => item.id === id)) {
    // An item of areas that are not known was given out, and is not kept here.
    const since = ioasOf(call, found)?.unknownSince ?? -1;
    if (since >= 0 && id < access.nextItem) call.unknown(unknownSinceText('mappings', since));
    else if (call.fail('ENOENT', 'destroy-pages.item')) return;
  }
  if (call.succeed('destroy-pages.ok')) dropItem(call.tx, contextId, access, id);
}

export function accessRw(call: Call): void {
  const s = call.struct;
  const length = s.u64(24);
  const buffer = s.u64(32);
  const flags = s.u32(40);
  if (length > MAX_BYTES && call.fail('ENOMEM', 'access-rw.size')) return;
  if ((flags & ~(WRITE | SLOW_PATH | SYZ)) !== 0 && call.fail('EOPNOTSUPP', 'access-rw.flags')) return;
  const found = accessOfFd(call);
  if (found === undefined) return;
  const write = (flags & WRITE) !== 0;
  if (write && faults(call, buffer, length, false)) return;
  const iova = targetIova(call, found, 16, (flags & SYZ) !== 0);
  const slow = (flags & SLOW_PATH) !== 0;
  const space = call.process.space;
  const refused = refuseReadWrite(call.tx, found.contextId, found.access, iova, length, write, slow, space);
  if (refused !== undefined && predictRefusal(call, refused)) return;
  if (!write && faults(call, buffer, length, true)) return;
  call.succeed('access-rw.ok');
}

/** Predicts EFAULT where the caller's own buffer cannot be touched; true when the call fails. */
function faults(call: Call, start: U64, count: U64, write: boolean): boolean {
  const answer = probeBuffer(call, start, count, write);
  if (answer === 'fault') return call.fail('EFAULT', 'access-rw.fault');
  if (answer !== 'ok') call.unknown(answer.unknown);
  return false;
}

/**
 * The IOVA that a call means. With SYZ its field holds two numbers of 32 bits: which area of the IOAS, counted from
 * the lowest, and an offset; where there is no such area, the IOVA is 0.
 */
function targetIova(call: Call, found: Found, at: number, syz: boolean): U64 {
  if (!syz) return call.struct.u64(at);
  const ioas = ioasOf(call, found);
  if (ioas === undefined) return 0;
  if (ioas.unknownSince >= 0) call.unknown(unknownSinceText('mappings', ioas.unknownSince));
  return nthAreaIova(ioas, call.struct.u32(at), call.struct.u32(at + 4));
}

function ioasOf(call: Call, found: Found): Ioas | undefined {
  const key = typedObject(call.tx, found.contextId, found.access.ioas, 'ioas')?.ioas;
  return key === undefined ? undefined : call.tx.world.ioases.get(key);
}

export function accessReplaceIoas(call: Call): void {
  const found = accessOfFd(call);
  if (found === undefined) return;
  const { contextId, access } = found;
  if (access.ioas === 0 && call.fail('ENOENT', 'access-replace.detached')) return;
  const ioasId = call.struct.u32(16);
  const ioas = lookupIoas(call, ioasId, 'access-replace.ioas', contextId);
  if (ioas === undefined) return;
  call.trial();
  const refused = changeAccessIoas(call.tx, contextId, access.id, ioasId);
  if (refused !== undefined) predictRefusal(call, refused);
  else if (!refusedUnseen(call, contextId, ioasId)) call.succeed('access-replace.ok');
}
