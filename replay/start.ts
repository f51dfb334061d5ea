import { DEFAULT_KERNEL, profileFor, worldOf } from '../reducers/profile.js';
import type { World } from '../reducers/world.js';
import type { Recording } from '../traces/recording.js';

/** The state before the first event of a recording: on the kernel that it names, else on the default one. */
export function startWorld(recording: Recording): World {
  const { kernel } = recording.info;
  return worldOf(profileFor(kernel) === undefined ? DEFAULT_KERNEL : kernel);
}
