import { Bytes } from '../../core/bytes.js';
import { add } from '../../core/u64.js';
import type { Call } from '../call.js';
import { MOCK_RULES } from '../devices/mock-domain.js';
import { TEST_RULES, testCommand } from '../devices/mock-test.js';
import { explained } from '../explain.js';
import type { Families } from '../family.js';
import { ACCESS_RULES, releaseAccess } from './access.js';
import { DEVICE_RULES } from './attach.js';
import { ATTACH_RULES } from './attach-hwpt.js';
import { CHANGE_PROCESS_RULES, changeProcess } from './change-process.js';
import { CHARGE_RULES } from './charges.js';
import { COMPAT_RULES, compatIoctl } from './compat.js';
import { newContext } from './context.js';
import { DESTROY_RULES, destroy } from './destroy.js';
import { DIRTY_RULES, getDirtyBitmap, setDirtyTracking } from './dirty.js';
import { DOMAIN_RULES } from './domain.js';
import { EVENTQ_RULES, faultIo, faultQueueAlloc, releaseEventq, veventIo, veventqAlloc } from './eventq.js';
import { IOMMUFD_EXPLANATIONS } from './explain.js';
import { afterStranger, afterUnseen } from './forget.js';
import { HW_QUEUE_RULES, hwQueueAlloc } from './hw-queue.js';
import { getHwInfo, HW_INFO_RULES } from './hwinfo.js';
import { HWPT_RULES, hwptAlloc } from './hwpt.js';
import { hwptInvalidate, INVALIDATE_RULES } from './invalidate.js';
import { allowIovas, IOAS_RULES, ioasAlloc, iovaRanges, vfioIoas } from './ioas.js';
import { IOPT_RULES } from './iopt.js';
import { copy, MAP_RULES, map, mapFile } from './map.js';
import { MAP_FILE_RULES } from './map-file.js';
import { OPTION_RULES, option } from './option.js';
import { PAGES_RULES } from './pages.js';
import type { Rule } from './rules.js';
import { closeContext } from './teardown.js';
import { UNMAP_RULES, unmap } from './unmap.js';
import { probeBuffer } from './user-buffer.js';
import { VIOMMU_RULES, vdeviceAlloc, viommuAlloc } from './viommu.js';

/**
 * Files of /dev/iommu and the checks that all its commands share (`iommufd_fops_ioctl`), in the kernel's order:
 *
 * 1. a number outside the command range goes to the VFIO compatibility layer;
 * 2. the size field, the first four bytes, must be readable;
 * 3. the whole number must be a known command;
 * 4. the size must cover the fields that the first release of the command had;
 * 5. bytes beyond what this kernel knows must be zero;
 * 6. the struct must be readable; fields that the caller's struct lacks are 0.
 */
export const COMMON_RULES: readonly Rule[] = [
  { id: 'common.fault', errno: 'EFAULT', text: 'the struct cannot be read' },
  { id: 'common.number', errno: 'ENOTTY', text: 'no command has this number' },
  { id: 'common.size', errno: 'EINVAL', text: 'the struct is shorter than the command needs' },
  { id: 'common.tail', errno: 'E2BIG', text: 'bytes that this kernel does not know are not zero' },
];

/** Every rule of the family, by file, each file in the kernel's order. */
export const IOMMUFD_RULES: readonly Rule[] = [
  ...COMMON_RULES,
  ...IOAS_RULES,
  ...MAP_RULES,
  ...MAP_FILE_RULES,
  ...UNMAP_RULES,
  ...IOPT_RULES,
  ...PAGES_RULES,
  ...CHARGE_RULES,
  ...OPTION_RULES,
  ...CHANGE_PROCESS_RULES,
  ...DESTROY_RULES,
  ...DEVICE_RULES,
  ...ATTACH_RULES,
  ...DOMAIN_RULES,
  ...HWPT_RULES,
  ...DIRTY_RULES,
  ...INVALIDATE_RULES,
  ...HW_INFO_RULES,
  ...VIOMMU_RULES,
  ...HW_QUEUE_RULES,
  ...EVENTQ_RULES,
  ...ACCESS_RULES,
  ...COMPAT_RULES,
  ...MOCK_RULES,
  ...TEST_RULES,
];

interface Command {
  readonly request: number;
  readonly name: string;
  readonly sizeBytes: number;
  readonly minBytes: number;
  readonly run: (call: Call) => void;
}

const COMMAND_BASE = 0x80;
const COMMAND_COUNT = 33;

function command(nr: number, name: string, sizeBytes: number, minBytes: number, run: (call: Call) => void): Command {
  return { request: 0x3b00 | (COMMAND_BASE + nr), name, sizeBytes, minBytes, run };
}

const COMMANDS: readonly (Command | undefined)[] = (() => {
  const table = new Array<Command | undefined>(COMMAND_COUNT).fill(undefined);
  const all = [
    command(0x00, 'IOMMU_DESTROY', 8, 8, destroy),
    command(0x01, 'IOMMU_IOAS_ALLOC', 12, 12, ioasAlloc),
    command(0x02, 'IOMMU_IOAS_ALLOW_IOVAS', 24, 24, allowIovas),
    command(0x03, 'IOMMU_IOAS_COPY', 40, 40, copy),
    command(0x04, 'IOMMU_IOAS_IOVA_RANGES', 32, 32, iovaRanges),
    command(0x05, 'IOMMU_IOAS_MAP', 40, 40, map),
    command(0x06, 'IOMMU_IOAS_UNMAP', 24, 24, unmap),
    command(0x07, 'IOMMU_OPTION', 24, 24, option),
    command(0x08, 'IOMMU_VFIO_IOAS', 12, 12, vfioIoas),
    command(0x09, 'IOMMU_HWPT_ALLOC', 48, 24, hwptAlloc),
    command(0x0a, 'IOMMU_GET_HW_INFO', 40, 32, getHwInfo),
    command(0x0b, 'IOMMU_HWPT_SET_DIRTY_TRACKING', 16, 16, setDirtyTracking),
    command(0x0c, 'IOMMU_HWPT_GET_DIRTY_BITMAP', 48, 48, getDirtyBitmap),
    command(0x0d, 'IOMMU_HWPT_INVALIDATE', 32, 32, hwptInvalidate),
    command(0x0e, 'IOMMU_FAULT_QUEUE_ALLOC', 16, 16, faultQueueAlloc),
    command(0x0f, 'IOMMU_IOAS_MAP_FILE', 40, 40, mapFile),
    command(0x10, 'IOMMU_VIOMMU_ALLOC', 40, 24, viommuAlloc),
    command(0x11, 'IOMMU_VDEVICE_ALLOC', 24, 24, vdeviceAlloc),
    command(0x12, 'IOMMU_IOAS_CHANGE_PROCESS', 8, 8, changeProcess),
    command(0x13, 'IOMMU_VEVENTQ_ALLOC', 32, 28, veventqAlloc),
    command(0x14, 'IOMMU_HW_QUEUE_ALLOC', 40, 40, hwQueueAlloc),
    command(0x20, 'IOMMU_TEST_CMD', 72, 68, testCommand),
  ];
  for (const entry of all) table[(entry.request & 0xff) - COMMAND_BASE] = entry;
  return table;
})();

/** Addresses that no process can map (the default of vm.mmap_min_addr). */
const FIRST_MAPPABLE = 0x10000;

const NOT_RECORDED = 'payload not recorded';

/** Of a struct only its first bytes were recorded: the rest cannot be read, or was not shown. */
function payloadMissing(call: Call, needed: number): void {
  const shown = call.struct.length;
  const faults =
    call.arg < FIRST_MAPPABLE || probeBuffer(call, add(call.arg, shown), needed - shown, false) === 'fault';
  if (faults) call.fail('EFAULT', 'common.fault');
  else if (call.unknown(NOT_RECORDED)) afterUnseen(call);
}

function ioctl(call: Call): void {
  if (!call.tx.world.iommufds.has(call.file.object)) {
    call.unknown('the context behind the fd is not known');
    return;
  }
  const request = call.event.kind === 'ioctl' ? call.event.request : 0;
  const nr = (request & 0xff) - COMMAND_BASE;
  if (nr < 0 || nr >= COMMAND_COUNT) {
    compatIoctl(call, request);
    return;
  }
  if (call.struct.length < 4) {
    payloadMissing(call, 4);
    return;
  }
  const entry = COMMANDS[nr];
  if (entry === undefined || entry.request !== request) {
    call.fail('ENOTTY', 'common.number');
    return;
  }
  const userBytes = call.struct.u32(0);
  if (userBytes < entry.minBytes && call.fail('EINVAL', 'common.size')) return;
  if (userBytes > entry.sizeBytes && !tailIsZero(call, entry.sizeBytes, userBytes)) return;
  const needed = Math.min(userBytes, entry.sizeBytes);
  if (call.struct.length < needed) {
    payloadMissing(call, needed);
    return;
  }
  call.extentBytes = needed;
  if (needed < entry.sizeBytes) {
    const padded = new Uint8Array(entry.sizeBytes);
    call.struct.slice(0, needed).copyTo(padded, 0);
    call.struct = new Bytes(padded);
  }
  entry.run(call);
  if (call.unknownReason !== '') afterStranger(call);
}

/**
 * Whether the handler may go on: the bytes from `from` to `to` are zero. Where a recording does not hold all of them, any
 * answer but E2BIG and EFAULT shows it, for the kernel looks at them before the handler runs.
 */
function tailIsZero(call: Call, from: number, to: number): boolean {
  const known = Math.min(to, call.struct.length);
  if (known > from && !call.struct.isZero(from, known - from)) return !call.fail('E2BIG', 'common.tail');
  if (known === to) return true;
  if (probeBuffer(call, add(call.arg, Math.max(known, from)), 1, false) === 'fault')
    return !call.fail('EFAULT', 'common.fault');
  return !call.failedByFact('E2BIG', NOT_RECORDED) && !call.failedByFact('EFAULT', NOT_RECORDED);
}

/** What the dispatcher needs of /dev/iommu and of the files that its commands make. */
export const iommufdFamilies: Families = {
  iommufd: {
    open(tx, file, event) {
      const context = newContext(tx, file.complete ? -1 : event.seq);
      return Object.freeze({ ...file, object: context.id });
    },
    ioctl,
    explain: (call) => explained(IOMMUFD_EXPLANATIONS, call),
    release(tx, file) {
      if (tx.world.iommufds.has(file.object)) closeContext(tx, file.object);
    },
  },
  'iommufd-fault': { io: faultIo, release: releaseEventq },
  'iommufd-veventq': { io: veventIo, release: releaseEventq },
  'iommufd-access': { release: releaseAccess },
};
