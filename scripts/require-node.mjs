// The first import of every script: an old Node stops here with a sentence, not at a missing function later.
// Written in syntax that such a Node can parse.
import { readFileSync } from 'fs';

const needed = /(\d+)\.(\d+)/.exec(
  JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).engines.node,
);
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < Number(needed[1]) || (major === Number(needed[1]) && minor < Number(needed[2]))) {
  console.error(`iotape needs Node ${needed[0]} or newer; this is ${process.versions.node} (see https://nodejs.org)`);
  process.exit(2);
}
