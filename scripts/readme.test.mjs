import * as assert from 'uvu/assert';
import { suite } from '../dist/core/testing.js';
import { ROOT } from './files.mjs';
import { markedBlocks, runBlock } from './readme.mjs';

const test = suite('readme');
const fence = '```';

test('only marked sh blocks are found, with their status and line', () => {
  const text = `# a\n\n${fence}sh\nfalse\n${fence}\n<!-- run -->\n${fence}sh\ntrue\n${fence}\n\n<!-- run exit=1 -->\n\n${fence}sh\na\nb\n${fence}\n`;
  assert.equal(markedBlocks(text), [
    { script: 'true\n', exit: 0, line: 6 },
    { script: 'a\nb\n', exit: 1, line: 11 },
  ]);
});

test('a mark without a block behind it is an error, not a command left out', () => {
  for (const text of ['<!-- run -->\ntext', `<!-- run exit=x -->\n${fence}sh\ntrue\n${fence}`, '<!-- run --> \n'])
    assert.throws(() => markedBlocks(text), /marks, but/, text);
});

for (const [script, exit, problem] of [
  ['true', 0, undefined],
  ['exit 1', 1, undefined],
  ['false', 0, /exit status 1, expected 0/],
  ['true', 1, /exit status 0, expected 1/],
  ['false\ntrue', 0, /exit status 1/],
  ['false | true', 0, /exit status 1/],
  ['echo "$UNSET_VARIABLE"', 0, /UNSET_VARIABLE/],
  ['read -r line || exit 7', 7, undefined],
  ['kill -9 $$', 0, /ended by SIGKILL/],
]) {
  test(`${JSON.stringify(script)} with status ${exit}`, () => {
    const found = runBlock({ script, exit }, ROOT);
    if (problem === undefined) assert.is(found, undefined);
    else assert.match(found ?? '', problem);
  });
}
