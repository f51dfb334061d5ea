import { OrderedMap } from '../../core/ordered-map.js';
import { hex, lengthOf, type U64 } from '../../core/u64.js';
import { isRange, isScalar, joinPath, keyText } from '../state-path.js';
import { counted, listed, type Style } from './style.js';
import { scalarText, toPlain } from './values.js';

/**
 * Snapshots as an indented tree. A record whose fields are all small stands on one line; of a long table only
 * the first entries are shown, with the path that shows the rest.
 */

export interface TreeOptions {
  /** How many entries of a table are shown. */
  readonly entries: number;
  /** Where the value stands in the state; for the hint at the end of a cut table. */
  readonly path: string;
}

/** The lines of a value, under a label where one is given. */
export function treeLines(value: unknown, style: Style, options: TreeOptions, label = ''): string[] {
  const lines: string[] = [];
  new TreePrinter(style, options.entries, lines).value(value, options.path, label, '');
  return lines;
}

class TreePrinter {
  readonly #style: Style;
  readonly #entries: number;
  readonly #lines: string[];

  constructor(style: Style, entries: number, lines: string[]) {
    this.#style = style;
    this.#entries = entries;
    this.#lines = lines;
  }

  /** One value under its label; what is inside it stands two columns further right. */
  value(value: unknown, path: string, label: string, indent: string): void {
    if (value instanceof OrderedMap && value.size > 0) {
      this.#table(value as OrderedMap<U64 | string, unknown>, path, label, indent);
    } else if (isScalar(value) || value instanceof OrderedMap || Array.isArray(value)) {
      this.#line(label, [shortText(value, lastPart(path)) ?? JSON.stringify(toPlain(value))], indent);
    } else {
      this.#record(value as object, path, label, indent);
    }
  }

  /** The small fields together, wrapped; below them what is larger. */
  #record(record: object, path: string, label: string, indent: string): void {
    const fields = Object.entries(record);
    const range = isRange(record) ? [`size ${hex(lengthOf(record.start, record.last))}`] : [];
    const small: string[] = [];
    const large: [string, unknown][] = [];
    for (const [name, item] of fields) {
      if (isRange(record) && (name === 'start' || name === 'last')) continue;
      const text = shortText(item, name);
      if (text === undefined) large.push([name, item]);
      else small.push(`${name} ${text}`);
    }
    const isRoot = label === '' && path === '';
    if (!isRoot || small.length > 0) this.#line(label, [...range, ...small], indent);
    for (const [name, item] of large) this.value(item, joinPath(path, name), name, isRoot ? indent : `${indent}  `);
  }

  #table(table: OrderedMap<U64 | string, unknown>, path: string, label: string, indent: string): void {
    const { paint } = this.#style;
    const inner = label === '' ? indent : `${indent}  `;
    const more = table.size - this.#entries;
    const hint = more > 0 ? `… ${counted(more, 'more', 'more')}: --path ${path} --all` : '';
    if (label !== '') this.#lines.push(`${indent}${paint.bold(label)} ${paint.dim(`(${table.size})`)}`);
    const shown: [U64 | string, unknown][] = [];
    for (const entry of table) {
      if (shown.length === this.#entries) break;
      shown.push(entry);
    }
    if (shown.every(([, item]) => isScalar(item))) {
      const texts = shown.map(([key, item]) => `${keyText(key, item)}: ${scalarText(item)}`);
      this.#lines.push(`${inner}${listed(texts, this.#style.widthColumns, inner)}`);
    } else {
      for (const [key, item] of shown)
        this.value(item, joinPath(path, keyText(key, item)), rangeLabel(key, item), inner);
    }
    if (hint !== '') this.#lines.push(`${inner}${paint.dim(hint)}`);
  }

  #line(label: string, items: readonly string[], indent: string): void {
    const { paint, widthColumns } = this.#style;
    const colon = label === '' || items.length === 0 ? '' : ': ';
    const column = indent.length + label.length + colon.length;
    const body = listed(items, widthColumns, `${indent}    `, column);
    this.#lines.push(`${indent}${paint.bold(label)}${colon}${body}`);
  }
}

/** A range's key as `start-last`; any other key as it is. */
function rangeLabel(key: U64 | string, value: unknown): string {
  return isRange(value) ? `${hex(value.start)}-${hex(value.last)}` : keyText(key, value);
}

/** A scalar, an empty table or a list of scalars; undefined for what needs lines of its own. */
function shortText(value: unknown, name: string): string | undefined {
  if (isScalar(value)) return scalarText(value, name);
  if (value instanceof OrderedMap) return value.size === 0 ? 'none' : undefined;
  if (!Array.isArray(value)) return undefined;
  return value.every(isScalar) ? `[${value.map((item) => scalarText(item, name)).join(', ')}]` : undefined;
}

function lastPart(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}

/** A value of the state as text, ending in a newline. Tables of the root that are empty are left out. */
export function stateText(value: unknown, style: Style, options: TreeOptions): string {
  const shown = options.path === '' ? withoutEmptyTables(value as object) : value;
  const lines = treeLines(shown, style, options);
  return lines.length === 0 ? 'nothing\n' : `${lines.join('\n')}\n`;
}

function withoutEmptyTables(world: object): object {
  return Object.fromEntries(
    Object.entries(world).filter(([, table]) => !(table instanceof OrderedMap) || table.size > 0),
  );
}
