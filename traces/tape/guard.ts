/**
 * Walks MessagePack bytes before anything is made of them.
 *
 * A few bytes of MessagePack can ask for much: arrays in arrays a million deep, millions of empty arrays, maps,
 * extension types that build objects by themselves. A tape needs integers, doubles, booleans, nil, text, bytes
 * and arrays, in one value of bounded depth and size. Only what this function accepts reaches the decoder.
 */
export function isPlainMsgpack(bytes: Uint8Array, maxValues: number, maxDepth: number): boolean {
  /** How many values are still missing at each depth. */
  const missing = new Float64Array(maxDepth + 1);
  missing[0] = 1;
  let depth = 0;
  let values = 0;
  let at = 0;
  for (;;) {
    while (missing[depth] === 0) {
      if (depth === 0) return at === bytes.length;
      depth--;
    }
    if (at >= bytes.length || ++values > maxValues) return false;
    missing[depth] = (missing[depth] as number) - 1;
    const token = bytes[at] as number;
    const skip = tokenBytes(bytes, at, token);
    if (skip === 0) return false;
    const children = arrayLength(bytes, at, token);
    at += skip;
    if (at > bytes.length) return false;
    if (children > 0) {
      if (depth === maxDepth || children > bytes.length - at) return false;
      missing[++depth] = children;
    }
  }
}

const FIXARRAY = 0x90;
const ARRAY16 = 0xdc;
const ARRAY32 = 0xdd;

function arrayLength(bytes: Uint8Array, at: number, token: number): number {
  if (token >= FIXARRAY && token < 0xa0) return token & 15;
  if (token === ARRAY16) return big(bytes, at + 1, 2);
  if (token === ARRAY32) return big(bytes, at + 1, 4);
  return 0;
}

/** Bytes of the token with its payload, for an array of its head only; 0 for what a tape never holds. */
function tokenBytes(bytes: Uint8Array, at: number, token: number): number {
  if (token < 0x80 || token >= 0xe0) return 1;
  if (token < FIXARRAY) return 0;
  if (token < 0xa0) return 1;
  if (token < 0xc0) return 1 + (token & 31);
  switch (token) {
    case 0xc0: // nil
    case 0xc2: // false
    case 0xc3: // true
      return 1;
    case 0xc4: // bin 8
    case 0xd9: // str 8
      return 2 + big(bytes, at + 1, 1);
    case 0xc5: // bin 16
    case 0xda: // str 16
      return 3 + big(bytes, at + 1, 2);
    case 0xc6: // bin 32
    case 0xdb: // str 32
      return 5 + big(bytes, at + 1, 4);
    case 0xcc: // uint 8
    case 0xd0: // int 8
      return 2;
    case 0xcd: // uint 16
    case 0xd1: // int 16
    case ARRAY16:
      return 3;
    case 0xce: // uint 32
    case 0xd2: // int 32
    case ARRAY32:
      return 5;
    case 0xcb: // float 64
    case 0xcf: // uint 64
    case 0xd3: // int 64
      return 9;
    default:
      return 0;
  }
}

/** A big-endian length; bytes past the end count as 0, which the caller's own check of the end then catches. */
function big(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = 0; i < count; i++) value = value * 256 + (bytes[at + i] ?? 0);
  return value;
}
