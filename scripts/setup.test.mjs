import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../dist/core/testing.js';
import { listFiles } from './files.mjs';
import { install, isInstalled, removeStale, sourceOf } from './setup.mjs';

const test = suite('setup');

/** Runs `check` in a folder that holds the given files. */
function inTree(files, check) {
  const root = mkdtempSync(join(tmpdir(), 'iotape-setup-'));
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    check(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

const A = { version: '1.0.0', integrity: 'sha512-a' };
const B = { version: '2.0.0', integrity: 'sha512-b', optional: true };
const lockOf = (packages) => JSON.stringify({ packages: { '': { name: 'x' }, ...packages } });

for (const [what, present, expected] of [
  ['all packages', { 'node_modules/a': A, 'node_modules/b': B }, true],
  ['a package more', { 'node_modules/a': A, 'node_modules/b': B, 'node_modules/c': A }, true],
  ['no package for another platform', { 'node_modules/a': A }, true],
  ['another version', { 'node_modules/a': { ...A, version: '1.0.1' } }, false],
  ['other content', { 'node_modules/a': { ...A, integrity: 'sha512-x' } }, false],
  ['nothing', {}, false],
]) {
  test(`installed with ${what}: ${expected}`, () => {
    const files = {
      'package-lock.json': lockOf({ 'node_modules/a': A, 'node_modules/b': B }),
      'node_modules/.package-lock.json': JSON.stringify({ packages: present }),
    };
    inTree(files, (root) => assert.is(isInstalled(root), expected));
  });
}

test('without node_modules nothing is installed', () => {
  inTree({ 'package-lock.json': lockOf({}) }, (root) => assert.is(isInstalled(root), false));
});

test('a link to packages elsewhere is left as it is', () => {
  inTree({ 'package-lock.json': lockOf({ 'node_modules/a': A }), 'elsewhere/a.js': '' }, (root) => {
    symlinkSync(join(root, 'elsewhere'), join(root, 'node_modules'));
    install(root);
    assert.ok(existsSync(join(root, 'elsewhere/a.js')));
  });
});

test('what was built from a source that is gone is removed, and nothing else', () => {
  const files = ['a.js', 'a.js.map', 'a.d.ts', 'a.d.ts.map', 'b.js', 'b.d.ts.map'].map((name) => [
    `dist/core/${name}`,
    '',
  ]);
  const others = { 'core/a.ts': '', 'dist/core.tsbuildinfo': '', 'dist/core/table.json': '' };
  inTree({ ...Object.fromEntries(files), ...others }, (root) => {
    removeStale(root);
    assert.equal(listFiles(root, 'dist'), [
      'dist/core.tsbuildinfo',
      'dist/core/a.d.ts',
      'dist/core/a.d.ts.map',
      'dist/core/a.js',
      'dist/core/a.js.map',
      'dist/core/table.json',
    ]);
  });
});

for (const [built, source] of [
  ['dist/core/u64.js', 'core/u64.ts'],
  ['dist/core/u64.d.ts', 'core/u64.ts'],
  ['dist/core/u64.d.ts.map', 'core/u64.ts'],
  ['dist/a/b/x.test.js.map', 'a/b/x.test.ts'],
  ['dist/core.tsbuildinfo', undefined],
  ['core/u64.js', undefined],
]) {
  test(`${built} comes from ${source}`, () => assert.is(sourceOf(built), source));
}
