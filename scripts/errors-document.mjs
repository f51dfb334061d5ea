// docs/ERRORS.md, made from the table of codes in core/errors.ts.

const GROUPS = [
  ['1', 'Recordings', 'The line or chunk is skipped, reading goes on, and the exit status does not change.'],
  ['2', 'Input that gives nothing usable', 'The exit status is 2.'],
  ['3', 'Arguments', 'The exit status is 2.'],
  ['4', 'Bugs of iotape', 'The replay goes on without the part that failed; the exit status is 70.'],
];

/** The whole document. Throws when a code belongs to no group: then GROUPS lacks one. */
export function errorsDocument(codes) {
  const names = Object.keys(codes).toSorted();
  const lost = names.filter((name) => !GROUPS.some(([digit]) => name.startsWith(`IOT${digit}`)));
  if (lost.length > 0) throw new Error(`no group for ${lost.join(', ')}`);
  const sections = GROUPS.map(([digit, title, about]) => {
    const rows = names
      .filter((name) => name.startsWith(`IOT${digit}`))
      .map((name) => `| ${name} | ${cell(codes[name].title)} | ${cell(codes[name].help)} |`);
    return [`## ${title}`, '', about, '', '| Code | Title | What to do |', '|---|---|---|', ...rows].join('\n');
  });
  return `# Error codes

Made by \`npm run docs\` from core/errors.ts. Each diagnostic prints as \`file:line:column: CODE title: particulars (what to
do)\` and stands under \`diagnostics\` in \`--json\` output. A code keeps its meaning for ever.

${sections.join('\n\n')}
`;
}

function cell(text) {
  return text.replaceAll('|', '\\|');
}
