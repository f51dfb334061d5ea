import { rangeAt } from '../../core/interval.js';
import { add, hex, lastOf, min, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { spanText, type Told, unpinnable } from '../explain.js';
import type { OpenFile } from '../files/state.js';
import { areaText, attachedIoas, ioasOf } from './explain-objects.js';
import { byteAt } from './pages.js';
import { dmaRequest } from './request.js';
import type { Area } from './state.js';

/** Why the memory behind a mapping cannot be had. */

/** The address that cannot be pinned: of the caller's memory for MAP, of the source's for COPY. */
export function cannotPin(call: Call): Told | undefined {
  const request = dmaRequest(call);
  if (request === undefined) return undefined;
  if (request.from === undefined) {
    const { space } = call.process;
    return unpinnable(call.tx, space, request.address, request.length, pinning((request.prot & 2) !== 0));
  }
  const source = ioasOf(call, call.struct.u32(12));
  const last = lastOf(request.from, request.length);
  if (source === undefined || last === undefined) return undefined;
  for (let at: U64 = request.from; ; ) {
    const area = rangeAt(source.areas, at);
    if (area === undefined) return undefined;
    const end = min(area.last, last);
    const told = unpinnableArea(call, area, at, end);
    if (told !== undefined || end >= last) return told;
    at = add(end, 1);
  }
}

function unpinnableArea(call: Call, area: Area, start: U64, last: U64): Told | undefined {
  const { pages } = area;
  if (pages.kind !== 'user') return undefined;
  const address = add(pages.base, byteAt(area, start));
  const told = unpinnable(call.tx, pages.space, address, add(sub(last, start), 1), pinning(pages.writable));
  return told === undefined ? undefined : { ...told, text: `${told.text}, which ${areaText(area)} shows` };
}

function pinning(write: boolean) {
  return { write, longterm: true, pfnmapOk: false };
}

/** The first area of the IOAS that a domain cannot take in. */
export function cannotFill(call: Call): Told | undefined {
  for (const area of attachedIoas(call)?.areas.values() ?? []) {
    const told = unpinnableArea(call, area, area.start, area.last);
    if (told !== undefined) return told;
  }
  return undefined;
}

export function readOnlySource(call: Call): string {
  const request = dmaRequest(call);
  const source = ioasOf(call, call.struct.u32(12));
  const from = request?.from;
  const last = request === undefined || from === undefined ? undefined : lastOf(from, request.length);
  if (source === undefined || from === undefined || last === undefined) return '';
  for (let at: U64 = from; at <= last; ) {
    const area = rangeAt(source.areas, at);
    if (area === undefined) return '';
    if (!area.pages.writable) return areaText(area);
    at = add(area.last, 1);
  }
  return '';
}

function fileOf(call: Call, fd: number): OpenFile | undefined {
  const entry = call.tx.world.fdTables.get(call.process.fdTable)?.fds.get(fd);
  return entry === undefined ? undefined : call.tx.world.files.get(entry.file);
}

export function fileText(call: Call, fd: number): string {
  const path = fileOf(call, fd)?.path ?? '';
  return `fd ${fd}${path === '' ? '' : ` (${path})`}`;
}

export function beyondFile(call: Call): string {
  const request = dmaRequest(call);
  if (request === undefined) return '';
  const size = fileOf(call, request.fd)?.sizeBytes ?? null;
  const range = spanText(request.address, request.length);
  return `bytes ${range} of ${fileText(call, request.fd)}${size === null ? '' : `, which has ${hex(size)} bytes`}`;
}
