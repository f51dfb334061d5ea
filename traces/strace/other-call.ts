import type { OtherEvent } from '../../core/event.js';
import type { Args } from './args.js';
import type { CallHead } from './call-reader.js';
import { cutText } from './text.js';

/** A call that the model does not look at. */
export function otherCall(args: Args, head: CallHead): OtherEvent {
  return { kind: 'other', ...head, call: args.name, text: cutText(args.allText) };
}
