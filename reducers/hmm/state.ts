/** One open of a dmirror device. */
export interface Mirror {
  readonly id: number;
}
