import { readdirSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { ruleText } from './rules.js';

const test = suite('rules');
const here = new URL('.', import.meta.url);

test('every table of rules is listed, and every rule has a text', async () => {
  const files = readdirSync(here, { recursive: true, encoding: 'utf8' }).filter((name) =>
    /(?<!\.test)\.js$/.test(name),
  );
  let tables = 0;
  for (const file of files) {
    const exports = (await import(new URL(file, here).href)) as Record<string, object>;
    for (const [name, table] of Object.entries(exports).filter(([name]) => name.endsWith('_RULES'))) {
      tables++;
      for (const { id } of Object.values(table) as { id: string }[])
        assert.ok((ruleText(id)?.length ?? 0) > 5, `${file}: ${name}: ${id} is not in reducers/rules.ts`);
    }
  }
  assert.ok(tables > 40, `${tables} tables found`);
});

test('an unknown rule has no text', () => {
  assert.is(ruleText('nope'), undefined);
});
