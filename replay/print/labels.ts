import { type Style, wrapped } from './style.js';

const LABEL_COLUMNS = 11;

/** `  label      text`, the text wrapped under itself, `hang` columns deeper; nothing for an empty text. */
export function labelled(label: string, text: string, style: Style, hang = 0): string {
  if (text === '') return '';
  const indent = ' '.repeat(LABEL_COLUMNS + 2 + hang);
  return `  ${style.paint.dim(label.padEnd(LABEL_COLUMNS))}${wrapped(text, style.widthColumns, indent)}`;
}
