/** Network rules of agents as texts that people write: `open`, `none`, or host names with commas between them. */

export type NetworkRule = 'open' | 'none' | { allow: string[] };

export function networkText(rule: NetworkRule): string {
  return typeof rule === 'string' ? rule : rule.allow.join(', ');
}

/** The rule in a text; null for an empty one. The API checks the names. */
export function networkRule(text: string): NetworkRule | null {
  const words = text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
  if (words.length === 0) return null;
  const [first] = words;
  return words.length === 1 && (first === 'open' || first === 'none') ? first : { allow: words };
}
