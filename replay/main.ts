#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { InputError } from '../core/errors.js';
import { run } from './cli/declare.js';
import { complain, EXIT, EXIT_BUG, type Io, Output } from './cli/io.js';

/** The program: streams and signals in, exit status out. */
async function main(): Promise<number> {
  const stop = new AbortController();
  const io: Io = {
    stdin: process.stdin,
    stdout: new Output(process.stdout, process.env, stop),
    stderr: new Output(process.stderr, process.env, stop),
    signal: stop.signal,
  };
  // The first signal asks for what is known so far, the second one means it.
  const interrupt = (): void => {
    if (stop.signal.aborted) process.exit(EXIT.interrupted);
    stop.abort();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  const status = await statusOf(io);
  await Promise.all([io.stdout.flush(), io.stderr.flush()]);
  return status;
}

async function statusOf(io: Io): Promise<number> {
  try {
    return await run(process.argv.slice(2), version(), io);
  } catch (error) {
    if (error instanceof InputError) {
      if (io.signal.aborted) return EXIT.interrupted;
      await complain(io, error.diagnostic);
      return EXIT.unusable;
    }
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    await io.stderr.line(`iotape: this is a bug in iotape, please report it\n${text}`);
    return EXIT_BUG;
  }
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

// An open standard input would keep the process alive after its work is done.
process.exit(await main());
