/**
 * Network rules of agents as texts that people write: `open`, `public`, `none`, or host names with commas between them.
 * A text with a comma is always a list, so that each rule has a text.
 */

export type NetworkRule = Word | { allow: string[] };

type Word = 'open' | 'public' | 'none';

export function networkText(rule: NetworkRule): string {
  if (typeof rule === 'string') return rule;
  const [host, ...others] = rule.allow;
  const isAmbiguous = host === undefined || (others.length === 0 && isWord(host));
  return isAmbiguous ? `${host ?? ''},` : rule.allow.join(', ');
}

/** The rule in a text; null for an empty one. The API checks the names. */
export function networkRule(text: string): NetworkRule | null {
  const only = text.trim();
  if (only === '') return null;
  const words = only.split(',').map((word) => word.trim());
  return isWord(only) ? only : { allow: words.filter((word) => word !== '') };
}

function isWord(text: string): text is Word {
  return text === 'open' || text === 'public' || text === 'none';
}
