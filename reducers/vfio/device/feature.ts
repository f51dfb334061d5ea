import type { Call } from '../../call.js';
import { deviceOf, patchDevice } from '../devices.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { takeStruct } from '../payload.js';
import { tellDriver } from '../driver.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import {
  FEATURE_BUS_MASTER,
  FEATURE_DMA_BUF,
  FEATURE_DMA_LOGGING_REPORT,
  FEATURE_DMA_LOGGING_START,
  FEATURE_DMA_LOGGING_STOP,
  FEATURE_GET,
  FEATURE_LOW_POWER_ENTRY,
  FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  FEATURE_LOW_POWER_EXIT,
  FEATURE_MASK,
  FEATURE_MIG_DATA_SIZE,
  FEATURE_MIG_DEVICE_STATE,
  FEATURE_MIG_PRECOPY_INFO_V2,
  FEATURE_MIGRATION,
  FEATURE_PCI_VF_TOKEN,
  FEATURE_PROBE,
  FEATURE_SET,
  MIGRATION_PRE_COPY,
} from '../uapi.js';
import { displayOf } from './display.js';
import { dataSize, migrationInfo } from './feature-migration.js';
import { dmaBuf } from './feature-dmabuf.js';
import { loggingReport, loggingStart } from './feature-logging.js';
import { getMigrationState, migrationFlags, setMigrationState } from './migration.js';

/**
 * VFIO_DEVICE_FEATURE (`vfio_ioctl_device_feature`). Struct: argsz 0, flags 4 (feature number, GET, SET, PROBE), data 8.
 *
 * First the header; then whether the device has the feature at all; then whether the feature can be read or written as
 * asked; PROBE ends there with success; then whether the data fits. Migration, DMA logging, VF token and dma-buf
 * depend on the device, its driver and the kernel's configuration, so their presence is a fact that a success
 * teaches.
 */
export const FEATURE_RULES = {
  argsz: { id: 'feature.argsz', errno: 'EINVAL', text: 'argsz is less than 8' },
  flags: { id: 'feature.flags', errno: 'EINVAL', text: 'an unknown flag, or GET and SET without PROBE' },
  noPreCopy: {
    id: 'feature.no-pre-copy',
    errno: 'EINVAL',
    text: 'MIG_PRECOPY_INFOv2 of a device that has no pre-copy',
  },
  unsupported: { id: 'feature.unsupported', errno: 'ENOTTY', text: 'the device does not have the feature' },
  operation: { id: 'feature.operation', errno: 'EINVAL', text: 'the feature cannot be read, or not be written' },
  neither: { id: 'feature.neither', errno: 'EINVAL', text: 'neither GET nor SET nor PROBE' },
  dataSize: { id: 'feature.data-size', errno: 'EINVAL', text: 'argsz has no room for the data' },
  lowPowerAgain: { id: 'feature.low-power-again', errno: 'EINVAL', text: 'the device is in low power already' },
  wakeupFd: { id: 'feature.wakeup-fd', errno: 'EINVAL', text: 'the wakeup fd is negative or no eventfd' },
  wakeupBadFd: { id: 'feature.wakeup-bad-fd', errno: 'EBADF', text: 'the wakeup fd is not open' },
} as const satisfies Record<string, Rule>;

const R = FEATURE_RULES;
const HEAD_BYTES = 8;
const KNOWN_FLAGS = FEATURE_MASK | FEATURE_GET | FEATURE_SET | FEATURE_PROBE;

/** What can be done with a feature, and how much data that takes. */
interface Shape {
  readonly ops: number;
  readonly dataBytes: number;
}

const SHAPES: ReadonlyMap<number, Shape> = new Map([
  [FEATURE_PCI_VF_TOKEN, { ops: FEATURE_SET, dataBytes: 16 }],
  [FEATURE_MIGRATION, { ops: FEATURE_GET, dataBytes: 8 }],
  [FEATURE_MIG_DEVICE_STATE, { ops: FEATURE_GET | FEATURE_SET, dataBytes: 8 }],
  [FEATURE_LOW_POWER_ENTRY, { ops: FEATURE_SET, dataBytes: 0 }],
  [FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP, { ops: FEATURE_SET, dataBytes: 8 }],
  [FEATURE_LOW_POWER_EXIT, { ops: FEATURE_SET, dataBytes: 0 }],
  [FEATURE_DMA_LOGGING_START, { ops: FEATURE_SET, dataBytes: 24 }],
  [FEATURE_DMA_LOGGING_STOP, { ops: FEATURE_SET, dataBytes: 0 }],
  [FEATURE_DMA_LOGGING_REPORT, { ops: FEATURE_GET, dataBytes: 32 }],
  [FEATURE_MIG_DATA_SIZE, { ops: FEATURE_GET, dataBytes: 8 }],
  [FEATURE_BUS_MASTER, { ops: FEATURE_SET, dataBytes: 4 }],
  [FEATURE_DMA_BUF, { ops: FEATURE_GET, dataBytes: 16 }],
  [FEATURE_MIG_PRECOPY_INFO_V2, { ops: FEATURE_SET, dataBytes: 0 }],
]);

export function feature(call: Call): void {
  const struct = takeStruct(call, HEAD_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = HEAD_BYTES;
  const flags = struct.u32(4);
  const probe = (flags & FEATURE_PROBE) !== 0;
  const both = (flags & FEATURE_GET) !== 0 && (flags & FEATURE_SET) !== 0;
  if (((flags & ~KNOWN_FLAGS) !== 0 || (both && !probe)) && refuse(call, R.flags)) return;
  const number = flags & FEATURE_MASK;
  const shape = SHAPES.get(number);
  if (present(call, device, number)) return;
  if (shape === undefined) {
    call.unknown('feature not modelled');
    return;
  }
  if ((flags & (FEATURE_GET | FEATURE_SET) & ~shape.ops) !== 0 && refuse(call, R.operation)) return;
  if (probe) {
    call.succeed('feature.probe');
    return;
  }
  if ((flags & (FEATURE_GET | FEATURE_SET)) === 0 && refuse(call, R.neither)) return;
  if (struct.u32(0) - HEAD_BYTES < shape.dataBytes && refuse(call, R.dataSize)) return;
  if (!struct.has(HEAD_BYTES, shape.dataBytes)) {
    call.unknown('payload not recorded');
    return;
  }
  call.extentBytes = HEAD_BYTES + shape.dataBytes;
  perform(call, deviceOf(call), number, (flags & FEATURE_SET) !== 0);
}

// ---- which features a device has ---------------------------------------------------------------------------

/** Facts that decide about several features at once. */
const FACT_OF: ReadonlyMap<number, string> = new Map([
  [FEATURE_PCI_VF_TOKEN, 'vf_token'],
  [FEATURE_MIGRATION, 'migration'],
  [FEATURE_MIG_DEVICE_STATE, 'migration'],
  [FEATURE_MIG_DATA_SIZE, 'migration'],
  [FEATURE_DMA_LOGGING_START, 'dma_logging'],
  [FEATURE_DMA_LOGGING_STOP, 'dma_logging'],
  [FEATURE_DMA_LOGGING_REPORT, 'dma_logging'],
  [FEATURE_BUS_MASTER, 'bus_master'],
  [FEATURE_DMA_BUF, 'dma_buf'],
]);

/** Errors of the checks that come after the presence of a feature. */
const LATER_ERRORS: readonly string[] = ['EINVAL', 'EFAULT', 'ENODEV', 'EOVERFLOW', 'E2BIG', 'EBUSY'];

const MTTY_HAS: readonly string[] = ['migration', 'dma_logging'];

/** Predicts the failure for a feature that the device does not have. True: the call ends here. */
function present(call: Call, device: VfioDevice, number: number): boolean {
  if (number === FEATURE_MIG_PRECOPY_INFO_V2) {
    const flags = migrationFlags(call, device) ?? 0;
    return (flags & MIGRATION_PRE_COPY) === 0 && call.failUnlessLearned(R.noPreCopy.errno, R.noPreCopy.id);
  }
  const lowPower = number >= FEATURE_LOW_POWER_ENTRY && number <= FEATURE_LOW_POWER_EXIT;
  if (lowPower && device.driver === 'unknown') return powerShows(call, device);
  if (lowPower) return device.driver !== 'pci' && refuse(call, R.unsupported);
  const fact = FACT_OF.get(number);
  if (fact === undefined) return refuse(call, R.unsupported);
  if (device.driver === 'mtty') return !MTTY_HAS.includes(fact) && refuse(call, R.unsupported);
  if (displayOf(device) !== undefined) return refuse(call, R.unsupported);
  const key = deviceKey(device.name, `feature/${fact}`);
  if (smallFact(call.tx, key) === 1) return false;
  // What comes after this check shows the feature too.
  const shown = LATER_ERRORS.some((errno) =>
    call.failedByFact(errno, 'whether the device has the feature was not shown yet'),
  );
  if (!shown && call.failUnlessLearned(R.unsupported.errno, R.unsupported.id)) return true;
  teach(call, key, 1);
  // Of the mediated devices only mtty migrates.
  if (device.driver === 'mdev' && fact === 'migration') tellDriver(call.tx, device, 'mtty', call.event.seq);
  return shown;
}

/** All PCI devices have the features of low power, no mediated device has. */
function powerShows(call: Call, device: VfioDevice): boolean {
  const happened = call.succeedByFact('feature.probe', 'the driver of the device is not known');
  if (happened) tellDriver(call.tx, device, 'pci', call.event.seq);
  else if (call.recordedErrno === 'ENOTTY') tellDriver(call.tx, device, 'mdev', call.event.seq);
  return !happened;
}

// ---- what they do ------------------------------------------------------------------------------------------

function perform(call: Call, device: VfioDevice, number: number, set: boolean): void {
  switch (number) {
    case FEATURE_MIGRATION:
      return migrationInfo(call, device);
    case FEATURE_MIG_DEVICE_STATE:
      return set ? setMigrationState(call, device) : getMigrationState(call, device);
    case FEATURE_MIG_DATA_SIZE:
      return dataSize(call, device);
    case FEATURE_MIG_PRECOPY_INFO_V2:
      if (call.succeed('feature.precopy-info-v2'))
        patchDevice(call.tx, device.name, { migration: Object.freeze({ ...device.migration, precopyV2: true }) });
      return;
    case FEATURE_DMA_LOGGING_START:
      return loggingStart(call, device);
    case FEATURE_DMA_LOGGING_REPORT:
      return loggingReport(call, device);
    case FEATURE_DMA_LOGGING_STOP:
      if (device.driver === 'mtty') call.succeed('feature.logging-stop');
      else call.unknown('whether the device logs DMA now is the driver’s affair');
      return;
    case FEATURE_LOW_POWER_ENTRY:
      return enterLowPower(call, device, true);
    case FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
      return enterWithWakeup(call, device);
    case FEATURE_LOW_POWER_EXIT:
      if (call.succeed('feature.low-power-exit')) patchDevice(call.tx, device.name, { lowPower: false });
      return;
    case FEATURE_PCI_VF_TOKEN:
      call.succeed('feature.vf-token');
      return;
    case FEATURE_DMA_BUF:
      return dmaBuf(call, device);
    default:
      call.unknown('not modelled');
  }
}

/** `after` is null where the device may have left low power by itself by the next call. */
function enterLowPower(call: Call, device: VfioDevice, after: boolean | null): void {
  if (device.lowPower === null) call.unknown('whether the device woke up since is not in the recording');
  else if (device.lowPower && refuse(call, R.lowPowerAgain)) return;
  if (call.succeed('feature.low-power-entry')) patchDevice(call.tx, device.name, { lowPower: after });
}

function enterWithWakeup(call: Call, device: VfioDevice): void {
  const fd = call.struct.s32(HEAD_BYTES);
  if (fd < 0 && refuse(call, R.wakeupFd)) return;
  const file = lookFd(call, fd);
  if (file === 'unknown') call.unknown(fdUnknown(fd));
  else if (file === 'none') {
    if (refuse(call, R.wakeupBadFd)) return;
  } else if (file.kind !== 'eventfd' && refuse(call, R.wakeupFd)) return;
  enterLowPower(call, device, null);
}
