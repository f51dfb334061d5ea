/** Texts of the model name events as `event N`; a reader wants to know where they stand. */
const NAMED = /\bevent (\d{1,15})\b/g;

/** `seq` of each event that a text names, in the order of the text, each once. */
export function eventsNamed(text: string): number[] {
  return [...new Set([...text.matchAll(NAMED)].map((match) => Number(match[1])))];
}

/** The text with a place behind each event: `event 12 (line 40)`. `placeOf` gives '' where it does not know. */
export function withPlaces(text: string, placeOf: (seq: number) => string): string {
  return text.replace(NAMED, (named, seq: string) => {
    const place = placeOf(Number(seq));
    return place === '' ? named : `${named} (${place})`;
  });
}
