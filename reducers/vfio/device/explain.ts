import type { Explanations } from '../../explain.js';
import { PAGES_MEMLOCK } from '../../iommufd/charges.js';
import { attachShortageText } from '../../iommufd/asked.js';
import type { Call } from '../../call.js';

/** Why calls on devices fail, in particulars. ATTACH_IOMMUFD_PT: argsz 0, flags 4, pt_id 8. */
export const DEVICE_EXPLANATIONS: Explanations = {
  'attach-pt.ok': attachShortage,
  [PAGES_MEMLOCK]: attachShortage,
};

/** An attach that was to succeed, or not for the limit, and had too little memory. */
function attachShortage(call: Call): string {
  const context = call.tx.world.devices.get(call.file.objectKey)?.iommufd ?? 0;
  if (call.recordedErrno !== 'ENOMEM' || context === 0 || !call.struct.has(8, 4)) return '';
  return attachShortageText(call.tx, context, call.struct.u32(8));
}
