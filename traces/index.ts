/** Reading and writing recordings: from files to events and to tapes. */
export { detect, type Detected } from './detect.js';
export { openRecording } from './open.js';
export type { Recording } from './recording.js';
export { openTape, type Tape } from './tape/reader.js';
export { type TapeOptions, type TapeSummary, TapeWriter, writeTape } from './tape/writer.js';
