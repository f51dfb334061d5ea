/** One open of /dev/vfio/vfio. */
export interface VfioContainer {
  readonly id: number;
}

/** A group of /dev/vfio/N, by number. */
export interface VfioGroup {
  readonly id: number;
}

/** A device, by its name on its bus or its cdev path. */
export interface VfioDevice {
  readonly name: string;
}
