import type { FileKind } from './state.js';

/**
 * What the text that strace `-y` prints for an fd says about the file behind it. Names of anonymous
 * files are those that the drivers give to `anon_inode_getfile` (drivers/vfio/group.c,
 * drivers/iommu/iommufd/eventq.c, the migration drivers below drivers/vfio/pci, samples/vfio-mdev).
 */
const ANONYMOUS: ReadonlyMap<string, FileKind> = new Map<string, FileKind>([
  ['[vfio-device]', 'vfio-device'],
  ['[eventfd]', 'eventfd'],
  ['[iommufd-pgfault]', 'iommufd-fault'],
  ['[iommufd-viommu-event]', 'iommufd-veventq'],
  ['[iommufd_test_staccess]', 'iommufd-access'],
  ['pds_vfio_lm', 'vfio-migration'],
]);

/** mlx5vf_mig, virtiovf_mig, xe_vfio_mig, hisi_acc_vf_mig, qat_vf_mig, mtty_mig, … */
const MIGRATION = /^[a-z0-9_]+_mig$/;
/** What follows the name with `-yy` or for a file without a name any more. */
const SUFFIX = /(?:<(?:char|block) \d+:\d+>| ?\(deleted\))+$/;

/** The text without `<char 10:196>` and `(deleted)`: two texts of one file are equal in this form. */
export function plainPath(path: string): string {
  return path.endsWith('>') || path.endsWith(')') ? path.replace(SUFFIX, '') : path;
}

/** The kind that a path or annotation stands for; undefined for the empty text. */
export function kindOfPath(path: string): FileKind | undefined {
  if (path === '') return undefined;
  if (path.startsWith('/dev/')) return kindOfDevice(plainPath(path));
  if (path.startsWith('anon_inode:')) {
    const name = plainPath(path).slice('anon_inode:'.length);
    return ANONYMOUS.get(name) ?? (MIGRATION.test(name) ? 'vfio-migration' : 'other');
  }
  if (path.startsWith('{eventfd-')) return 'eventfd';
  if (path.startsWith('/memfd:')) return 'memfd';
  if (path.startsWith('/dmabuf:')) return 'dma-buf';
  return 'other';
}

function kindOfDevice(path: string): FileKind {
  if (path === '/dev/iommu') return 'iommufd';
  if (path === '/dev/vfio/vfio') return 'vfio-container';
  if (/^\/dev\/vfio\/(?:noiommu-)?\d+$/.test(path)) return 'vfio-group';
  if (/^\/dev\/vfio\/devices\/[^/]+$/.test(path)) return 'vfio-device';
  if (/^\/dev\/hmm_dmirror\d+$/.test(path)) return 'dmirror';
  return 'other';
}

/** Whether the path tells apart two files of this kind (`/dev/vfio/7` and `/dev/vfio/9`). */
export function pathIdentifies(kind: FileKind, path: string): boolean {
  return kind === 'vfio-group' || kind === 'dmirror' || (kind === 'vfio-device' && path.startsWith('/dev/'));
}
