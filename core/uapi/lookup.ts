import { COMMANDS } from './commands.js';
import type { Command } from './types.js';

/** Finding commands by number and by name. Tables are built once; looking up allocates nothing. */

/** A container with the sPAPR backend, where some requests of containers have another meaning. */
export const SPAPR_CONTAINER = 'spapr-container';

const BY_KIND: Readonly<Record<string, Map<number, Command>>> = Object.assign(Object.create(null), tablesByKind());
const BY_NAME = new Map<string, Command>();
const NAMES = new Map<number, string[]>();

for (const command of COMMANDS) {
  if (!BY_NAME.has(command.name)) BY_NAME.set(command.name, command);
  const names = NAMES.get(command.request) ?? [];
  if (!names.includes(command.name)) NAMES.set(command.request, [...names, command.name].sort());
}

function tablesByKind(): Record<string, Map<number, Command>> {
  const tables: Record<string, Map<number, Command>> = {};
  for (const command of COMMANDS) {
    let table = tables[command.kind];
    if (table === undefined) {
      table = new Map();
      tables[command.kind] = table;
    }
    if (!table.has(command.request)) table.set(command.request, command);
  }
  const ofPower = COMMANDS.filter(({ spapr }) => spapr).map((command) => [command.request, command] as const);
  tables[SPAPR_CONTAINER] = new Map([...(tables['vfio-container'] ?? []), ...ofPower]);
  return tables;
}

/**
 * The command behind a whole 32-bit request on a kind of file, or undefined where that kind has none. On a container
 * the type1 meaning wins where sPAPR has another; that one is found on a {@link SPAPR_CONTAINER}.
 */
export function findCommand(kind: string, request: number): Command | undefined {
  return BY_KIND[kind]?.get(request);
}

/** The command with this name, on the kind of file that it was made for. */
export function commandByName(name: string): Command | undefined {
  return BY_NAME.get(name);
}

/** All names that share a request, in alphabetical order as strace prints them. */
export function namesOf(request: number): readonly string[] {
  return NAMES.get(request) ?? [];
}

/** Any request in the form strace gives to those it has no name for; bare numbers where there is no direction or size. */
export function renderRequest(request: number): string {
  const direction = request >>> 30;
  const size = (request >>> 16) & 0x3fff;
  if (direction === 0 && size === 0) return `0x${request.toString(16)}`;
  const parts = [direction & 2 ? '_IOC_READ' : '', direction & 1 ? '_IOC_WRITE' : ''].filter((part) => part !== '');
  const type = (request >>> 8) & 0xff;
  const nr = request & 0xff;
  return `_IOC(${parts.join('|') || '_IOC_NONE'}, 0x${type.toString(16)}, 0x${nr.toString(16)}, 0x${size.toString(16)})`;
}

/**
 * What to call a request on a kind of file: the command's name; on a file of no known kind every name it may have,
 * joined by ` or `; else its number in words.
 */
export function commandName(kind: string, request: number): string {
  const command = findCommand(kind, request);
  if (command !== undefined) return command.name;
  const names = BY_KIND[kind] === undefined ? namesOf(request) : [];
  return names.length > 0 ? names.join(' or ') : renderRequest(request);
}
