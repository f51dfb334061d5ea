import type { Call } from '../call.js';
import type { OpenFile } from '../files/state.js';

/** What an fd number inside a struct stands for in the calling process. */
export type FdLook = OpenFile | 'none' | 'unknown';

/** Looks up an fd that a struct names; nothing of the recorded answer is used. */
export function lookFd(call: Call, fd: number): FdLook {
  if (fd < 0) return 'none';
  const table = call.tx.world.fdTables.get(call.process.fdTable);
  const entry = table?.fds.get(fd);
  const file = entry === undefined ? undefined : call.tx.world.files.get(entry.file);
  if (file !== undefined) return file.kind === 'unknown' ? 'unknown' : file;
  return table?.complete ? 'none' : 'unknown';
}

export function fdUnknown(fd: number): string {
  return `what fd ${fd} stands for is not in the recording`;
}

/** The containers and iommufds that the process has open, each once, and whether there can be no others. */
export function joinableFiles(call: Call): { readonly files: readonly OpenFile[]; readonly complete: boolean } {
  const table = call.tx.world.fdTables.get(call.process.fdTable);
  const found = new Map<string, OpenFile>();
  let complete = table?.complete ?? false;
  for (const { file: id } of table?.fds.values() ?? []) {
    const file = call.tx.world.files.get(id);
    if (file?.kind === 'unknown') complete = false;
    if (file?.kind === 'vfio-container' || file?.kind === 'iommufd') found.set(`${file.kind} ${file.object}`, file);
  }
  return { files: [...found.values()], complete };
}
