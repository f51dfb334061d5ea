// npm run corpus:update: replays the bundled recordings and writes what came out into the tables of
// traces/corpus/INDEX.md, which the corpus test holds the model to. It prints each number that changes: look at them
// before you commit, a divergence more is a bug and not a new expectation.
import { setup } from './setup.mjs';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles, ROOT } from './files.mjs';

setup();
const { COLUMNS, measured, readTable, writeTable } = await import('../dist/replay/corpus-table.js');
const folder = join(ROOT, 'traces/corpus');
const index = join(folder, 'INDEX.md');
const text = readFileSync(index, 'utf8');

/** What the tables say now; nothing where they are not complete. */
function expectedBefore() {
  try {
    return readTable(text);
  } catch {
    return new Map();
  }
}

const before = expectedBefore();
const counts = new Map();
for (const name of listFiles(folder).filter((path) => path !== 'INDEX.md')) {
  const now = await measured(join(folder, name));
  counts.set(name, now);
  const was = before.get(name) ?? {};
  const changes = COLUMNS.filter((column) => was[column] !== now[column]).map(
    (column) => `${column} ${was[column] ?? '-'} -> ${now[column]}`,
  );
  if (changes.length > 0) console.log(`${name}: ${changes.join(', ')}`);
}
const updated = writeTable(text, counts);
writeFileSync(index, updated);
const rows = readTable(updated);
for (const name of counts.keys()) if (!rows.has(name)) console.log(`${name} has no row: add one that says what it is`);
