import { FEATURE_MASK, findFeature, MIG_STATES } from '../../../core/uapi/vfio-feature.js';
import type { Explanations } from '../../explain.js';
import { PAGES_MEMLOCK } from '../../iommufd/charges.js';
import { attachShortageText } from '../../iommufd/asked.js';
import type { Call } from '../../call.js';
import { givenText } from '../../explain-given.js';
import { CALL_EXPLANATIONS } from '../../iommufd/explain-calls.js';
import { deviceKey, smallFact } from '../facts.js';
import { FEATURE_GET, FEATURE_PROBE, FEATURE_SET } from '../uapi.js';

/** Why calls on devices fail, in particulars. ATTACH_IOMMUFD_PT: argsz 0, flags 4, pt_id 8. */
export const DEVICE_EXPLANATIONS: Explanations = {
  ...CALL_EXPLANATIONS,
  'bind.again': (call) => `${givenText(call)}; ${call.file.path}`,
  'device.no-access': (call) => call.file.path,
  'hot-reset.root-bus': (call) => `device ${call.file.objectKey}`,
  'irq-info.index': countedText('num_irqs', 'interrupts'),
  'region-info.index': countedText('num_regions', 'regions'),
  'attach-pt.ok': attachShortage,
  [PAGES_MEMLOCK]: attachShortage,
  'mig-state.no-way': stateText,
  'mig-state.incomplete': stateText,
  'feature.unsupported': featureText,
  'feature.operation': featureText,
  'set-irqs.range': irqText,
  'set-irqs.vector': irqText,
  'set-irqs.other-kind': irqText,
  'set-irqs.not-enabled': irqText,
};

/** The index that was asked for, and how many GET_INFO told. */
function countedText(fact: string, what: string): (call: Call) => string {
  return (call) => {
    const count = smallFact(call.tx, deviceKey(call.file.objectKey, fact));
    return `${givenText(call)}${count === undefined ? '' : `; the device has ${count} ${what}`}`;
  };
}

/** The state that was asked for, and the one that the device is left in: steps that were made stay made. */
function stateText(call: Call): string {
  const state = call.tx.world.devices.get(call.file.objectKey)?.migration.state ?? -1;
  if (!call.struct.has(STATE_OFFSET, 4)) return '';
  const asked = `${stateName(call.struct.u32(STATE_OFFSET))} was asked for; the device is left in ${stateName(state)}`;
  return call.rule === 'mig-state.incomplete' ? `${asked}, with ${writtenBytes(call)} bytes written` : asked;
}

function writtenBytes(call: Call): number {
  const { world } = call.tx;
  const file = world.migrations.get(world.devices.get(call.file.objectKey)?.migration.resuming ?? 0);
  return file?.positionBytes ?? 0;
}

const STATE_OFFSET = 8;

/** `STOP_COPY`; of a state that nothing told, that. */
export function stateName(state: number): string {
  if (state < 0) return 'a state that was not shown';
  return MIG_STATES.values.find(({ value }) => value === state)?.label ?? `state ${state}`;
}

/** The feature by its name, and what was asked of it: flags at 4. */
function featureText(call: Call): string {
  if (!call.struct.has(4, 4)) return '';
  const flags = call.struct.u32(4);
  const asked = OPERATIONS.filter(([, bit]) => (flags & bit) !== 0).map(([name]) => name);
  return `${asked.join('|')} of ${findFeature(flags)?.name ?? `feature ${flags & FEATURE_MASK}`}`;
}

const OPERATIONS = [
  ['PROBE', FEATURE_PROBE],
  ['GET', FEATURE_GET],
  ['SET', FEATURE_SET],
] as const;

/** flags 4, index 8, start 12, count 16. */
function irqText(call: Call): string {
  if (!call.struct.has(8, 12)) return '';
  const irqs = call.tx.world.devices.get(call.file.objectKey)?.irqs;
  const enabled = irqs === undefined || irqs.type < 0 ? 'no index is enabled' : `index ${irqs.type} is enabled`;
  const vectors = irqs !== undefined && irqs.type >= 0 ? ` with ${irqs.vectors} vectors` : '';
  const { struct } = call;
  return `index ${struct.u32(8)}, start ${struct.u32(12)}, count ${struct.u32(16)}; ${enabled}${vectors}`;
}

/** An attach that was to succeed, or not for the limit, and had too little memory. */
function attachShortage(call: Call): string {
  const context = call.tx.world.devices.get(call.file.objectKey)?.iommufd ?? 0;
  if (call.recordedErrno !== 'ENOMEM' || context === 0 || !call.struct.has(8, 4)) return '';
  return attachShortageText(call.tx, context, call.struct.u32(8));
}
