// docs/RULES.md, made from the rule tables beside the reducers and the table of what may be learned.

/** The whole document: rules by command or object in the order of their checks, then invariants, then facts. */
export function rulesDocument(rules, invariants, facts) {
  const groups = new Map();
  for (const rule of rules) {
    const [name] = rule.id.split('.');
    groups.set(name, [...(groups.get(name) ?? []), rule]);
  }
  const sections = [...groups]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, own]) => {
      const rows = own.map((rule) => `| ${rule.id} | ${rule.errno === '' ? '-' : rule.errno} | ${cell(rule.text)} |`);
      return [`## ${name}`, '', '| Rule | Answer | When |', '|---|---|---|', ...rows].join('\n');
    });
  const learned = facts.map((fact) => `| ${cell(fact.pattern)} | ${cell(fact.field)} | ${cell(fact.why)} |`);
  const held = invariants.map(({ name, why }) => `| ${name} | ${cell(why)} |`);
  return `# Rules of the model

Made by \`npm run docs\` from the tables beside the reducers. A divergence names the rule that decided. Within one section
rules stand in the order of the kernel's checks: the first that applies answers.

${sections.join('\n\n')}

## Invariants

What must hold at any time, whoever calls; a breach is a finding.

| Invariant | Why |
|---|---|
${held.join('\n')}

# What may be learned

Facts of the machine that no model can know. Each is taken from the recording once and must then stay so; everything that is
not listed is predicted. \`*\` stands for a device, group or number.

| Fact | Field | What it is |
|---|---|---|
${learned.join('\n')}
`.replace('\n# What may be learned', '\n## What may be learned');
}

function cell(text) {
  return text.replaceAll('|', '\\|').replaceAll('*', '\\*');
}
