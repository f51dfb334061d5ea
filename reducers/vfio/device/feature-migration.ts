import { add } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { MTTY_MIGRATION_FLAGS, mttyDataBytes, mttyPortsOfData } from '../../devices/vfio-mtty.js';
import { deviceKey } from '../facts.js';
import type { VfioDevice } from '../state.js';
import { portsOf, teachPorts } from './region.js';

/**
 * Features MIGRATION (which optional states the device has) and MIG_DATA_SIZE (how much its stop-copy data will be).
 * mtty has all states, and data of a size that its number of ports decides; other drivers tell their own.
 */

const DATA_OFFSET = 8;

export function migrationInfo(call: Call, device: VfioDevice): void {
  if (!call.succeed('feature.migration')) return;
  if (device.driver === 'mtty') call.out64(DATA_OFFSET, MTTY_MIGRATION_FLAGS, 'flags');
  else call.learn64(DATA_OFFSET, deviceKey(device.name, 'migration_flags'), 'flags');
}

export function dataSize(call: Call, device: VfioDevice): void {
  if (!call.succeed('feature.mig-data-size')) return;
  if (device.driver !== 'mtty') {
    call.outUnknown(add(call.arg, DATA_OFFSET), 8, 'how much state the device has now');
    return;
  }
  const ports = portsOf(call, device);
  if (ports !== undefined) {
    call.out64(DATA_OFFSET, mttyDataBytes(ports), 'stop_copy_length');
    return;
  }
  const told = find(call.memOut, add(call.arg, DATA_OFFSET), 8)?.u64(0);
  if (told === undefined) return;
  const many = mttyPortsOfData(Number(told)) ?? 1;
  call.out64(DATA_OFFSET, mttyDataBytes(many), 'stop_copy_length');
  teachPorts(call, device, many);
}
