import type { Event } from '../../core/event.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { explained } from '../explain.js';
import type { Families } from '../family.js';
import type { OpenFile, Process } from '../files/state.js';
import { pageTableOf } from '../memory/pagetable.js';
import type { Tx } from '../tx.js';
import { releaseDevice } from './devices.js';
import { dmirrorIoctl } from './dmirror.js';
import { DMIRROR_EXPLANATIONS } from './explain.js';
import type { Mirror } from './state.js';

/** The files of the HMM test driver. An open mirrors the space of the caller; the last close ends the mirror. */
export const hmmFamilies: Families = {
  dmirror: {
    open: openMirror,
    ioctl: dmirrorIoctl,
    explain: (call) => explained(DMIRROR_EXPLANATIONS, call),
    release: closeMirror,
  },
};

function openMirror(tx: Tx, file: OpenFile, _event: Event, process: Process): OpenFile {
  const mirror: Mirror = Object.freeze({
    id: tx.nextId('mirrors'),
    device: Number(/(\d+)$/.exec(file.path)?.[1] ?? 0) & 3,
    space: process.space,
    complete: file.complete,
    failAlloc: false,
    ptes: tx.adopt(OrderedMap.numeric<number, never>()),
    invalidations: 0,
    unseenSince: -1,
    ignored: 0,
    recent: Object.freeze([]),
  });
  tx.world.mirrors.set(mirror.id, mirror);
  pageTableOf(tx, process.space, 'nothing');
  return Object.freeze({ ...file, object: mirror.id });
}

/** The mirror goes first, then all memory of its device, whoever put it there. */
function closeMirror(tx: Tx, file: OpenFile, event: Event): void {
  const mirror = tx.world.mirrors.get(file.object);
  if (mirror === undefined) return;
  tx.world.mirrors.delete(mirror.id);
  releaseDevice(tx, mirror.device, event.seq, false);
}
