import type { Event } from '../../core/event.js';
import type { Interval, RangeMap } from '../../core/interval.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { hex } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import type { OpenFile } from '../files/state.js';
import { accessIds } from '../iommufd/access.js';
import type { World } from '../world.js';

/**
 * DMA mappings that nobody unmapped: they were alive when the last reference to what owned them went.
 *
 * The kernel cleans them up, so no memory is lost; but a program that forgets mappings while it runs exhausts
 * its locked memory or the mapping limit, and one that closes first and unmaps later talks to nothing. What can
 * go with an event follows from the files that it closes: a container or iommufd itself, or a device, group, access or
 * queue that was the last to hold one. A context whose memory is mapped by a file of its own (MAP_FILE) never goes: its
 * mappings are lost with the last fd.
 */

const NAME = 'leaked-mappings';
/** How many of the events that made the mappings are listed as causes. */
const MAX_CAUSES = 16;

interface Mapping extends Interval {
  readonly since: number;
}

/** A table of mappings, and what to call its owner. */
interface Owned {
  readonly title: string;
  readonly mappings: RangeMap<Mapping>;
}

export const leakedMappings: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'mappings that are never unmapped hold memory and slots as long as the program runs',
  kinds: Object.freeze(['close', 'closeRange', 'dup', 'exec', 'exit'] as const),

  concerns(before: World, event: Event): boolean {
    if (before.containers.size === 0 && before.ioases.size === 0) return false;
    return closedFiles(before, event).some((file) => FAMILY_KINDS.has(file.kind));
  },

  check(before: World, event: Event, after: World): readonly Finding[] {
    const containers = new Set<number>();
    const contexts = new Set<number>();
    const closed = closedFiles(before, event);
    for (const file of closed) noteOwners(before, file, containers, contexts);
    const findings: Finding[] = [];
    for (const id of containers) {
      const mappings = before.containers.get(id)?.mappings;
      if (mappings === undefined || (after.containers.get(id)?.mappings.size ?? 0) > 0) continue;
      if (mappings.size > 0) findings.push(finding(event, { title: `container ${id}`, mappings }));
    }
    for (const id of contexts) {
      const lost = closed.some((file) => keepsLost(before, after, file, id));
      for (const owned of ioasesOf(before, after, id, lost)) findings.push(finding(event, owned));
    }
    return findings;
  },
});

const FAMILY_KINDS: ReadonlySet<string> = new Set([
  'iommufd',
  'iommufd-access',
  'iommufd-fault',
  'iommufd-veventq',
  'vfio-container',
  'vfio-group',
  'vfio-device',
]);

/** The files that lose an fd by the event, as the state before tells. */
function closedFiles(before: World, event: Event): OpenFile[] {
  const process = knownProcessOf(before, event);
  const fds = process === undefined ? undefined : before.fdTables.get(process.fdTable)?.fds;
  const files: OpenFile[] = [];
  if (fds === undefined) return files;
  const [first, last] = closedRange(event);
  fds.forRange(first, last, (entry) => {
    const file = before.files.get(entry.file);
    if (file !== undefined) files.push(file);
    return undefined;
  });
  return files;
}

function closedRange(event: Event): readonly [number, number] {
  switch (event.kind) {
    case 'close':
      return [event.fd, event.fd];
    case 'dup':
      return [event.newFd, event.newFd];
    case 'closeRange':
      return [event.firstFd, event.lastFd < event.firstFd ? Number.MAX_SAFE_INTEGER : event.lastFd];
    default:
      return [0, Number.MAX_SAFE_INTEGER];
  }
}

/** Which containers and iommufd contexts may go when this file does. */
function noteOwners(before: World, file: OpenFile, containers: Set<number>, contexts: Set<number>): void {
  switch (file.kind) {
    case 'iommufd':
      contexts.add(file.object);
      break;
    case 'iommufd-access':
    case 'iommufd-fault':
    case 'iommufd-veventq':
      contexts.add(accessIds(file)[0]);
      break;
    case 'vfio-container':
      containers.add(file.object);
      break;
    case 'vfio-group':
      noteGroup(before, file.object, containers, contexts);
      break;
    case 'vfio-device': {
      const device = before.devices.get(file.objectKey);
      if (device === undefined) break;
      contexts.add(device.iommufd);
      noteGroup(before, device.group, containers, contexts);
      break;
    }
    default:
  }
}

function noteGroup(before: World, id: number, containers: Set<number>, contexts: Set<number>): void {
  const group = before.groups.get(id);
  if (group === undefined) return;
  containers.add(group.container);
  contexts.add(group.iommufd);
}

/** Whether a file that no fd refers to any more keeps a context on which nobody can call anything now. */
function keepsLost(before: World, after: World, file: OpenFile, contextId: number): boolean {
  const now = after.files.get(file.id);
  if (now === undefined || now.fdRefs > 0 || now.vmaRefs > 0) return false;
  if (file.kind === 'iommufd') return file.object === contextId;
  const owners = new Set<number>();
  noteOwners(before, file, new Set(), owners);
  return owners.has(contextId) && after.iommufds.get(contextId)?.closed === true;
}

/** IOASes of a context that had areas and are gone with it, or out of reach. */
function ioasesOf(before: World, after: World, contextId: number, lost: boolean): Owned[] {
  const gone: Owned[] = [];
  const context = before.iommufds.get(contextId);
  if (context === undefined || (after.iommufds.get(contextId) === context && !lost)) return gone;
  for (const object of context.objects.values()) {
    if (object.type !== 'ioas' || (after.ioases.has(object.ioas) && !lost)) continue;
    const areas = before.ioases.get(object.ioas)?.areas;
    if (areas === undefined || areas.size === 0) continue;
    gone.push({ title: `IOAS ${object.id} of iommufd ${contextId}`, mappings: areas });
  }
  return gone;
}

function finding(event: Event, owned: Owned): Finding {
  const causes: number[] = [];
  for (const mapping of owned.mappings.values()) {
    causes.push(mapping.since);
    if (causes.length === MAX_CAUSES) break;
  }
  const first = owned.mappings.first();
  const count = owned.mappings.size;
  const example = first === undefined ? '' : `, the first at IOVA ${hex(first.start)}-${hex(first.last)}`;
  return Object.freeze({
    invariant: NAME,
    severity: 'leak',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `${owned.title} went away with ${count} DMA mapping${count === 1 ? '' : 's'} in place${example}`,
    causes: Object.freeze([...new Set(causes)].sort((a, b) => a - b)),
    advice: 'unmap what was mapped before the last file that owns it is closed',
  });
}
