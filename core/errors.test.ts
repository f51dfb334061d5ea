import * as assert from 'uvu/assert';
import { CODES, formatDiagnostic, InputError, type Diagnostic, type ErrorCode } from './errors.js';
import { suite } from './testing.js';

const test = suite('errors');
const codes = Object.keys(CODES) as ErrorCode[];
const [someCode] = codes as [ErrorCode];

function at(line: number, column: number, message: string): Diagnostic {
  return { code: someCode, file: 'a.strace', line, column, message };
}

test('every code has a title and help in words, and no two share a title', () => {
  assert.ok(codes.length > 0);
  for (const code of codes) {
    assert.match(code, /^IOT[1-9]\d\d$/);
    assert.match(CODES[code].title, /^[a-z].*[a-z]$/i, code);
    assert.match(CODES[code].help, /\w \w/, code);
  }
  assert.is(new Set(codes.map((code) => CODES[code].title)).size, codes.length);
});

test('codes stand in order, so that a new one finds its place', () => assert.equal(codes, codes.toSorted()));

test('a diagnostic names place, code, title, particulars and help', () => {
  const { title, help } = CODES[someCode];
  const rows: [Diagnostic, string][] = [
    [at(3, 7, 'why'), `a.strace:3:7: ${someCode} ${title}: why (${help})`],
    [at(3, 0, 'why'), `a.strace:3: ${someCode} ${title}: why (${help})`],
    [at(0, 0, ''), `a.strace: ${someCode} ${title} (${help})`],
  ];
  for (const [diagnostic, text] of rows) assert.is(formatDiagnostic(diagnostic), text);
});

test('an input error carries its diagnostic and prints as it', () => {
  const error = new InputError(at(1, 2, 'x'));
  assert.instance(error, Error);
  assert.is(error.name, 'InputError');
  assert.is(error.message, formatDiagnostic(error.diagnostic));
});
