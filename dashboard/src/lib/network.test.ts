import { expect, test } from 'vitest';

import { networkRule, networkText, type NetworkRule } from './network';

test.each<[string, NetworkRule | null]>([
  ['', null],
  [' , ', { allow: [] }],
  [' none ', 'none'],
  ['open', 'open'],
  ['public', 'public'],
  ['npm,*.example.com', { allow: ['npm', '*.example.com'] }],
  ['open, npm', { allow: ['open', 'npm'] }],
])('%j is read as a rule', (text, rule) => {
  expect(networkRule(text)).toEqual(rule);
});

test.each<NetworkRule>(['open', 'public', 'none', { allow: [] }, { allow: ['open'] }, { allow: ['none', 'npm'] }])(
  'the rule %j survives the way through its text',
  (rule) => {
    expect(networkRule(networkText(rule))).toEqual(rule);
  },
);

test('a rule is shown as the text that it is read from', () => {
  expect(networkText('none')).toBe('none');
  expect(networkText({ allow: ['npm', '*.example.com'] })).toBe('npm, *.example.com');
});
