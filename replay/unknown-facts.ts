import { hex } from '../core/u64.js';
import { commandName, commandByName, findCommand } from '../core/uapi/lookup.js';
import type { Command, CommandKind } from '../core/uapi/types.js';
import type { Call } from '../reducers/call.js';
import { KERNEL_DIES } from '../reducers/hmm/answer.js';
import { listText } from '../reducers/explain.js';
import type { Process } from '../reducers/files/state.js';

/** What is known of a call that cannot be judged, what is not, and what to record to settle it. */

/**
 * `start`: the recording from the program's start, with the files behind fds. `structs`: the structs that ioctls pass.
 * `result`: the end of the call. `touches`: what the CPU did to memory. `model`: nothing, iotape does not model it.
 */
export type Lack = 'start' | 'structs' | 'result' | 'touches' | 'model';

/** Kinds of file in words. */
export const KIND_TEXT: Readonly<Record<CommandKind, string>> = {
  'vfio-container': 'a VFIO container',
  'vfio-group': 'a VFIO group',
  'vfio-device': 'a VFIO device',
  'vfio-migration': 'a migration data fd',
  iommufd: '/dev/iommu',
  dmirror: 'an HMM test device',
};

/** What success of a command says, and what it does not; for those where that surprises. */
const SUCCESS: Readonly<Record<string, string>> = {
  VFIO_IOMMU_UNMAP_DMA:
    'success does not say that anything was unmapped: where nothing is mapped it succeeds too, and the size that it ' +
    'writes back tells how much went',
  VFIO_IOMMU_MAP_DMA: 'the range was free and allowed, and is mapped now',
  IOMMU_IOAS_MAP: 'the range was free and allowed, and is mapped now',
  IOMMU_IOAS_UNMAP: 'whole areas of the range went, at least one, and none was cut',
  IOMMU_TEST_CMD: 'the kernel was built with the iommufd self-tests (CONFIG_IOMMUFD_TEST): no other has the command',
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY: 'the memory is pinned and counted as locked; the time goes into pinning its pages',
};

export function knownOf(call: Call, kinds: readonly CommandKind[]): string[] {
  const known = [fileText(call, kinds), ...stateText(call)];
  if (call.event.errno === 'ENOMEM') known.push(limitText(call.process));
  if (call.event.ret !== null && call.event.ret !== -1)
    for (const name of namesOn(call, kinds))
      if (Object.hasOwn(SUCCESS, name)) known.push(`${kinds.length > 1 ? `${name}: ` : ''}${SUCCESS[name]}`);
  return known.filter((text) => text !== '');
}

function limitText({ memlock }: Process): string {
  return `RLIMIT_MEMLOCK of the process is ${memlock.bytes === null ? 'not recorded' : `${memlock.bytes} bytes`}`;
}

function namesOn(call: Call, kinds: readonly CommandKind[]): string[] {
  const { event } = call;
  if (kinds.length === 1 || event.kind !== 'ioctl') return [call.name];
  return [...new Set(kinds.map((kind) => commandName(kind, event.request)))];
}

function fileText(call: Call, kinds: readonly CommandKind[]): string {
  const { file, event } = call;
  const fd = `fd ${event.fd}`;
  if (file.kind !== 'unknown') {
    const what = KIND_TEXT[kinds[0] ?? 'iommufd'];
    const isNamed = file.path !== '' && file.path !== what && !file.path.startsWith('anon_inode:');
    const since = file.complete ? `opened by event ${file.openedAt}` : 'open before the recording began';
    return `${fd} is ${what}${isNamed ? ` (${file.path})` : ''}, ${since}`;
  }
  if (event.kind !== 'ioctl' || kinds.length === 0) return '';
  const byName = new Map<string, string[]>();
  for (const kind of kinds) {
    const name = commandName(kind, event.request);
    byName.set(name, [...(byName.get(name) ?? []), KIND_TEXT[kind]]);
  }
  const choices = [...byName].map(([name, files]) => `${files.join(' or ')} (${name})`);
  const told = event.ret === -1 ? `, by its number and ${event.errno}` : ', by its number';
  return `${fd} is ${choices.join(', or ')}${told}`;
}

/** What the model knows of the object behind the fd. */
function stateText(call: Call): string[] {
  const { world } = call.tx;
  switch (call.file.kind) {
    case 'vfio-container': {
      const container = world.containers.get(call.file.object);
      if (container === undefined || container.backend === 'unknown') return [];
      const groups = container.groups.map((id) => world.groups.get(id)?.path || `group ${id}`);
      const has = groups.length === 0 ? 'no group' : listText(groups);
      return [`its backend is ${container.backend}${call.file.complete ? `, it has ${has}` : ''}`];
    }
    case 'iommufd': {
      const context = world.iommufds.get(call.file.object);
      const ids: string[] = [];
      for (const object of context?.objects.values() ?? []) if (object.type === 'ioas') ids.push(String(object.id));
      return ids.length === 0 ? [] : [`it has IOAS ${listText(ids)}`];
    }
    default:
      return [];
  }
}

export function missingOf(call: Call, kinds: readonly CommandKind[]): string[] {
  const missing: string[] = [];
  const { file, event } = call;
  if (file.kind === 'unknown') missing.push(`which file fd ${event.fd} is`);
  else if (!file.complete) missing.push('what was done with the file before the recording began');
  if (event.ret === null && call.unknownReason !== KERNEL_DIES) missing.push('how the call ended');
  const struct = structText(call, kinds);
  if (struct !== '') missing.push(struct);
  return missing;
}

/** `the struct at 0x7ffd5c42f0: flags, iova, size`; '' where there is none, or where it was recorded. */
function structText(call: Call, kinds: readonly CommandKind[]): string {
  if (!lacksStruct(call, kinds)) return '';
  const commands = commandsOn(call, kinds);
  const byCommand = new Map(commands.map((command) => [command.name, listText(fieldsOf(command), 7)]));
  const texts = [...byCommand].map(([name, fields]) => (byCommand.size > 1 ? `${fields} (${name})` : fields));
  return `what is at ${hex(call.arg)}: ${texts.join(', or ')}`;
}

function fieldsOf({ arg, struct, sizeRule }: Command): string[] {
  if (arg === 'string') return ['a name'];
  if (arg === 'fd') return ['an fd'];
  const fields = struct?.fields ?? [];
  return fields.filter(({ name, direction }) => direction !== 'reserved' && name !== sizeRule).map(({ name }) => name);
}

function commandsOn(call: Call, kinds: readonly CommandKind[]): Command[] {
  const { event } = call;
  if (event.kind !== 'ioctl') return [];
  const named = commandByName(call.name);
  if (kinds.length === 1 && named !== undefined) return [named];
  return kinds.flatMap((kind) => findCommand(kind, event.request) ?? []);
}

function lacksStruct(call: Call, kinds: readonly CommandKind[]): boolean {
  const takes = commandsOn(call, kinds).some(({ arg }) => arg === 'struct' || arg === 'fd' || arg === 'string');
  return takes && call.struct.length === 0;
}

export function lacksOf(call: Call, kinds: readonly CommandKind[], because: string): Lack[] {
  if (/not modelled/.test(because)) return ['model'];
  const lacks: Lack[] = [];
  const { file, event } = call;
  if (file.kind === 'unknown' || !file.complete || /outside of the recording|before the recording/.test(because))
    lacks.push('start');
  // Of a device whose name was not recorded nothing is known that depends on what it is.
  const isUnnamed = file.objectKey.startsWith('unnamed');
  const isUnseen = because.startsWith('payload not recorded') || /unknown since event/.test(because);
  if (isUnseen || isUnnamed || lacksStruct(call, kinds)) lacks.push('structs');
  if (event.ret === null && because !== KERNEL_DIES) lacks.push('result');
  if (/what the CPU touched|which device pages are free/.test(because)) lacks.push('touches');
  return lacks;
}
