// The project's files, as the scripts look at them.
import { readdirSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's own folder. */
export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');

const SKIPPED = new Set(['node_modules', 'dist', '.git', 'coverage']);

/**
 * Paths of all files under `folder`, relative to `root`, with `/`, sorted; a missing folder holds none.
 * Installed and built folders are left out, except where `folder` itself is one.
 */
export function listFiles(root, folder = '.') {
  const found = [];
  const visit = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory() && !SKIPPED.has(entry.name)) visit(join(path, entry.name));
      else if (entry.isFile()) found.push(relative(root, join(path, entry.name)).split(sep).join('/'));
    }
  };
  try {
    visit(join(root, folder));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  return found.sort();
}
