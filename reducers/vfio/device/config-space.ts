import { Bytes } from '../../../core/bytes.js';
import type { Call } from '../../call.js';
import type { Tx } from '../../tx.js';
import { deviceKey } from '../facts.js';
import type { VfioDevice } from '../state.js';

/**
 * What reads have shown of the first 256 bytes of a device's PCI config space, byte by byte. Of a byte that was shown more
 * than once the first look is kept: what the model asks for never changes (capabilities, their fixed fields, the
 * class, the interrupt pin). The fact holds the values, then a byte of 0 or 1 for each that says whether it was shown.
 */
const SPACE_BYTES = 256;
const BAR_REGISTERS = 0x10;
const BAR_IS_PORTS = 1;
const CAPABILITIES_POINTER = 0x34;
const MAX_CAPABILITIES = 48;

export const CAP_PM = 0x01;
export const CAP_MSI = 0x05;
export const CAP_EXPRESS = 0x10;
export const CAP_MSIX = 0x11;

/** Bytes of config space; those that were never shown read as undefined. */
export class ConfigView {
  readonly #bytes: Bytes;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
  }

  u8(at: number): number | undefined {
    return this.#bytes.u8(SPACE_BYTES + at) === 0 ? undefined : this.#bytes.u8(at);
  }

  u16(at: number): number | undefined {
    const [low, high] = [this.u8(at), this.u8(at + 1)];
    return low === undefined || high === undefined ? undefined : low | (high << 8);
  }

  u32(at: number): number | undefined {
    const [low, high] = [this.u16(at), this.u16(at + 2)];
    return low === undefined || high === undefined ? undefined : (low | (high << 16)) >>> 0;
  }

  /** Offset of a capability, 0 when there is none, undefined when the reads do not tell. */
  capability(id: number): number | undefined {
    let at = this.u8(CAPABILITIES_POINTER);
    for (let hops = 0; hops < MAX_CAPABILITIES; hops++) {
      if (at === undefined) return undefined;
      at &= 0xfc;
      if (at === 0) return 0;
      const found = this.u8(at);
      if (found === undefined || found === id) return found === undefined ? undefined : at;
      at = this.u8(at + 1);
    }
    return 0;
  }
}

const NOTHING = new ConfigView(new Bytes(new Uint8Array(2 * SPACE_BYTES)));

export function configOf(tx: Tx, device: VfioDevice): ConfigView {
  const value = tx.world.facts.get(deviceKey(device.name, 'config'))?.value;
  return value instanceof Bytes && value.length === 2 * SPACE_BYTES ? new ConfigView(value) : NOTHING;
}

/** A read of config space at `offset` gave `data`. */
export function keepConfig(call: Call, device: VfioDevice, offset: number, data: Bytes): void {
  const key = deviceKey(device.name, 'config');
  const known = call.tx.world.facts.get(key)?.value;
  const before = known instanceof Bytes ? known : undefined;
  const end = Math.min(SPACE_BYTES, offset + data.length);
  let bytes: Uint8Array | undefined;
  for (let at = offset; at < end; at++) {
    if (before !== undefined && before.u8(SPACE_BYTES + at) !== 0) continue;
    bytes ??= before?.toUint8Array() ?? new Uint8Array(2 * SPACE_BYTES);
    bytes[at] = data.u8(at - offset);
    bytes[SPACE_BYTES + at] = 1;
  }
  if (bytes !== undefined)
    call.tx.world.facts.set(key, Object.freeze({ value: new Bytes(bytes), since: call.event.seq }));
}

/** Whether a BAR is one of I/O ports; undefined when its register was not read. */
export function isPorts(config: ConfigView, bar: number): boolean | undefined {
  const register = config.u8(BAR_REGISTERS + 4 * bar);
  return register === undefined ? undefined : (register & BAR_IS_PORTS) !== 0;
}

/** Where the MSI-X table of a PCI device lies: BAR, offset, bytes. undefined when config space was not read. */
export function msixTable(
  tx: Tx,
  device: VfioDevice,
): { bar: number; start: number; bytes: number } | 'none' | undefined {
  const config = configOf(tx, device);
  const at = config.capability(CAP_MSIX);
  if (at === undefined) return undefined;
  if (at === 0) return 'none';
  const [control, table] = [config.u16(at + 2), config.u32(at + 4)];
  if (control === undefined || table === undefined) return undefined;
  return { bar: table & 7, start: (table & ~7) >>> 0, bytes: ((control & 0x7ff) + 1) * 16 };
}
