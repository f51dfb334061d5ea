/** One line on when a rule of the model applies; undefined for an unknown one. */
export function ruleText(_rule: string): string | undefined {
  return undefined;
}
