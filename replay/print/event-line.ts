import type { JudgedEvent } from '../judged.js';
import { eventText, shortPlaceOf } from './event.js';
import { judgedText } from './report.js';
import { printable, type Style } from './style.js';
import { toPlain } from './values.js';

const SEQ_COLUMNS = 7;
const LINE_COLUMNS = 5;
const TIME_COLUMNS = 11;

/** One event on one line: number, place, time, thread, call with result, verdict with rule. */
export function eventLine(files: readonly string[], each: JudgedEvent, style: Style): string {
  const { seq, tsNs, tid } = each.event;
  const { paint } = style;
  const name = shortPlaceOf(files, { ...each.event, line: 0 });
  const place = printable(shortPlaceOf(files, each.event)).padEnd(name.length - 1 + LINE_COLUMNS);
  const verdict = judgedText(each.judged, style);
  const head = [
    String(seq).padStart(SEQ_COLUMNS),
    paint.dim(place),
    paint.dim(timeText(tsNs).padStart(TIME_COLUMNS)),
    ...(tid === 0 ? [] : [paint.dim(`[${tid}]`)]),
  ];
  return `${head.join('  ')}  ${eventText(each)}${verdict === '' ? '' : `  ${verdict}`}`;
}

/** Seconds since the recording began. */
function timeText(tsNs: number): string {
  return (tsNs / 1e9).toFixed(6);
}

/** One event as a plain object for `show --json`: its own fields, then text, verdict and rule. */
export function eventJson(files: readonly string[], each: JudgedEvent): object {
  const { event, judged } = each;
  const fields = toPlain({ ...event, file: undefined }) as object;
  const verdict =
    judged === undefined
      ? {}
      : {
          call: judged.name,
          verdict: judged.verdict,
          rule: judged.rule,
          ...(judged.unknownReason === '' ? {} : { unknown: judged.unknownReason }),
          ...(judged.explanation === undefined
            ? {}
            : { predicted: judged.explanation.predicted, recorded: judged.explanation.recorded }),
        };
  return { ...fields, file: files[event.file] ?? '', text: eventText(each), ...verdict };
}
