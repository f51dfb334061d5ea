// What every command needs first: the packages of the lockfile, and a build. Both cost little when nothing changed.
import './require-node.mjs';
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles, ROOT } from './files.mjs';

function fail(message) {
  console.error(`iotape: ${message}`);
  process.exit(2);
}

/** Whether the packages of the lockfile are all there: npm notes in `node_modules` what it installed. */
export function isInstalled(root) {
  const note = join(root, 'node_modules/.package-lock.json');
  if (!existsSync(note)) return false;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const present = JSON.parse(readFileSync(note, 'utf8')).packages;
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '') return true;
    const have = present[path];
    if (have === undefined) return entry.optional === true; // made for another platform
    return have.version === entry.version && have.integrity === entry.integrity;
  });
}

/** Installs what the lockfile says, unless it is there. Output goes to stderr, so that stdout is the command's own. */
export function install(root = ROOT) {
  if (isInstalled(root)) return;
  if (lstatSync(join(root, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) {
    console.error('iotape: node_modules is a link to packages other than those of package-lock.json; left as it is');
    return;
  }
  console.error('iotape: installing packages (npm ci)');
  const npm = process.env.npm_execpath;
  const [command, args] = npm ? [process.execPath, [npm]] : ['npm', []];
  const run = spawnSync(command, [...args, 'ci', '--ignore-scripts', '--include=dev', '--include=optional'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: !npm && process.platform === 'win32',
  });
  if (run.status !== 0) fail('npm ci failed; see above');
}

/** The source that a built file comes from, e.g. `core/u64.ts` of `dist/core/u64.d.ts.map`; undefined for other files. */
export function sourceOf(built) {
  const match = /^dist\/(.+?)(\.d\.ts|\.js)(\.map)?$/.exec(built);
  return match ? `${match[1]}.ts` : undefined;
}

/** Removes what was built from sources that are gone: the compiler does not. */
export function removeStale(root) {
  for (const built of listFiles(root, 'dist')) {
    const source = sourceOf(built);
    if (source !== undefined && !existsSync(join(root, source))) rmSync(join(root, built));
  }
}

/** Compiles what changed. */
export function build(root = ROOT) {
  removeStale(root);
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  if (!existsSync(compiler)) fail('the compiler is not installed; run npm ci');
  const run = spawnSync(process.execPath, [compiler, '-b'], { cwd: root, stdio: ['ignore', 2, 2] });
  if (run.status !== 0) fail('the build failed; see above');
}

export function setup(root = ROOT) {
  install(root);
  build(root);
}
