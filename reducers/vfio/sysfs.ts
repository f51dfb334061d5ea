import type { FileFamily } from '../family.js';
import type { Tx } from '../tx.js';

/**
 * Which device a cdev belongs to. /dev/vfio/devices/vfio2 does not say; a program finds its name in the directory
 * `vfio-dev` of the device in sysfs, and a recording shows it doing so: it opens that directory, or a file below
 * that names both, and then the cdev. So a device has one name, and one set of facts, by whichever way it is opened.
 */

const VFIO_DEV = /\/([^/]+)\/vfio-dev(?:\/(vfio\d+))?(?:\/|$)/;
const LOOKED_AT = 'vfio-cdev/looked-at';

/** The device that a cdev's name stands for: its name on the bus where the recording tells it, else the cdev's. */
export function deviceOfCdev(tx: Tx, cdev: string, seq: number): string {
  const known = tx.world.facts.get(cdevKey(cdev))?.value;
  if (typeof known === 'string') return known;
  const lookedAt = tx.world.facts.get(LOOKED_AT)?.value;
  if (typeof lookedAt !== 'string' || lookedAt === '' || tx.world.devices.has(cdev)) return cdev;
  link(tx, cdev, lookedAt, seq);
  return lookedAt;
}

function cdevKey(cdev: string): string {
  return `vfio-cdev/${cdev}`;
}

/** Keeps that the cdev is the device's; a directory that was looked at explains one cdev only. */
function link(tx: Tx, cdev: string, device: string, seq: number): void {
  tx.world.facts.set(cdevKey(cdev), Object.freeze({ value: device, since: seq }));
  tx.world.facts.set(LOOKED_AT, Object.freeze({ value: '', since: seq }));
}

/** Ordinary files: only those of sysfs that name a device's cdev mean something here. */
export const sysfsFamily: FileFamily = {
  open(tx, file, event) {
    if (!file.path.startsWith('/sys/')) return file;
    const match = VFIO_DEV.exec(file.path);
    const device = match?.[1];
    if (match === null || device === undefined) return file;
    const cdev = match[2];
    if (cdev === undefined) tx.world.facts.set(LOOKED_AT, Object.freeze({ value: device, since: event.seq }));
    else link(tx, cdev, device, event.seq);
    return file;
  },
};
