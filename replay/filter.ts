import type { EventKind } from '../core/event.js';
import type { JudgedEvent } from './judged.js';

/** Which events somebody wants to see. */
export interface EventFilter {
  /** First and last `seq`, both included. */
  readonly from: number;
  readonly to: number;
  /** Kinds of event; all when empty. */
  readonly kinds: readonly EventKind[];
  /** Names of calls, `*` for any text, upper or lower case; all when empty. */
  readonly calls: readonly string[];
  /** Only calls of modelled interfaces that failed. */
  readonly failed?: boolean;
}

/** A test for the filter's kinds and calls. */
export function matcher(filter: EventFilter, nameOf: (each: JudgedEvent) => string): (each: JudgedEvent) => boolean {
  const kinds = new Set<string>(filter.kinds);
  const patterns = filter.calls.map(callPattern);
  return (each) => {
    const { seq, kind } = each.event;
    if (seq < filter.from || seq > filter.to) return false;
    if (filter.failed && !hasFailed(each)) return false;
    if (kinds.size > 0 && !kinds.has(kind)) return false;
    return patterns.length === 0 || patterns.some((pattern) => pattern.test(nameOf(each)));
  };
}

function hasFailed({ event, judged }: JudgedEvent): boolean {
  return judged !== undefined && 'ret' in event && event.ret === -1;
}

/** `vfio_iommu_*` as a regular expression over whole names. */
export function callPattern(text: string): RegExp {
  const escaped = text.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${escaped.join('.*')}$`, 'i');
}
