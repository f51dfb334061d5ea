import type { Bytes } from '../bytes.js';
import { formatNumber } from './format.js';
import type { Struct } from './types.js';
import { gfxEdid, migrationInfoV1 } from './vfio-info-caps.js';

/**
 * Regions whose content is a struct of the uAPI: they are read and written through the device's file, a field at a
 * time. A region says by the type and subtype of its capability which it is.
 */
const TYPE_GFX = 1;
const TYPE_MIGRATION_DEPRECATED = 3;

function structOf(type: number, subtype: number): Struct | undefined {
  if (subtype !== 1) return undefined;
  if (type === TYPE_GFX) return gfxEdid;
  return type === TYPE_MIGRATION_DEPRECATED ? migrationInfoV1 : undefined;
}

/** `device_state=RUNNING|SAVING` for an access to that field; the name alone for other widths, '' for no field. */
export function regionFieldText(type: number, subtype: number, offset: number, data: Bytes): string {
  const fields = structOf(type, subtype)?.fields ?? [];
  const field = fields.find((one) => offset >= one.offset && offset < one.offset + one.sizeBytes);
  if (field === undefined) return '';
  const whole = field.offset === offset && field.sizeBytes === data.length;
  if (!whole || field.shape.shape !== 'scalar') return field.name;
  const value = data.length === 8 ? data.u64(0) : data.u32(0);
  return `${field.name}=${formatNumber(value, field.shape.as)}`;
}
