// The compiler enforces the layers: with the project's own settings, an import of a higher layer does not build.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../dist/core/testing.js';
import { ROOT } from './files.mjs';

const LAYERS = ['core', 'reducers', 'traces', 'replay', 'bench'];
const test = suite('layers');

/** Builds a tree with one file in each layer, which imports what `importsOf` names. Gives the compiler's errors. */
function compile(importsOf) {
  const root = mkdtempSync(join(tmpdir(), 'iotape-layers-'));
  try {
    copyFileSync(join(ROOT, 'tsconfig.base.json'), join(root, 'tsconfig.base.json'));
    copyFileSync(join(ROOT, 'tsconfig.json'), join(root, 'tsconfig.json'));
    writeFileSync(join(root, 'package.json'), '{"type":"module"}');
    symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'));
    for (const layer of LAYERS) {
      mkdirSync(join(root, layer));
      copyFileSync(join(ROOT, layer, 'tsconfig.json'), join(root, layer, 'tsconfig.json'));
      const lines = importsOf(layer).map((other) => `export { name as ${other} } from '../${other}/probe.js';`);
      writeFileSync(join(root, layer, 'probe.ts'), [...lines, `export const name: string = '${layer}';\n`].join('\n'));
    }
    const compiler = join(ROOT, 'node_modules/typescript/bin/tsc');
    return spawnSync(process.execPath, [compiler, '-b'], { cwd: root, encoding: 'utf8' });
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('every layer may import all layers below it', () => {
  const { status, stdout } = compile((layer) => LAYERS.slice(0, LAYERS.indexOf(layer)));
  assert.is(stdout, '');
  assert.is(status, 0);
});

for (const [i, layer] of LAYERS.slice(0, -1).entries()) {
  test(`${layer} cannot import ${LAYERS.slice(i + 1).join(', ')}`, () => {
    const { status, stdout } = compile((each) => (each === layer ? LAYERS.slice(i + 1) : []));
    assert.is.not(status, 0);
    for (const higher of LAYERS.slice(i + 1))
      assert.match(stdout, new RegExp(`${layer}/probe\\.ts.*${higher}/probe`), stdout);
  });
}
