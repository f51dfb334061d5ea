import type { Tx } from '../../tx.js';
import { smallFact } from '../facts.js';
import type { VfioDevice } from '../state.js';
import { IRQ_INFO_NORESIZE, IRQ_MSIX } from '../uapi.js';
import { irqKey } from './irq-info.js';

export const IRQ_INFO_NO_RESIZE_KNOWN =
  'whether MSI-X vectors can be added while enabled was not asked (GET_IRQ_INFO, flag NORESIZE)';

/** Whether vectors can be added while the kind is enabled: MSI never, MSI-X as GET_IRQ_INFO said. */
export function msiResizes(tx: Tx, device: VfioDevice, index: number): boolean | undefined {
  if (index !== IRQ_MSIX) return false;
  const flags = smallFact(tx, irqKey(device.name, index, 'flags'));
  return flags === undefined ? undefined : (flags & IRQ_INFO_NORESIZE) === 0;
}
