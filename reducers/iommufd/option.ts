import { add, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import type { Creds } from '../files/creds.js';
import type { Tx } from '../tx.js';
import { contextOf, hasTakenIds, lookupIoas, patchContext, patchIoas } from './context.js';
import { recalculateAlignment } from './domain.js';
import { checkAlignment, PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { Ioas } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * IOMMU_OPTION (drivers/iommu/iommufd/main.c, ioas.c).
 *
 * RLIMIT_MODE belongs to the context and says whom pinned pages are charged to: 0 the user, 1 the address space, as VFIO
 * does. It can be set, with CAP_SYS_RESOURCE, while the context has no objects and no reserved ids. HUGE_PAGES belongs to an IOAS: without
 * huge pages everything is aligned to 4 KiB, and they cannot be turned off while a domain maps anything.
 */
export const OPTION_RULES: readonly Rule[] = [
  { id: 'option.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'option.id', errno: 'EOPNOTSUPP', text: 'no such option' },
  { id: 'option.rlimit-object', errno: 'EOPNOTSUPP', text: 'RLIMIT_MODE names an object' },
  { id: 'option.rlimit-capability', errno: 'EPERM', text: 'RLIMIT_MODE is set, and CAP_SYS_RESOURCE is missing' },
  { id: 'option.rlimit-busy', errno: 'EBUSY', text: 'the context has objects' },
  { id: 'option.rlimit-value', errno: 'EINVAL', text: 'the mode is neither 0 nor 1' },
  { id: 'option.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'option.huge-in-use', errno: 'EINVAL', text: 'domains have areas mapped' },
  { id: 'option.huge-value', errno: 'EINVAL', text: 'the value is neither 0 nor 1' },
  { id: 'option.op', errno: 'EOPNOTSUPP', text: 'neither get nor set' },
  { id: 'option.ok', errno: '', text: 'the value is told or set' },
];

const RLIMIT_MODE = 0;
const HUGE_PAGES = 1;
const OP_SET = 0;
const OP_GET = 1;

export function option(call: Call): void {
  const s = call.struct;
  if (s.u16(10) !== 0 && call.fail('EOPNOTSUPP', 'option.reserved')) return;
  const op = s.u16(8);
  const value = s.u64(16);
  switch (s.u32(4)) {
    case RLIMIT_MODE:
      rlimitMode(call, op, value);
      return;
    case HUGE_PAGES: {
      const ioas = lookupIoas(call, s.u32(12), 'option.ioas');
      if (ioas !== undefined) hugePages(call, ioas, op, value);
      return;
    }
    default:
      call.fail('EOPNOTSUPP', 'option.id');
  }
}

function rlimitMode(call: Call, op: number, value: U64): void {
  if (call.struct.u32(12) !== 0 && call.fail('EOPNOTSUPP', 'option.rlimit-object')) return;
  const context = contextOf(call.tx, call.file.object);
  if (op === OP_GET) {
    if (call.succeed('option.ok')) outValue(call, context.accountMm ? 1 : 0, context.unknownSince);
    return;
  }
  if (op !== OP_SET) {
    call.fail('EOPNOTSUPP', 'option.op');
    return;
  }
  if (mayNotSet(call)) return;
  if (hasTakenIds(context) && call.fail('EBUSY', 'option.rlimit-busy')) return;
  if (context.unknownSince >= 0) call.unknown(unknownSinceText('objects', context.unknownSince));
  if (value > 1 && call.fail('EINVAL', 'option.rlimit-value')) return;
  if (call.succeed('option.ok')) patchContext(call.tx, context.id, { accountMm: value === 1 });
}

/** `since`: the event since which the option may have been set unseen, or -1. */
function outValue(call: Call, value: number, since: number): void {
  if (since < 0) call.out64(16, value, 'val64');
  else call.outUnknown(add(call.arg, 16), 8, unknownSinceText('options', since));
}

/** Predicts EPERM where the caller lacks CAP_SYS_RESOURCE; true when the caller should stop. What an answer shows is kept. */
function mayNotSet(call: Call): boolean {
  const { creds } = call.process;
  switch (creds.sysResource) {
    case 'yes':
      return false;
    case 'no':
      return call.fail('EPERM', 'option.rlimit-capability');
    case 'unlikely':
      if (call.failUnlessLearned('EPERM', 'option.rlimit-capability')) return true;
      tellCreds(call, { sysResource: 'yes' });
      return false;
    case 'unknown':
      if (!call.failedByFact('EPERM', 'CAP_SYS_RESOURCE was not recorded (capget)')) return false;
      tellCreds(call, { sysResource: 'unlikely' });
      return true;
  }
}

/** Keeps what an answer showed of the caller. */
function tellCreds(call: Call, change: Partial<Creds>): void {
  const { process } = call;
  const creds = Object.freeze({ ...process.creds, ...change });
  call.tx.world.processes.set(process.pid, Object.freeze({ ...process, creds }));
}

function hugePages(call: Call, ioas: Ioas, op: number, value: U64): void {
  if (op === OP_GET) {
    if (call.succeed('option.ok')) outValue(call, ioas.noLargePages ? 0 : 1, ioas.unknownSince);
    return;
  }
  if (op !== OP_SET) {
    call.fail('EOPNOTSUPP', 'option.op');
    return;
  }
  if (value === 0) {
    if (!refuseSmallPages(call, ioas) && call.succeed('option.ok')) setLargePages(call.tx, ioas, false);
  } else if (value === 1) {
    if (call.succeed('option.ok')) setLargePages(call.tx, ioas, true);
  } else call.fail('EINVAL', 'option.huge-value');
}

/** Predicts a failure of `iopt_disable_large_pages`; true when the caller should stop. */
export function refuseSmallPages(call: Call, ioas: Ioas): boolean {
  if (ioas.noLargePages) return false;
  if (ioas.hwpts.length > 0 && ioas.areas.size > 0) return call.fail('EINVAL', 'option.huge-in-use');
  if (ioas.unknownSince >= 0) {
    call.unknown(unknownSinceText('mappings', ioas.unknownSince));
    return false;
  }
  const refused = ioas.alignment < PAGE ? checkAlignment(ioas, PAGE) : undefined;
  return refused !== undefined && call.fail(refused.errno, refused.rule);
}

export function setLargePages(tx: Tx, ioas: Ioas, large: boolean): void {
  if (ioas.noLargePages === !large) return;
  patchIoas(tx, ioas.id, { noLargePages: !large });
  recalculateAlignment(tx, ioas.id);
}
