import type { Event } from '../../core/event.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { hex, max, min } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { type LostRange, lostRanges } from '../memory/lost.js';
import { pinsOver } from '../memory/pins.js';
import type { AddressSpace, Pin } from '../memory/state.js';
import type { World } from '../world.js';

/**
 * Memory goes away under a live DMA mapping.
 *
 * Pinned pages outlive their VMA: after munmap, MADV_DONTNEED or mmap over the range, the device still reads
 * and writes the old pages, while the process sees new ones at the same address, or none. Nothing
 * fails, data is lost in silence (the DPDK corruption of spdk issue 1705 is of this kind). Each DMA mapping is reported once, by
 * the first event that takes memory from it; the memory reducer drops its pin with that event.
 */

const NAME = 'memory-pinned';
/** DMA mappings that one finding counts; and of these, how many it describes. */
const MAX_PINS = 64;
const MAX_DESCRIBED = 4;

interface Hit {
  readonly pin: Pin;
  readonly lost: LostRange;
}

export const memoryPinned: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'a device that writes to pages which its process gave away corrupts data without any error',
  kinds: Object.freeze(['munmap', 'mmap', 'mremap', 'madvise', 'brk'] as const),

  concerns(before: World, event: Event): boolean {
    const space = spaceOf(before, event);
    return space !== undefined && space.pins.size > 0 && hits(space, event, 1).length > 0;
  },

  check(before: World, event: Event): readonly Finding[] {
    const space = spaceOf(before, event);
    const found = space === undefined ? [] : hits(space, event, MAX_PINS);
    return found.length === 0 ? [] : [finding(event, found)];
  },
});

function spaceOf(world: World, event: Event): AddressSpace | undefined {
  const process = knownProcessOf(world, event);
  return process === undefined ? undefined : world.spaces.get(process.space);
}

function hits(space: AddressSpace, event: Event, limit: number): Hit[] {
  const found: Hit[] = [];
  for (const lost of lostRanges(space, event)) {
    for (const pin of pinsOver(space, lost.start, lost.last, limit - found.length)) found.push({ pin, lost });
    if (found.length >= limit) break;
  }
  return found;
}

function finding(event: Event, found: readonly Hit[]): Finding {
  const described = found.slice(0, MAX_DESCRIBED).map(describe).join('; ');
  const more = found.length - MAX_DESCRIBED;
  const rest = more <= 0 ? '' : `; and ${found.length < MAX_PINS ? more : `at least ${more}`} more`;
  const since = [...new Set(found.map((hit) => hit.pin.since))].sort((a, b) => a - b);
  return Object.freeze({
    invariant: NAME,
    severity: 'hazard',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `memory was ${found[0]?.lost.how ?? 'lost'} while DMA mappings still pin it: ${described}${rest}`,
    causes: Object.freeze([...since, event.seq]),
    advice:
      'unmap the IOVA before the memory goes away, and map it again afterwards; until then the device uses the old pages',
  });
}

function describe({ pin, lost }: Hit): string {
  const from = hex(max(pin.start, lost.start));
  const to = hex(min(pin.last, lost.last));
  return `${from}-${to} of IOVA ${hex(pin.key)} in ${pin.owner} (mapped by event ${pin.since})`;
}
