import type { Bytes } from '../../../core/bytes.js';
import type { IoEvent } from '../../../core/event.js';
import type { Call } from '../../call.js';
import { patchDevice } from '../devices.js';
import type { VfioDevice } from '../state.js';
import { PCI_CONFIG_REGION, PCI_OFFSET_SHIFT } from '../uapi.js';
import { keepConfig } from './config-space.js';

/**
 * Reads and writes of a device's regions (pread and pwrite on its file). They are no commands and get no verdict,
 * but those of PCI config space tell and change what later commands depend on: the first bytes hold the
 * capabilities (how many vectors, where the MSI-X table lies), and the command register switches memory decoding,
 * without which a BAR cannot be reached or mapped for DMA.
 */

const REGION_SPAN = 2n ** BigInt(PCI_OFFSET_SHIFT);
const COMMAND = 4;

export function regionIo(call: Call): void {
  const event = call.event as IoEvent;
  const device = call.tx.world.devices.get(call.file.objectKey);
  const happened = event.ret !== null && event.ret !== -1;
  if (device === undefined || event.offset === null || !happened) return;
  const place = BigInt(event.offset);
  if (Number(place / REGION_SPAN) !== PCI_CONFIG_REGION) return;
  const offset = Number(place % REGION_SPAN);
  if (event.call.includes('write')) written(call, device, offset, event.data);
  else keepConfig(call, device, offset, event.data);
}

/** The bytes that the user wrote into the command register take effect, each by itself. */
function written(call: Call, device: VfioDevice, offset: number, data: Bytes): void {
  let command = device.pciCommand;
  for (let i = 0; i < 2; i++) {
    const at = COMMAND + i - offset;
    if (at < 0 || at >= data.length) continue;
    const shift = 8 * i;
    command = (command & ~(0xff << shift)) | (data.u8(at) << shift);
  }
  if (command !== device.pciCommand) patchDevice(call.tx, device.name, { pciCommand: command });
}
