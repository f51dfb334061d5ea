/** What every event has. */
export interface Head {
  /** Position on the tape, from 0, without gaps. */
  readonly seq: number;
  /** Nanoseconds since the recording's `startNs`; 0 where lines carry no time. */
  readonly tsNs: number;
  /** Thread group, or 0 where the recording does not tell; the state knows it from clone. */
  readonly pid: number;
  /** Thread; 0 is the one traced process of a recording without thread ids. */
  readonly tid: number;
  /** Index into the recording's list of files. */
  readonly file: number;
  /** Line in that file, from 1; for a tape, the line of the original. */
  readonly line: number;
}
