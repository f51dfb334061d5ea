/**
 * The form in which a batch of events goes from the reading thread to the one that replays.
 *
 * A structured clone of an event costs about as much as parsing it did, twice: once on either side. Here the
 * numbers of all events stand one after the other in two arrays, 32-bit ones in `ints` and the others in `wides`,
 * all memory stands in `blob`, and text is named by an index. Both sides are the same program, so there is no
 * version, no check of what comes, and no order but that in which the encoder writes and the decoder reads.
 *
 * The buffers are copied, not transferred: copying 150 bytes per event is nearly nothing, while the first buffer that
 * a thread gives away makes every later access to any typed array there look whether it is still its own,
 * which costs the parser a tenth of its time (measured).
 *
 * An event begins with a word: the index of its kind in EVENT_KINDS, and bits that say how its head is written. The
 * kinds that make up nearly all of a long recording ({@link HOT}) follow with their fields in a fixed order,
 * without names or types, where their numbers have the usual range and their `seq` is the next. Any other event
 * follows as a list of values that each say their type, in the order of EVENT_FIELDS.
 *
 * A U64 stands in `wides`: a number as itself, a bigint as NaN, its high and its low half.
 */
export interface EncodedBatch {
  readonly count: number;
  readonly ints: Int32Array<ArrayBuffer>;
  readonly wides: Float64Array<ArrayBuffer>;
  readonly blob: Uint8Array<ArrayBuffer>;
  /** Text that comes again and again, sent with the batch where it comes first: index 0, 1, 2, … of the stream. */
  readonly shared: readonly string[];
  /** Text of this batch alone: index -1, -2, -3, … */
  readonly own: readonly string[];
}

export const KIND_MASK = 0xff;
/** The fields follow in fixed order. */
export const HOT = 0x100;
export const INJECTED = 0x200;
/** Other events came between entry and return: `enteredAt` follows, else it is `seq`. */
export const ENTERED_BEFORE = 0x400;
/** `ret` is null. */
export const NO_RET = 0x800;
/** `ret` is among the wide numbers. */
export const WIDE_RET = 0x1000;

/** Types of the values of an event without fixed order. */
export const VALUE = {
  null: 0,
  false: 1,
  true: 2,
  int: 3,
  wide: 4,
  bigint: 5,
  text: 6,
  bytes: 7,
  list: 8,
  note: 9,
} as const;

export type ValueType = (typeof VALUE)[keyof typeof VALUE];
