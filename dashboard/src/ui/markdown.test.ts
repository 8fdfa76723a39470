import { createElement } from 'react';
import { renderToStaticMarkup } from 'react-dom/server';
import { expect, test } from 'vitest';

import { ExternalLink } from './external-link';
import { Markdown } from './markdown';

const html = (text: string) =>
  renderToStaticMarkup(createElement(Markdown, { text })).replace(/ (class|rel|target)="[^"]*"/g, '');

test.each([
  ['an entity', '[a&#x202e;b](https://evil.example)'],
  ['a named entity', '[a&lrm;b](https://evil.example)'],
  ['the character', '[a\u202eb](https://evil.example)'],
  ['a tag, which is invisible', '[a&#xe0041;b](https://evil.example)'],
])('the text of a link cannot disguise its host by %s', (_, text) => {
  expect(html(text)).toMatch(/<a href="https:\/\/evil.example">a⟨U\+[0-9A-F]{4,5}⟩b <bdi>\(evil.example\)<\/bdi><\/a>/);
});

test.each([
  '# x',
  '> x',
  '- x',
  '**x**',
  '`x`',
  '```\nx\n```',
  '| x |\n|---|\n| x |',
  '<b>x',
  '![x](https://a.example)',
])('no character that deceives is left in %j', (text) => {
  for (const source of [text.replaceAll('x', '&#x202e;'), text.replaceAll('x', '\u202e')])
    expect(html(source)).not.toContain('\u202e');
});

test('the ends of lines in the format of Windows are not shown', () => {
  expect(html('```\r\none\r\ntwo\r\n```')).toContain('<pre><code>one\ntwo\n</code></pre>');
});

test('the host of a link is isolated from a text that is written from right to left', () => {
  const link = createElement(ExternalLink, { url: 'https://1.2.3.4/', children: 'אבג' });
  expect(renderToStaticMarkup(link)).toMatch(/<bdi[^>]*>\(1\.2\.3\.4\)<\/bdi>/);
});
