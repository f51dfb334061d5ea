import type { Call } from './call.js';
import { typedObject } from './iommufd/context.js';
import type { Ioas } from './iommufd/state.js';
import { hasDomain, hasEmulated } from './vfio/containers.js';
import type { VfioContainer } from './vfio/state.js';

/**
 * What the known part of the state excludes for a call whose payload is not known. Sound in one direction: a rule that is
 * excluded cannot have decided; one that is not excluded may not have either.
 */
export function isExcluded(call: Call, rule: string): boolean {
  switch (call.file.kind) {
    case 'vfio-container': {
      const container = call.tx.world.containers.get(call.file.object);
      return container !== undefined && excludedByContainer(call, container, rule);
    }
    case 'iommufd':
      return excludedByContext(call, rule);
    default:
      return false;
  }
}

const NEEDS_MAPPING: ReadonlySet<string> = new Set([
  'map-dma.overlap',
  'map-dma.vaddr-mismatch',
  'unmap-dma.cuts-first',
  'unmap-dma.cuts-last',
  'unmap-dma.vaddr-twice',
  'dirty-pages.start-huge',
  'dirty-pages.cuts',
]);
const NEEDS_IOMMU: ReadonlySet<string> = new Set(['map-dma.iova-range', 'map-dma.pin']);
const TYPE1_COMMANDS: ReadonlySet<string> = new Set([
  'VFIO_IOMMU_GET_INFO',
  'VFIO_IOMMU_MAP_DMA',
  'VFIO_IOMMU_UNMAP_DMA',
  'VFIO_IOMMU_DIRTY_PAGES',
]);
const V2_ONLY: ReadonlySet<string> = new Set(['unmap-dma.cuts-first', 'unmap-dma.cuts-last']);

function excludedByContainer(call: Call, container: VfioContainer, rule: string): boolean {
  const { backend, mappings, unknownSince } = container;
  if (backend === 'unknown') return false;
  const allKnown = unknownSince < 0;
  if (rule === 'container.no-backend') return backend !== 'none';
  if (rule === 'container.unknown-command') return backend.startsWith('type1') && TYPE1_COMMANDS.has(call.name);
  if (NEEDS_MAPPING.has(rule) && allKnown && mappings.size === 0) return true;
  if (rule === 'map-dma.entry-limit') return allKnown && mappings.size < container.entryLimit;
  if (NEEDS_IOMMU.has(rule)) return container.groups.length > 0 && !hasDomain(call.tx, container);
  if (rule === 'map-dma.dirty-bitmap') return container.dirtyTracking === false;
  if (rule === 'unmap-dma.vaddr-mediated') return !mayHaveEmulated(call, container);
  if (rule === 'dirty-pages.v1') return backend === 'type1v2';
  return V2_ONLY.has(rule) && backend === 'type1';
}

/** A group whose devices nobody has named may be one of mediated devices. */
function mayHaveEmulated(call: Call, container: VfioContainer): boolean {
  if (hasEmulated(call.tx, container)) return true;
  return container.groups.some((id) => call.tx.world.groups.get(id)?.bus !== 'pci');
}

const NEEDS_AREA: ReadonlySet<string> = new Set([
  'iova.exists',
  'unmap.part',
  'unmap.locked',
  'compat-unmap.cut-alignment',
  'compat-unmap.cut-access',
  'compat-unmap.cut-dma-buf',
  'map.write',
]);

function excludedByContext(call: Call, rule: string): boolean {
  const context = call.tx.world.iommufds.get(call.file.object);
  if (context === undefined) return false;
  if (rule === 'compat.no-ioas') return context.vfioIoas !== 0;
  if (context.unknownSince >= 0) return false;
  const ioases: Ioas[] = [];
  for (const { id } of context.objects.values()) {
    const object = typedObject(call.tx, context.id, id, 'ioas');
    const ioas = object === undefined ? undefined : call.tx.world.ioases.get(object.ioas);
    if (ioas !== undefined) ioases.push(ioas);
  }
  if (NEEDS_AREA.has(rule)) return ioases.every((ioas) => ioas.unknownSince < 0 && ioas.areas.size === 0);
  if (rule === 'iova.reserved')
    return ioases.every((ioas) => ioas.blocked.size === 0 && ioas.unknownHardware.length === 0);
  if (rule.startsWith('pages.') && call.name.includes('MAP')) return ioases.every((ioas) => ioas.hwpts.length === 0);
  return false;
}
