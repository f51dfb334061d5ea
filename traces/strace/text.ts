const MAX_TEXT = 200;

/** A string of its own: a slice keeps all of what it was cut from alive, which may be a line of a mebibyte. */
export function copied(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

/** The first 200 characters. */
export function cutText(text: string): string {
  return copied(text.length <= MAX_TEXT ? text : text.slice(0, MAX_TEXT));
}
