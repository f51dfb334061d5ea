import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { InputError } from '../../core/errors.js';
import { suite } from '../../core/testing.js';
import { gunzipped, inputOf } from './chunks.js';
import { type BlockSink, type BlockState, LineBlocks } from './line-blocks.js';

const test = suite('input');

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  let text = '';
  for await (const chunk of chunks) text += Buffer.from(chunk).toString('latin1');
  return text;
}

function* pieces(bytes: Uint8Array, count: number): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += count) yield bytes.subarray(at, at + count);
}

test('plain and gzipped chunks of any size', async () => {
  const text = 'line one\nline two\n'.repeat(1000);
  const packed = gzipSync(text);
  const twice = Buffer.concat([packed, gzipSync('more\n')]);
  for (const size of [1, 2, 3, 1000, 1 << 20]) {
    assert.is(await collect(gunzipped('x', pieces(Buffer.from(text), size))), text);
    assert.is(await collect(gunzipped('x', pieces(packed, size))), text);
    assert.is(await collect(gunzipped('x', pieces(twice, size))), `${text}more\n`);
  }
  assert.is(await collect(gunzipped('x', [])), '');
  assert.is(await collect(gunzipped('x', [new Uint8Array(0), Buffer.from('\u001f', 'latin1')])), '\u001f');
});

async function failureOf(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  try {
    await collect(chunks);
  } catch (error) {
    if (error instanceof InputError) return error.diagnostic.code;
    throw error;
  }
  return '';
}

test('damaged gzip', async () => {
  const packed = gzipSync('x'.repeat(100_000));
  assert.is(await failureOf(gunzipped('x', [packed.subarray(0, 30)])), 'IOT205');
  const spoilt = Buffer.from(packed);
  spoilt.fill(0xff, 20, 60);
  assert.is(await failureOf(gunzipped('x', [spoilt])), 'IOT205');
  assert.is(await failureOf(gunzipped('x', [Buffer.from([0x1f, 0x8b])])), 'IOT205');
});

test('files', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'iotape-input-'));
  try {
    const text = 'a line\n'.repeat(400_000);
    writeFileSync(join(folder, 'plain'), text);
    writeFileSync(join(folder, 'packed'), gzipSync(text));
    writeFileSync(join(folder, 'empty'), '');
    assert.is(await collect(inputOf(join(folder, 'plain')).chunks()), text);
    assert.is(await collect(inputOf(join(folder, 'packed')).chunks()), text);
    assert.is(await collect(inputOf(join(folder, 'empty')).chunks()), '');
    assert.is(await failureOf(inputOf(join(folder, 'missing')).chunks()), 'IOT201');
    assert.is(await failureOf(inputOf(folder).chunks()), 'IOT201');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a reader that stops early leaves nothing open', async () => {
  const packed = gzipSync(Buffer.alloc(4 << 20, 'line\n'));
  for await (const chunk of gunzipped('x', pieces(packed, 512))) {
    assert.ok(chunk.length > 0);
    break;
  }
});

class Lines implements BlockSink {
  readonly seen: string[] = [];
  block(buffer: Uint8Array, from: number, to: number, state: BlockState): void {
    assert.is(buffer[to - 1], 10);
    const text = Buffer.from(buffer.subarray(from, to - 1)).toString('latin1');
    for (const line of text.split('\n')) this.seen.push(state === 'whole' ? line : `${state}:${line}`);
  }
}

test('blocks of whole lines', () => {
  const rows: readonly [text: string, max: number, lines: readonly string[]][] = [
    ['', 10, []],
    ['\n', 10, ['']],
    ['a\n\nbb\n', 10, ['a', '', 'bb']],
    ['a\nbb', 10, ['a', 'open:bb']],
    ['0123456789\nx\n', 10, ['0123456789', 'x']],
    ['0123456789ab\nx', 10, ['cut:0123456789', 'open:x']],
    ['x\n0123456789abcdefghijklmnopqrstuvw', 10, ['x', 'cut:0123456789']],
  ];
  for (const [text, max, lines] of rows) {
    for (const size of [1, 2, 5]) {
      const sink = new Lines();
      const blocks = new LineBlocks(sink, max);
      for (const piece of pieces(Buffer.from(text), size)) blocks.push(piece);
      blocks.end();
      assert.equal(sink.seen, lines, `${JSON.stringify(text)} by ${size}`);
    }
  }
});
