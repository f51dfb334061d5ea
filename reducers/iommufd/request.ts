import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';

/** What a MAP, MAP_FILE, COPY or UNMAP asks for, in whichever of their structs, for explanations. */
export interface DmaRequest {
  /** Object id of the IOAS that would change. */
  readonly ioas: number;
  /** Means something when `fixed`; else the kernel chooses. */
  readonly iova: U64;
  readonly fixed: boolean;
  readonly length: U64;
  /** First byte of the memory: user address, or offset in the file. 0 for UNMAP and COPY. */
  readonly address: U64;
  /** IOVA in the source, for COPY. */
  readonly from: U64 | undefined;
  /** fd of MAP_FILE, else -1. */
  readonly fd: number;
  /** 1 readable by the device, 2 writable. */
  readonly prot: number;
}

const FIXED_IOVA = 1;
const NONE = { address: 0, from: undefined, fd: -1, prot: 0, fixed: true } as const;

/** The request of a call whose struct is there; undefined for other commands. */
export function dmaRequest(call: Call): DmaRequest | undefined {
  const s = call.struct;
  switch (call.name) {
    case 'IOMMU_IOAS_MAP':
    case 'IOMMU_IOAS_MAP_FILE': {
      if (!s.has(0, 40)) return undefined;
      const fd = call.name === 'IOMMU_IOAS_MAP' ? -1 : s.s32(12);
      const [address, length, iova] = [s.u64(16), s.u64(24), s.u64(32)];
      return { ...NONE, ioas: s.u32(8), iova, fixed: isFixed(call), length, address, fd, prot: rights(s.u32(4)) };
    }
    case 'IOMMU_IOAS_COPY':
      if (!s.has(0, 40)) return undefined;
      return {
        ...NONE,
        ioas: s.u32(8),
        iova: s.u64(24),
        fixed: isFixed(call),
        length: s.u64(16),
        from: s.u64(32),
        prot: rights(s.u32(4)),
      };
    case 'IOMMU_IOAS_UNMAP':
      return s.has(0, 24) ? { ...NONE, ioas: s.u32(4), iova: s.u64(8), length: s.u64(16) } : undefined;
    case 'VFIO_IOMMU_MAP_DMA':
      if (!s.has(0, 32)) return undefined;
      return {
        ...NONE,
        ioas: compatIoas(call),
        iova: s.u64(16),
        length: s.u64(24),
        address: s.u64(8),
        prot: s.u32(4) & 3,
      };
    case 'VFIO_IOMMU_UNMAP_DMA':
      return s.has(0, 24) ? { ...NONE, ioas: compatIoas(call), iova: s.u64(8), length: s.u64(16) } : undefined;
    default:
      return undefined;
  }
}

function compatIoas(call: Call): number {
  return call.tx.world.iommufds.get(call.file.object)?.vfioIoas ?? 0;
}

function isFixed(call: Call): boolean {
  return (call.struct.u32(4) & FIXED_IOVA) !== 0;
}

/** READABLE is 4 and WRITEABLE 2. */
function rights(flags: number): number {
  return (flags & 4 ? 1 : 0) | (flags & 2);
}
