import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { probeBuffer } from './user-buffer.js';

/** Driver data that the kernel would see, or why it sees none. */
export type UserData = { readonly bytes: Bytes } | { readonly errno: string; readonly rule: string };

/** Rules that a bad length and a bad address break. */
export interface UserDataRules {
  readonly size: string;
  readonly fault: string;
}

/**
 * Reads a driver's struct of `sizeBytes` that the caller gave with `lengthBytes`
 * (`iommu_copy_struct_from_user`): shorter than `minBytes` or longer than the kernel's is EINVAL, what the caller
 * lacks is 0. Undefined where the recording does not hold the bytes.
 */
export function readUserData(
  call: Call,
  address: U64,
  lengthBytes: number,
  sizeBytes: number,
  minBytes: number,
  rules: UserDataRules,
): UserData | undefined {
  if (lengthBytes < minBytes || sizeBytes < lengthBytes) return { errno: 'EINVAL', rule: rules.size };
  const given = call.bytesAt(address, lengthBytes);
  if (given === undefined) {
    const faults = probeBuffer(call, address, lengthBytes, false) === 'fault';
    return faults ? { errno: 'EFAULT', rule: rules.fault } : undefined;
  }
  if (lengthBytes === sizeBytes) return { bytes: given };
  const padded = new Uint8Array(sizeBytes);
  given.copyTo(padded, 0);
  return { bytes: new Bytes(padded) };
}
