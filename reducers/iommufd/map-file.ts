import { lastOf, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { refuseDmaBuf } from '../devices/mock-dmabuf.js';
import type { OpenFile } from '../files/state.js';
import { chargeOfCaller } from './charges.js';
import { contextOf } from './context.js';
import { PAGE } from './iopt.js';
import { pagesIn } from './pages.js';
import type { Rule } from './rules.js';
import type { Ioas, IoPages } from './state.js';

/**
 * The file behind MAP_FILE (`iopt_map_file_pages`): a dma-buf is taken as such, any other file as one that may hold
 * memory. Whether it does, and is long enough, matters only once pages are pinned.
 */
export const MAP_FILE_RULES: readonly Rule[] = [
  { id: 'map-file.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'map-file.overflow', errno: 'EOVERFLOW', text: 'offset and length pass 2^64' },
  { id: 'map-file.fd', errno: 'EBADF', text: 'the fd is not open' },
  { id: 'map-file.dma-buf-size', errno: 'EINVAL', text: 'the range passes the end of the dma-buf' },
  { id: 'map-file.dma-buf-revoked', errno: 'ENODEV', text: 'the dma-buf was revoked' },
];

const FREE = { charged: 'nobody' } as const;

/** The pages of a file, or undefined after a prediction was made. */
export function fileForMap(
  call: Call,
  ioas: Ioas,
  fd: number,
  start: U64,
  length: U64,
  writable: boolean,
): IoPages | undefined {
  if (length === 0 && call.fail('EINVAL', 'map-file.length')) return undefined;
  const last = lastOf(start, length);
  if (last === undefined) {
    call.fail('EOVERFLOW', 'map-file.overflow');
    return undefined;
  }
  const file = fileOf(call, fd);
  if (file === undefined) return undefined;
  if (file.kind === 'dma-buf' && refuseDmaBuf(call, file, last)) return undefined;
  if (length > sub(U64_MAX, PAGE) && call.fail('EINVAL', 'map.memory-length')) return undefined;
  const offset = modPow2(start, PAGE);
  return Object.freeze({
    id: call.tx.nextId('io-pages'),
    kind: file.kind === 'dma-buf' ? 'dmabuf' : 'file',
    space: call.process.space,
    base: sub(start, offset),
    file: file.id,
    pageCount: pagesIn(offset, length),
    writable,
    ...chargeOfCaller(call, contextOf(call.tx, ioas.context).accountMm),
    ...(file.kind === 'dma-buf' ? FREE : {}),
  });
}

/** The file behind an fd of the caller that a struct names; undefined after a prediction was made. */
function fileOf(call: Call, fd: number): OpenFile | undefined {
  const table = call.tx.world.fdTables.get(call.process.fdTable);
  const entry = table?.fds.get(fd);
  const file = entry === undefined ? undefined : call.tx.world.files.get(entry.file);
  if (file === undefined) {
    if (table?.complete || fd < 0) call.fail('EBADF', 'map-file.fd');
    else call.unknown('the fd was opened outside of the recording');
    return undefined;
  }
  if (file.kind === 'unknown') call.unknown('what is behind the fd was not recorded');
  return file;
}
