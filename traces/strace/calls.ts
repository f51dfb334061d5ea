import type { Event } from '../../core/event.js';
import type { Args } from './args.js';
import type { CallHead, CallReader } from './call-reader.js';
import { credsCalls } from './creds-calls.js';
import { fdCalls } from './fd-calls.js';
import { ioCalls } from './io-calls.js';
import { memoryCalls } from './memory-calls.js';
import { otherCall } from './other-call.js';
import { processCalls } from './process-calls.js';

/** Which call becomes which event; ioctl is not here, for its event is completed later. */
const READERS: ReadonlyMap<string, CallReader> = new Map(
  Object.entries({ ...memoryCalls, ...fdCalls, ...ioCalls, ...processCalls, ...credsCalls }),
);

export function readCall(args: Args, head: CallHead): Event {
  const reader = READERS.get(args.name);
  return reader === undefined ? otherCall(args, head) : reader(args, head);
}
