import { commandByName } from './lookup.js';

/**
 * From strace's text for an ioctl request to its number, for every release from 4.10 to 7.2 and every output format.
 * The number is what counts: strace chooses names by number alone and cannot know which kind of file stands behind.
 */

const READ = 2;
const WRITE = 1;

function ioc(direction: number, type: number, nr: number, size: number): number {
  return ((direction << 30) | ((size & 0x3fff) << 16) | ((type & 0xff) << 8) | (nr & 0xff)) >>> 0;
}

/**
 * Names that other drivers gave to numbers of ours, and requests that every file answers. The length in brackets of the
 * hiddev names is part of the number.
 */
const FOREIGN: ReadonlyMap<string, number> = new Map([
  ['HL_IOCTL_MEMORY', ioc(READ | WRITE, 0x48, 5, 40)],
  ['HL_IOCTL_DEBUG', ioc(READ | WRITE, 0x48, 6, 40)],
  ['TCGETS', 0x5401],
  ['FIONREAD', 0x541b],
  ['FIONBIO', 0x5421],
  ['FIONCLEX', 0x5450],
  ['FIOCLEX', 0x5451],
  ['FIOASYNC', 0x5452],
  ['FIOQSIZE', 0x5460],
]);

const HIDDEV: ReadonlyMap<string, number> = new Map([
  ['HIDIOCSFEATURE', 6],
  ['HIDIOCGFEATURE', 7],
]);

const IOC_CALL =
  /^_IOC\(\s*([^,]+?)\s*,\s*(0[xX]?[0-9a-fA-F]*|[0-9]+)\s*,\s*(0[xX]?[0-9a-fA-F]*|[0-9]+)\s*,\s*(0[xX]?[0-9a-fA-F]*|[0-9]+)\s*\)$/;
const HIDDEV_CALL = /^(HIDIOC[SG]FEATURE)\(\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*\)$/;
const NUMBER = /^(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10})$/;
const COMMENT = /^(.*?)\s*\/\*.*\*\/$/;

function direction(text: string): number | undefined {
  let bits = 0;
  for (const word of text.split('|')) {
    const name = word.trim();
    if (name === '_IOC_READ') bits |= READ;
    else if (name === '_IOC_WRITE') bits |= WRITE;
    else if (NUMBER.test(name) && Number(name) <= 3) bits |= Number(name);
    else if (name !== '_IOC_NONE') return undefined;
  }
  return bits;
}

function oneName(text: string): number | undefined {
  const known = commandByName(text)?.request ?? FOREIGN.get(text);
  if (known !== undefined) return known;
  const hiddev = HIDDEV_CALL.exec(text);
  if (hiddev) return ioc(READ | WRITE, 0x48, HIDDEV.get(hiddev[1] as string) as number, Number(hiddev[2]));
  const call = IOC_CALL.exec(text);
  if (call) {
    const dir = direction(call[1] as string);
    const [type, nr, size] = [Number(call[2]), Number(call[3]), Number(call[4])];
    if (dir === undefined || !(type <= 0xff && nr <= 0xff && size <= 0x3fff)) return undefined;
    return ioc(dir, type, nr, size);
  }
  if (!NUMBER.test(text)) return undefined;
  const value = Number(text);
  return value <= 0xffff_ffff ? value : undefined;
}

/**
 * The 32-bit request behind strace's text: a name, several joined by ` or `, `_IOC(…)` in the forms of all releases,
 * hiddev's names with a length, a bare number, a number with names in a comment. Undefined for a name that belongs to
 * no modelled interface, and when the names of one text disagree.
 */
export function requestOfStraceName(text: string): number | undefined {
  const bare = COMMENT.exec(text)?.[1] ?? text;
  let found: number | undefined;
  for (const part of bare.split(' or ')) {
    const request = oneName(part.trim());
    if (request === undefined) continue;
    if (found !== undefined && found !== request) return undefined;
    found = request;
  }
  return found;
}
