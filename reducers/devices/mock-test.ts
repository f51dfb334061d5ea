import { lastOf } from '../../core/u64.js';
import type { Call } from '../call.js';
import { lookupIoas } from '../iommufd/context.js';
import { reserveIova } from '../iommufd/iopt.js';
import { type Rule, SELFTEST_FACT } from '../iommufd/rules.js';
import {
  ACCESS_TEST_RULES,
  accessPages,
  accessReplaceIoas,
  accessRw,
  createAccess,
  destroyAccessPages,
} from './mock-access.js';
import { CHECK_RULES, checkCache, checkIotlb, checkMap } from './mock-check.js';
import {
  DEVICE_TEST_RULES,
  mockDomain,
  mockDomainReplace,
  pasidAttach,
  pasidCheck,
  pasidDetach,
  pasidReplace,
} from './mock-device.js';
import { DIRTY_TEST_RULES, markDirty } from './mock-dirty.js';
import { DMABUF_RULES, dmabufGet, dmabufRevoke } from './mock-dmabuf.js';
import { EVENT_TEST_RULES, triggerFault, triggerVevent } from './mock-events.js';
import { checkRefs } from './mock-refs.js';
import { unknownSinceText } from '../answer.js';

/**
 * IOMMU_TEST_CMD, the self-tests' own call (drivers/iommu/iommufd/selftest.c, struct in iommufd_test.h): `op` at 4, an
 * object id or fd at 8, the operation's own fields from 16 on.
 */
export const TEST_RULES: readonly Rule[] = [
  { id: 'test.op', errno: 'EOPNOTSUPP', text: 'no such operation' },
  { id: 'test-reserve.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'test-reserve.overflow', errno: 'EOVERFLOW', text: 'start and length pass 2^64' },
  { id: 'test-reserve.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'test-reserve.ok', errno: '', text: 'the range is reserved' },
  { id: 'test-limit.small', errno: 'EINVAL', text: 'the limit is less than 12 bytes' },
  { id: 'test-limit.ok', errno: '', text: 'the limit is set' },
  ...DEVICE_TEST_RULES,
  ...CHECK_RULES,
  ...ACCESS_TEST_RULES,
  ...DIRTY_TEST_RULES,
  ...EVENT_TEST_RULES,
  ...DMABUF_RULES,
];

const OPERATIONS: readonly (((call: Call) => void) | undefined)[] = [
  undefined,
  addReserved,
  mockDomain,
  checkMap,
  checkRefs,
  createAccess,
  destroyAccessPages,
  accessPages,
  accessRw,
  memoryLimit,
  mockDomainReplace,
  accessReplaceIoas,
  mockDomain,
  markDirty,
  checkIotlb,
  triggerFault,
  checkCache,
  triggerVevent,
  pasidAttach,
  pasidReplace,
  pasidDetach,
  pasidCheck,
  dmabufGet,
  dmabufRevoke,
];

export function testCommand(call: Call): void {
  const run = OPERATIONS[call.struct.u32(4)];
  if (run === undefined) {
    call.fail('EOPNOTSUPP', 'test.op');
    return;
  }
  run(call);
  const { facts } = call.tx.world;
  if (call.recordedErrno === '' && call.recordedRet !== null && !facts.has(SELFTEST_FACT))
    facts.set(SELFTEST_FACT, Object.freeze({ value: 1, since: call.event.seq }));
}

function addReserved(call: Call): void {
  const s = call.struct;
  const start = s.u64(16);
  const length = s.u64(24);
  if (length === 0 && call.fail('EINVAL', 'test-reserve.length')) return;
  const last = lastOf(start, length);
  if (last === undefined) {
    call.fail('EOVERFLOW', 'test-reserve.overflow');
    return;
  }
  const ioas = lookupIoas(call, s.u32(8), 'test-reserve.ioas');
  if (ioas === undefined) return;
  if (ioas.unknownSince >= 0) call.unknown(unknownSinceText('mappings', ioas.unknownSince));
  call.trial();
  const refused = reserveIova(call.tx, ioas.id, start, last, `test:${call.event.seq}`);
  if (refused !== undefined) call.fail(refused.errno, refused.rule);
  else call.succeed('test-reserve.ok');
}

function memoryLimit(call: Call): void {
  if (call.struct.u32(16) < 12 && call.fail('EINVAL', 'test-limit.small')) return;
  // It only makes the kernel work in smaller batches: no answer depends on it.
  call.succeed('test-limit.ok');
}
