import type { Tx } from '../tx.js';
import { alignUp, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { installFd } from '../files/fds.js';
import { succeedWithFd } from '../new-fd.js';
import type { OpenFile } from '../files/state.js';
import { PAGE } from '../iommufd/iopt.js';
import type { Rule } from '../iommufd/rules.js';

/**
 * The self-tests' dma-bufs (drivers/iommu/iommufd/selftest.c): kernel memory behind an fd that MAP_FILE takes, and
 * that can be revoked. A revoked one cannot be mapped; where it is mapped, domains lose it for good, also when it
 * is made valid again.
 */
export const DMABUF_RULES: readonly Rule[] = [
  { id: 'dmabuf-get.length', errno: 'EINVAL', text: 'the length is 0 or more than 2 MiB' },
  { id: 'dmabuf-get.flags', errno: 'EINVAL', text: 'a flag is neither O_CLOEXEC nor an access mode' },
  { id: 'dmabuf-get.ok', errno: '', text: 'a dma-buf is made; the call returns its fd' },
  { id: 'dmabuf-revoke.fd', errno: 'EBADF', text: 'the fd is not open' },
  { id: 'dmabuf-revoke.kind', errno: 'EINVAL', text: 'the fd is no dma-buf' },
  { id: 'dmabuf-revoke.driver', errno: 'EOPNOTSUPP', text: "the dma-buf is not one of the self-tests'" },
  { id: 'dmabuf-revoke.ok', errno: '', text: 'the dma-buf is revoked or valid again' },
];

const MAX_BYTES = 512 * PAGE;
const O_CLOEXEC = 0o2000000;
const O_ACCMODE = 3;

/** Predicts a failure of mapping a dma-buf up to a byte; true when the caller should stop. */
export function refuseDmaBuf(call: Call, file: OpenFile, last: U64): boolean {
  const buffer = call.tx.world.dmaBufs.get(file.id);
  if (buffer === undefined) {
    call.unknown('not modelled: dma-bufs of other drivers');
    return false;
  }
  if (buffer.lengthBytes <= last && call.fail('EINVAL', 'map-file.dma-buf-size')) return true;
  if (buffer.revoked === null) return !call.unknown('whether the dma-buf is revoked is not in the recording');
  return buffer.revoked && call.fail('ENODEV', 'map-file.dma-buf-revoked');
}

/** After a command of the self-tests that was not seen: it may have revoked any of them, or made it valid again. */
export function forgetRevoked(tx: Tx): void {
  for (const [id, buffer] of [...tx.world.dmaBufs])
    tx.world.dmaBufs.set(id, Object.freeze({ ...buffer, revoked: null }));
}

/** IOMMU_TEST_OP_DMABUF_GET: length at 16, flags at 20. */
export function dmabufGet(call: Call): void {
  const s = call.struct;
  const flags = s.u32(20);
  const lengthBytes = alignUp(s.u32(16), PAGE);
  if ((lengthBytes === 0 || lengthBytes > MAX_BYTES) && call.fail('EINVAL', 'dmabuf-get.length')) return;
  if ((flags & ~(O_CLOEXEC | O_ACCMODE)) !== 0 && call.fail('EINVAL', 'dmabuf-get.flags')) return;
  const fd = succeedWithFd(call, 'dmabuf-get.ok');
  if (fd === undefined) return;
  const file = installFd(
    call.tx,
    call.process,
    fd,
    {
      kind: 'dma-buf',
      path: '/dmabuf:',
      flags,
      complete: true,
      cloexec: (flags & O_CLOEXEC) !== 0,
      sizeBytes: lengthBytes,
    },
    call.event,
    call.families,
  );
  call.tx.world.dmaBufs.set(file.id, Object.freeze({ id: file.id, lengthBytes: Number(lengthBytes), revoked: false }));
}

/** IOMMU_TEST_OP_DMABUF_REVOKE: fd at 16, on or off at 20. */
export function dmabufRevoke(call: Call): void {
  const fd = call.struct.s32(16);
  const table = call.tx.world.fdTables.get(call.process.fdTable);
  const entry = table?.fds.get(fd);
  const file = entry === undefined ? undefined : call.tx.world.files.get(entry.file);
  if (file === undefined) {
    if (table?.complete || fd < 0) call.fail('EBADF', 'dmabuf-revoke.fd');
    else call.unknown('the fd was opened outside of the recording');
    return;
  }
  const buffer = call.tx.world.dmaBufs.get(file.id);
  if (buffer === undefined) {
    if (file.kind === 'dma-buf' && file.complete) call.fail('EOPNOTSUPP', 'dmabuf-revoke.driver');
    else if (file.kind === 'dma-buf' || file.kind === 'unknown') call.unknown('what is behind the fd was not recorded');
    else call.fail('EINVAL', 'dmabuf-revoke.kind');
    return;
  }
  if (!call.succeed('dmabuf-revoke.ok')) return;
  call.tx.world.dmaBufs.set(file.id, Object.freeze({ ...buffer, revoked: call.struct.u32(20) !== 0 }));
}
