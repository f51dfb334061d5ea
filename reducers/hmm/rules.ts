import type { Rule } from '../iommufd/rules.js';

/**
 * When dmirror's commands fail, in the kernel's order (lib/test_hmm.c): the checks that all commands share, then
 * each command's own. All work of a command that fails later stays done: pages faulted in, segments migrated.
 */
export const DMIRROR_RULES: readonly Rule[] = [
  { id: 'dmirror.fault', errno: 'EFAULT', text: 'the struct cannot be read' },
  { id: 'dmirror.addr-aligned', errno: 'EINVAL', text: 'the address is not that of a page' },
  { id: 'dmirror.range', errno: 'EINVAL', text: 'no pages, or the range passes the end of the address space' },
  { id: 'dmirror.command', errno: 'EINVAL', text: 'no command has this number' },
  { id: 'dmirror.bounce', errno: 'ENOMEM', text: 'the kernel has no memory for a copy of the range' },
  { id: 'dmirror.mm-gone', errno: 'EINVAL', text: 'the mirrored address space is gone' },
  { id: 'fault.mm-gone', errno: 'EFAULT', text: 'the mirrored address space is gone and the device has no entry' },
  {
    id: 'fault.range',
    errno: 'EFAULT',
    text: 'pages cannot be faulted in: nothing is mapped there, it is not readable, or not as asked',
  },
  { id: 'fault.write', errno: 'EPERM', text: 'the device wants to write where the mapping is not writable' },
  { id: 'fault.busy', errno: 'EBUSY', text: 'faults do not make the pages valid' },
  { id: 'dmirror.buffer', errno: 'EFAULT', text: "the caller's buffer is not mapped, or not with the rights needed" },
  {
    id: 'migrate-to-dev.vma',
    errno: 'EINVAL',
    text: 'a part of the range is not mapped, not readable, or cannot be migrated',
  },
  {
    id: 'migrate-to-dev.read-back',
    errno: 'ENOENT',
    text: 'a page was not migrated and the device has no entry for it',
  },
  {
    id: 'migrate-to-sys.vma',
    errno: 'EINVAL',
    text: 'a part of the range is not mapped, not readable, or cannot be migrated',
  },
  { id: 'migrate-to-sys.alloc', errno: 'ENOMEM', text: 'the allocation that FAIL_ALLOC makes fail' },
  { id: 'exclusive.pages', errno: 'EFAULT', text: 'a page is not mapped, or not writable' },
  {
    id: 'exclusive.alloc',
    errno: 'ENOMEM',
    text: 'a page of a device cannot come back: the allocation that FAIL_ALLOC makes fail',
  },
  { id: 'exclusive.anonymous', errno: 'EOPNOTSUPP', text: 'a page is not anonymous, or of hugetlbfs' },
  { id: 'exclusive.read-back', errno: 'ENOENT', text: 'the device has no entry for a page of the range' },
  { id: 'check-exclusive.atomic', errno: 'EPERM', text: 'the device holds a page of the range exclusively' },
];
