/** Characters that deceive, in Markdown: entities such as `&#x202e;` stand for them, so that they appear only here. */

import { visible } from '../lib/ansi';

interface Node {
  type: string;
  value?: string;
  children?: Node[];
}

/** A plugin of rehype that shows such characters by their code. HTML, a raw node, becomes text after all plugins. */
export function visibleText(): (tree: Node) => void {
  return show;
}

function show(node: Node): void {
  if ((node.type === 'text' || node.type === 'raw') && node.value !== undefined)
    node.value = visible(node.value.replace(/\r\n?/g, '\n'));
  node.children?.forEach(show);
}
