import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';

/** Driver data that the kernel would see, or why it sees none. */
export type UserData = { readonly bytes: Bytes } | { readonly errno: string; readonly rule: string };

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
  rule: string,
): UserData | undefined {
  if (lengthBytes < minBytes || sizeBytes < lengthBytes) return { errno: 'EINVAL', rule };
  if (address < 4096) return { errno: 'EFAULT', rule };
  const given = call.bytesAt(address, lengthBytes);
  if (given === undefined) return undefined;
  if (lengthBytes === sizeBytes) return { bytes: given };
  const padded = new Uint8Array(sizeBytes);
  given.copyTo(padded, 0);
  return { bytes: new Bytes(padded) };
}
