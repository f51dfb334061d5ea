import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';

/**
 * Peer (b): what one writes in an afternoon: read line by line, match with regular expressions, keep nothing
 * but a sorted list of mappings. No files, no address space, no predictions, no snapshots.
 */
const NOTE = /pwrite64\(-1, "((?:\\x[0-9a-f]{2})*)", \d+, \d+\) = -1 EBADF/;
const IOCTL = /ioctl\((\d+)<([^>]*)>, ([A-Za-z0-9_ ]+), 0x[0-9a-f]+\) = (-?\d+)/;

interface Mapping {
  readonly start: bigint;
  readonly last: bigint;
}

export class MappingList {
  readonly #sorted: Mapping[] = [];

  #position(start: bigint): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#sorted[middle] as Mapping).start < start) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(start: bigint, lengthBytes: bigint): void {
    this.#sorted.splice(this.#position(start), 0, { start, last: start + lengthBytes - 1n });
  }

  remove(start: bigint, lengthBytes: bigint): void {
    const from = this.#position(start);
    let to = from;
    while (to < this.#sorted.length && (this.#sorted[to] as Mapping).last < start + lengthBytes) to++;
    this.#sorted.splice(from, to - from);
  }

  get size(): number {
    return this.#sorted.length;
  }
}

/** Reads a whole capture; gives the number of ioctls seen and mappings left. */
export async function readByRegex(path: string): Promise<{ calls: number; mappings: number }> {
  const lines = createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
  const mappings = new MappingList();
  let payload = Buffer.alloc(0);
  let calls = 0;
  for await (const line of lines) {
    const note = NOTE.exec(line);
    if (note) {
      payload = Buffer.from((note[1] as string).replaceAll('\\x', ''), 'hex');
      continue;
    }
    const call = IOCTL.exec(line);
    if (!call) continue;
    calls++;
    if (call[4] !== '0') continue;
    const name = call[3] as string;
    if (name.includes('VFIO_IOMMU_MAP_DMA')) mappings.add(payload.readBigUInt64LE(16), payload.readBigUInt64LE(24));
    else if (name.includes('VFIO_IOMMU_UNMAP_DMA'))
      mappings.remove(payload.readBigUInt64LE(8), payload.readBigUInt64LE(16));
    else if (name === 'IOMMU_IOAS_MAP') mappings.add(payload.readBigUInt64LE(32), payload.readBigUInt64LE(24));
    else if (name === 'IOMMU_IOAS_UNMAP') mappings.remove(payload.readBigUInt64LE(8), payload.readBigUInt64LE(16));
  }
  return { calls, mappings: mappings.size };
}
