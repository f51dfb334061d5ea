import * as assert from 'uvu/assert';
import { CODES } from '../dist/core/errors.js';
import { suite } from '../dist/core/testing.js';
import { LEARNABLE_FACTS } from '../dist/reducers/facts.js';
import { invariants } from '../dist/reducers/invariants/index.js';
import { allRules } from '../dist/reducers/rules.js';
import { errorsDocument } from './errors-document.mjs';
import { rulesDocument } from './rules-document.mjs';
import { breaches, readTree, untestedCodes } from './tidy.mjs';

const test = suite('tidy');
const codes = { IOT101: { title: 'a', help: 'b | c' }, IOT201: { title: 'd', help: 'e' } };
const errors = { name: 'docs/ERRORS.md', text: errorsDocument(codes) };
const lock = (path) => JSON.stringify({ packages: { '': { optionalDependencies: { a: '1' } }, [path]: {} } });
const lines = (count) => 'x;\n'.repeat(count);

test('the project keeps its rules', () => assert.equal(breaches(readTree(), CODES), []));

test('docs/RULES.md is what the rule tables say', () => {
  const document = readTree().find(({ name }) => name === 'docs/RULES.md')?.text;
  assert.ok(document === rulesDocument(allRules(), invariants, LEARNABLE_FACTS), 'out of date: run npm run docs');
});

test('every error code is raised by a test', () => assert.equal(untestedCodes(readTree(), CODES), []));

/** A file that breaks a rule, the rule, and a neighbour that does not. */
for (const [rule, bad, good] of [
  ['file too long', ['core/a.ts', lines(401)], ['core/a.ts', lines(400)]],
  ['file too long', ['core/a.test.ts', lines(601)], ['core/a.test.ts', lines(600)]],
  ['clock', ['core/a.ts', 'const t = Date.now();'], ['replay/a.ts', 'const t = Date.now();']],
  [
    'clock',
    ['reducers/x/a.ts', 'a.sort((x, y) => x.localeCompare(y));'],
    ['reducers/x/a.ts', '/** no localeCompare */'],
  ],
  ['clock', ['reducers/a.ts', 'n.toLocaleString()'], ['reducers/a.ts', 'n.toString() // not n.toLocaleString()']],
  ['clock', ['core/a.ts', '/* long\n */ const r = Math.random();'], ['core/a.test.ts', 'Math.random()']],
  ['left behind', ['traces/a.c', '/* TO' + 'DO */'], ['traces/a.c', '/* to do */']],
  ['a merge that was not finished', ['a.md', '# A\n' + '<'.repeat(7) + ' HEAD\n'], ['a.md', '# A\n<<<<\n']],
  ['left behind', ['core/a.ts', 'x as ' + 'any;'], ['core/a.ts', 'x as unknown;']],
  ['tests switched off', ['core/a.test.ts', "test.only('x', f);"], ['core/a.test.ts', "test('x', f);"]],
  ['higher layer', ['core/a.ts', "import '../reducers/b.js';"], ['reducers/a.ts', "import '../core/b.js';"]],
  ['higher layer', ['traces/x/a.ts', "await import('../../replay/b.js')"], ['replay/a.ts', "import '../traces/b.js';"]],
  ['one title', ['A.md', '# a\n# b\n'], ['A.md', '# a\n```sh\n# b\n```\n## c\n']],
  ['one title', ['A.md', 'text'], ['A.md', '# a']],
  [
    'npm ci',
    ['package-lock.json', lock('node_modules/b')],
    ['package-lock.json', lock('node_modules/c/node_modules/a')],
  ],
  ['unknown recording', ['traces/corpus/x.gz', ''], ['traces/x.gz', '']],
]) {
  const found = ([name, text]) => breaches([errors, { name, text }], codes);
  test(`${rule}: ${JSON.stringify(bad).slice(0, 60)}`, () => {
    assert.match(found(bad).join('\n'), rule);
    assert.is(found(bad).length, 1);
    assert.equal(found(good), []);
  });
}

test('a recording that the index mentions is known', () => {
  const files = [errors, { name: 'traces/corpus/a/x.gz', text: '' }];
  const index = { name: 'traces/corpus/INDEX.md', text: '# i\n`a/x.gz`' };
  assert.equal(breaches([...files, index], codes), []);
  assert.is(breaches([...files, { ...index, text: '# i\n`x.gz`' }], codes).length, 1);
});

test('the document of errors must be the one that the codes make', () => {
  assert.match(breaches([], codes).join(), /out of date/);
  assert.match(breaches([errors], { ...codes, IOT102: codes.IOT101 }).join(), /out of date/);
  assert.match(errors.text, /\| IOT101 \| a \| b \\\| c \|/);
  assert.throws(() => errorsDocument({ IOT901: codes.IOT101 }), /no group for IOT901/);
});

test('a code counts as tested where a test file names it', () => {
  const files = [
    { name: 'core/a.test.ts', text: 'IOT101' },
    { name: 'core/a.ts', text: 'IOT201' },
  ];
  assert.equal(untestedCodes(files, codes), ['IOT201']);
});
