import type { ErrorCode } from '../../core/errors.js';
import type { DiagnosticLog } from '../diagnostic-log.js';
import { Arena } from './arena.js';
import { Clock } from './clock.js';
import { Recorder } from './recorder.js';
import { Tids } from './tids.js';

/** What the readers of one file share: its events, its clock, its threads, and where in it they are. */
export class Context {
  readonly recorder: Recorder;
  readonly clock = new Clock();
  readonly tids: Tids;
  readonly arena = new Arena();
  readonly file: number;
  readonly fileName: string;
  readonly #log: DiagnosticLog;
  /** The current line, from 1. */
  line = 0;
  skippedLines = 0;

  constructor(file: number, fileName: string, baseTid: number, log: DiagnosticLog) {
    this.file = file;
    this.fileName = fileName;
    this.#log = log;
    this.recorder = new Recorder((code, message) => this.report(code, message));
    this.tids = new Tids(baseTid, () =>
      this.recorder.unfinished.some(({ entered }) => /^(?:clone[23]?|v?fork)$/.test(entered?.name ?? '')),
    );
  }

  report(code: ErrorCode, message: string, column = 0, line = this.line): void {
    this.#log.add(code, message, this.fileName, line, column);
  }

  /** The current line gives no event though it should. */
  skip(code: ErrorCode, message: string, column = 1): void {
    this.skippedLines++;
    this.report(code, message, column);
  }
}
