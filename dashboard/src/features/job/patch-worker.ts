/** The worker that parses patches, so that the page stays responsive. */

import { parsePatch } from './patch';

self.onmessage = (message: MessageEvent<string>) => {
  self.postMessage(parsePatch(message.data));
};
