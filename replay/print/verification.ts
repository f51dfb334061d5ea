import type { Verification } from '../verify.js';
import { counted, printable, type Style } from './style.js';

/** The state hashes of one trace, one line for each way to replay it; one line for all where they agree. */
export function verificationText({ trace, endings, agree }: Verification, style: Style): string {
  const { paint } = style;
  const name = printable(trace);
  if (agree) {
    const { stateHash, events } = endings[0] as Verification['endings'][number];
    return `${paint.green('same')}  ${stateHash}  ${name}  ${paint.dim(counted(events, 'event'))}\n`;
  }
  const width = Math.max(...endings.map(({ way }) => way.length));
  const lines = endings.map(({ way, stateHash, events, calls }) => {
    const verdicts = `match ${calls.match}, learned ${calls.learned}, unknown ${calls.unknown}, diverge ${calls.diverge}`;
    return `  ${way.padEnd(width)}  ${stateHash}  ${counted(events, 'event')}, ${verdicts}\n`;
  });
  return `${paint.red('DIFFERENT')}  ${name}\n${lines.join('')}`;
}
