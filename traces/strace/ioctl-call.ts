import type { MemNote } from '../../core/event.js';
import { requestOfStraceName } from '../../core/uapi/strace-name.js';
import type { Arena } from './arena.js';
import type { Args } from './args.js';
import type { CallHead } from './call-reader.js';
import { NO_NOTES, type PendingIoctl } from './recorder.js';
import { readString, readU64 } from './values.js';

/**
 * An ioctl from text, or undefined for a request of no modelled interface (`TCGETS`).
 *
 * The argument is an address or a small number. strace 6.11 and later with `-v` shows, for requests it has
 * no decoder for but whose number carries a size (the HMM test device's), what the buffer held instead of
 * where it was: `"before" => "after"`. Such an event has `arg` 0 and its memory at address 0, so that the
 * statement at the argument is found as always. The text may be cut (`"…"...`): fewer bytes are known then.
 */
export function ioctlOf(
  args: Args,
  head: CallHead,
  arena: Arena,
): { readonly event: PendingIoctl; readonly argKnown: boolean } | undefined {
  const request = requestOfStraceName(args.text(1));
  if (request === undefined) return undefined;
  const { fd, path } = args.fd(0);
  const text = args.text(2);
  const shown = text.includes('"') ? dumped(text, request, arena) : undefined;
  const arg = shown === undefined && text !== '' ? readU64(text) : undefined;
  if (arg === 'range') args.u64(2);
  const event: PendingIoctl = {
    kind: 'ioctl',
    ...head,
    fd,
    path,
    request,
    arg: arg === 'range' || arg === undefined ? 0 : arg,
    memIn: shown?.memIn ?? NO_NOTES,
    memOut: shown?.memOut ?? NO_NOTES,
  };
  return { event, argKnown: arg !== undefined };
}

/** The two halves of a dump. A request that only reads from the device shows the second half alone. */
function dumped(text: string, request: number, arena: Arena) {
  const first = noteFrom(text, arena);
  const arrow = text.indexOf('=>', first.end);
  if (arrow >= 0) return { memIn: first.notes, memOut: noteFrom(text.slice(arrow), arena).notes };
  const writesOnly = request >>> 30 === 2;
  return writesOnly ? { memIn: NO_NOTES, memOut: first.notes } : { memIn: first.notes, memOut: NO_NOTES };
}

function noteFrom(text: string, arena: Arena): { notes: readonly MemNote[]; end: number } {
  const quote = text.indexOf('"');
  const read = quote < 0 ? undefined : readString(text, quote, arena);
  if (read === undefined) return { notes: NO_NOTES, end: text.length };
  return { notes: [{ addr: 0, bytes: read.bytes }], end: read.end };
}
