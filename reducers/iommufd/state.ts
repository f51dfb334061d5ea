/** One open of /dev/iommu. */
export interface IommufdContext {
  readonly id: number;
}
