import { closeSync, writeSync } from 'node:fs';
import { suite as uvuSuite, type Callback, type Test } from 'uvu';

/** What one test file did, as it tells the runner (scripts/test.mjs) when its process ends. */
export interface FileReport {
  /** Tests that the file declared. */
  registered: number;
  passed: number;
  failed: number;
  skipped: number;
  /** Names, `suite: test`, of declared tests that began but did not end, or never began. */
  unfinished: string[];
}

const report: FileReport = { registered: 0, passed: 0, failed: 0, skipped: 0, unfinished: [] };
// The runner gives the number of an open pipe; processes that a test starts must not take it for theirs.
const reportFd = Number(process.env['IOTAPE_TEST_FD'] ?? '');
delete process.env['IOTAPE_TEST_FD'];
const suites: Test[] = [];
const pending = new Set<string>();

/** uvu formats only `Error`s, and loses a test that threw anything else. */
function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`a test threw ${String(thrown)}, which is no Error`);
}

function counted(label: string, handler: Callback<Record<string, unknown>>): Callback<Record<string, unknown>> {
  const id = `${label} #${++report.registered}`;
  pending.add(id);
  return async (context) => {
    try {
      await handler(context);
      report.passed++;
    } catch (thrown) {
      report.failed++;
      throw asError(thrown);
    } finally {
      pending.delete(id);
    }
  };
}

/** On `beforeExit`: first when the modules are evaluated, then again after uvu has run. */
function runAll(): void {
  for (const made of suites.splice(0)) made.run();
  // uvu's exit code 0 would hide node's 13 for a top-level await that never settles.
  if (process.exitCode === 0) process.exitCode = undefined;
}

/** A file run by hand has no runner to tell: uvu's summary stands, and what it does not know is added. */
function tellRunner(): void {
  report.unfinished = [...pending].map((id) => id.replace(/ #\d+$/, ''));
  if (reportFd > 2) {
    writeSync(reportFd, JSON.stringify(report));
    closeSync(reportFd);
  } else if (pending.size > 0) {
    process.exitCode ||= 1;
    process.stderr.write(`never ran: ${report.unfinished.join(', ')}\n`);
  }
}

/**
 * A guard around uvu, which exits 0 when it ran nothing, passes in silence over a suite whose `.run()` was
 * forgotten, and swallows what a `before` hook throws. Suites made here run by themselves once the whole
 * module (its top-level awaits too) has been evaluated, and every declared test is counted: one that did not
 * run fails its file.
 */
export function suite(name: string): Test {
  if (report.registered === 0 && suites.length === 0) {
    process.on('beforeExit', runAll);
    process.once('exit', tellRunner);
  }
  const made = uvuSuite<Record<string, unknown>>(name);
  suites.push(made);
  const declare = (title: string, handler: Callback<Record<string, unknown>>): void =>
    made(title, counted(`${name}: ${title}`, handler));
  return Object.assign(declare, {
    before: made.before,
    after: made.after,
    only: (title: string, handler: Callback<Record<string, unknown>>): void =>
      made.only(title, counted(`${name}: ${title}`, handler)),
    skip: (): void => {
      report.skipped++;
      made.skip();
    },
    run: (): void => undefined,
  });
}
