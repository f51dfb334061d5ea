import { enableMapSet, produce } from 'immer';
import type { Event, IoctlEvent } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';

/**
 * Peer (a): the textbook event-sourcing fold, one immer `produce` per event over plain Maps. It does less than the
 * reducers do (it looks up exact keys instead of checking overlaps, and predicts nothing), so the ratio flatters it.
 */
interface Mapping {
  readonly start: U64;
  readonly lengthBytes: U64;
  readonly va: U64;
  readonly since: number;
}

interface PeerState {
  readonly files: Map<number, string>;
  readonly areas: Map<U64, Mapping>;
  readonly mappedCount: number;
}

const MAP_DMA = 0x3b71;
const UNMAP_DMA = 0x3b72;
const IOAS_MAP = 0x3b85;
const IOAS_UNMAP = 0x3b86;

enableMapSet();

function ioctl(draft: { areas: Map<U64, Mapping>; mappedCount: number }, event: IoctlEvent): void {
  const struct = event.memIn[0]?.bytes;
  if (struct === undefined || event.ret !== 0) return;
  const type1 = event.request === MAP_DMA;
  if (type1 || event.request === IOAS_MAP) {
    const start = struct.u64(type1 ? 16 : 32);
    draft.areas.set(start, { start, lengthBytes: struct.u64(24), va: struct.u64(type1 ? 8 : 16), since: event.seq });
    draft.mappedCount++;
  } else if (event.request === UNMAP_DMA || event.request === IOAS_UNMAP) {
    draft.areas.delete(struct.u64(8));
    draft.mappedCount--;
  }
}

/** Folds the events; gives the number of mappings left. */
export function foldWithImmer(events: Iterable<Event>): number {
  let state: PeerState = { files: new Map(), areas: new Map(), mappedCount: 0 };
  for (const event of events) {
    state = produce(state, (draft) => {
      if (event.kind === 'open') draft.files.set(Number(event.ret), event.path);
      else if (event.kind === 'ioctl') ioctl(draft, event);
    });
  }
  return state.areas.size;
}
