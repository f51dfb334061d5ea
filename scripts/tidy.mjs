// The house rules that no compiler or linter checks. `npm run tidy` lists every breach; npm test fails on any.
import './require-node.mjs';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorsDocument } from './errors-document.mjs';
import { listFiles, ROOT } from './files.mjs';

const MAX_LINES = 400;
const MAX_TEST_LINES = 600;
const CORPUS = 'traces/corpus/';
const CODE = /\.(ts|mts|mjs|js|c|h|bt|sh|py)$/;
const TEST = /\.test\.(ts|mjs)$/;
/** The reducers and what they stand on must give the same answer on every machine, at every time. */
const PURE = /^(core|reducers)\//;
const IMPURE =
  /\bDate\.now\b|\bnew Date\b|\bMath\.random\b|\bperformance\.now\b|\bhrtime\b|\brandom(?:UUID|Bytes|Int)\b|\.localeCompare\b|\.toLocale\w+|\bIntl\./;
const LAYERS = ['core', 'reducers', 'traces', 'replay', 'bench'];
/** Spelled in pieces, so that this file does not hold them. */
const LEFT_BEHIND = new RegExp(
  ['TO' + 'DO\\b', 'FIX' + 'ME\\b', 'X' + 'XX\\b', 'as ' + 'any\\b', '@ts-' + '(?:ignore|nocheck|expect-error)'].join(
    '|',
  ),
);

function eachLine(text, pattern, name) {
  return text
    .split('\n')
    .flatMap((line, i) => (pattern.test(line) ? [`${name}:${i + 1}: ${pattern.exec(line)[0].trim()}`] : []));
}

/** Code without its comments, with the same line breaks; good enough for words that never stand in our strings. */
function withoutComments(text) {
  return text.replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, '')).replace(/(^|\s)\/\/.*$/gm, '$1');
}

/** Each rule takes `{name, text}` files and gives one sentence for each breach. */
const FILE_RULES = {
  'file too long': ({ name, text }) => {
    const lines = text.split('\n').length - 1;
    const most = TEST.test(name) ? MAX_TEST_LINES : MAX_LINES;
    return CODE.test(name) && lines > most ? [`${name}: ${lines} lines, at most ${most}; split it by idea`] : [];
  },
  'clock, randomness or locale in the pure layers': ({ name, text }) =>
    PURE.test(name) && CODE.test(name) && !TEST.test(name) ? eachLine(withoutComments(text), IMPURE, name) : [],
  'left behind': ({ name, text }) => (CODE.test(name) ? eachLine(text, LEFT_BEHIND, name) : []),
  'a merge that was not finished': ({ name, text }) => eachLine(text, /^(?:<{7}|>{7})(?= )/, name),
  'tests switched off': ({ name, text }) =>
    TEST.test(name) && name !== 'scripts/test.test.mjs' ? eachLine(text, /^\s*\w+\.(?:skip|only)\(/, name) : [],
  'import of a higher layer': ({ name, text }) => {
    const own = LAYERS.indexOf(name.split('/')[0]);
    if (own < 0 || !name.endsWith('.ts')) return [];
    const higher = LAYERS.slice(own + 1).join('|');
    return higher ? eachLine(text, new RegExp(`(?:from|import)\\s*\\(?\\s*'(?:\\.\\./)+(?:${higher})/`), name) : [];
  },
  'one title for each document': ({ name, text }) => {
    if (!name.endsWith('.md')) return [];
    const titles = text.replace(/^(```|~~~)[\s\S]*?^\1/gm, '').match(/^# .+$/gm) ?? [];
    return titles.length === 1 ? [] : [`${name}: ${titles.length} first-level headings`];
  },
};

function corpusBreaches(files) {
  const index = files.find(({ name }) => name === `${CORPUS}INDEX.md`)?.text ?? '';
  return files
    .filter(({ name }) => name.startsWith(CORPUS) && name !== `${CORPUS}INDEX.md`)
    .map(({ name }) => name.slice(CORPUS.length))
    .filter((name) => !index.includes(`\`${name}\``))
    .map((name) => `${CORPUS}INDEX.md does not mention ${name}`);
}

/**
 * `npm ci` refuses a lockfile that lacks the packages for other platforms, which `npm install` leaves out where the
 * registry at hand does not have them.
 */
function lockfileBreaches(files) {
  const lock = files.find(({ name }) => name === 'package-lock.json');
  if (lock === undefined) return [];
  const { packages } = JSON.parse(lock.text);
  const names = new Set(Object.keys(packages).map((path) => path.replace(/^.*node_modules\//, '')));
  const wanted = Object.values(packages).flatMap((entry) => Object.keys(entry.optionalDependencies ?? {}));
  return wanted.filter((name) => !names.has(name)).map((name) => `package-lock.json has no entry for ${name}`);
}

/** Codes that no test file names. */
export function untestedCodes(files, codes) {
  const tests = files.filter(({ name }) => TEST.test(name)).map(({ text }) => text);
  return Object.keys(codes).filter((code) => !tests.some((text) => text.includes(code)));
}

/** Every breach in the given files, as `rule: where`. */
export function breaches(files, codes) {
  const found = [];
  for (const [rule, check] of Object.entries(FILE_RULES))
    for (const file of files) for (const where of check(file)) found.push(`${rule}: ${where}`);
  for (const where of corpusBreaches(files)) found.push(`unknown recording: ${where}`);
  for (const where of lockfileBreaches(files)) found.push(`npm ci cannot work: ${where}`);
  const document = files.find(({ name }) => name === 'docs/ERRORS.md')?.text;
  if (document !== errorsDocument(codes)) found.push('out of date: docs/ERRORS.md; run npm run docs');
  return found;
}

/** The project's files with their text; recordings without. */
export function readTree(root = ROOT) {
  return listFiles(root).map((name) => ({
    name,
    text: /\.(gz|tape)$/.test(name) ? '' : readFileSync(join(root, name), 'utf8'),
  }));
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { CODES } = await import('../dist/core/errors.js');
  const files = readTree();
  const found = [...breaches(files, CODES), ...untestedCodes(files, CODES).map((code) => `no test raises ${code}`)];
  for (const breach of found) console.log(breach);
  process.exitCode = found.length > 0 ? 1 : 0;
}
