import type { CommandKind } from '../core/uapi/types.js';
import { commandName, findCommand, SPAPR_CONTAINER } from '../core/uapi/lookup.js';
import type { Call } from './call.js';
import { rulesOfCommand } from './command-rules.js';
import type { Rule } from './iommufd/rules.js';
import { isExcluded } from './narrow.js';
import { profileOf } from './profile.js';
import { allRules } from './rules.js';
import type { Tx } from './tx.js';

/**
 * What a recorded error can mean where the recording lacks what a prediction needs: the rules that give this command
 * this error, in the kernel's order, without those that the known part of the state excludes.
 */
export interface Candidate {
  readonly kind: CommandKind;
  /** What the command is called on that kind of file. */
  readonly command: string;
  readonly rule: Rule;
}

/** Kinds of file that take commands. */
export const COMMAND_KINDS: readonly CommandKind[] = [
  'vfio-container',
  'iommufd',
  'vfio-group',
  'vfio-device',
  'vfio-migration',
  'dmirror',
];

/** The kinds of file that the call can have been made on. */
export function possibleKinds(call: Call): readonly CommandKind[] {
  const { kind } = call.file;
  const known = COMMAND_KINDS.find((each) => each === kind);
  if (known !== undefined) return [known];
  const { event } = call;
  if (event.kind !== 'ioctl') return [];
  const takers = COMMAND_KINDS.filter((each) => findCommand(each, event.request) !== undefined);
  if (event.ret !== -1) return takers;
  // An error that only some of them can give tells them apart.
  const able = takers.filter((each) => candidatesOn(call, each).length > 0);
  return able.length > 0 ? able : takers;
}

/**
 * The rules that may have rejected the call; empty where no rule gives its error. Undefined for a call that did not fail, and
 * where the argument was recorded: the model has then gone through the checks itself, up to the one that needs a fact
 * which it does not have, and that fact is the answer.
 */
export function candidates(call: Call): readonly Candidate[] | undefined {
  const isJudged = call.file.kind !== 'unknown' && call.struct.length > 0;
  if (call.event.ret !== -1 || isJudged) return undefined;
  return possibleKinds(call).flatMap((kind) => candidatesOn(call, kind));
}

function candidatesOn(call: Call, kind: CommandKind): Candidate[] {
  const { event } = call;
  const command = call.file.kind === kind || event.kind !== 'ioctl' ? call.name : commandName(kind, event.request);
  return rejections(call.kind === SPAPR_CONTAINER ? SPAPR_CONTAINER : kind, command)
    .filter((rule) => gives(call.tx, rule, event.errno))
    .filter((rule) => call.file.kind !== kind || !isExcluded(call, rule.id))
    .map((rule) => ({ kind, command, rule }));
}

/** All rules that reject a command, in order, each once. */
export function rejections(kind: CommandKind | typeof SPAPR_CONTAINER, command: string): readonly Rule[] {
  const found = new Set<Rule>();
  const rules = allRules();
  for (const id of rulesOfCommand(kind, command)) {
    const isPrefix = id.endsWith('.') || id.endsWith('-');
    for (const rule of rules)
      if (rule.errno !== '' && (isPrefix ? rule.id.startsWith(id) : rule.id === id)) found.add(rule);
  }
  return [...found];
}

/** Rules whose error depends on the release; see {@link profileOf}. */
const OVERFLOWS: ReadonlySet<string> = new Set([
  'map-dma.iova-overflow',
  'map-dma.vaddr-overflow',
  'unmap-dma.overflow',
  'dirty-pages.overflow',
]);
/** Errors that a rule gives besides the one of its table. */
const ALSO: Readonly<Record<string, string>> = { 'hwpt-alloc.data-size': 'EFAULT' };

/** Whether a rejection by the rule can be this error. */
export function gives(tx: Tx, rule: Rule, errno: string): boolean {
  if (OVERFLOWS.has(rule.id)) return profileOf(tx).rangeOverflowErrno === errno;
  return rule.errno === errno || ALSO[rule.id] === errno;
}
