import type { OtherEvent } from '../../core/event.js';
import type { Args } from './args.js';
import type { CallHead } from './call-reader.js';

const MAX_TEXT = 200;

/** A call that the model does not look at. */
export function otherCall(args: Args, head: CallHead): OtherEvent {
  return { kind: 'other', ...head, call: args.name, text: cutText(args.allText) };
}

/** Keeps a copy of the beginning: a slice alone would keep the whole line alive. */
export function cutText(text: string): string {
  return text.length <= MAX_TEXT ? text : Buffer.from(text.slice(0, MAX_TEXT), 'latin1').toString('latin1');
}
