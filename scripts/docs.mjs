// npm run docs: writes the documents that are made from code.
import { build } from './setup.mjs';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorsDocument } from './errors-document.mjs';
import { ROOT } from './files.mjs';
import { rulesDocument } from './rules-document.mjs';

build();
const { CODES } = await import('../dist/core/errors.js');
mkdirSync(join(ROOT, 'docs'), { recursive: true });
writeFileSync(join(ROOT, 'docs/ERRORS.md'), errorsDocument(CODES));
const { allRules } = await import('../dist/reducers/rules.js');
const { LEARNABLE_FACTS } = await import('../dist/reducers/facts.js');
const { invariants } = await import('../dist/reducers/invariants/index.js');
writeFileSync(join(ROOT, 'docs/RULES.md'), rulesDocument(allRules(), invariants, LEARNABLE_FACTS));
