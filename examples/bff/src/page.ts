// The page as HTML, for browsers.
import type { Entry } from './day.js';

const HEADINGS = ['Start', 'End', 'Phase', 'Reference', 'Claimant', 'Phone', 'Interpreter', 'Department'];

export function page(entries: Entry[]): string {
  const rows = entries.map((entry) =>
    'problem' in entry
      ? `<tr><td colspan="${HEADINGS.length}">${escape(entry.id)}: ${escape(entry.problem)}</td></tr>`
      : row([
          entry.start,
          entry.end,
          entry.phase,
          entry.reference,
          entry.claimant,
          entry.phone,
          entry.interpreter,
          entry.department,
        ]),
  );
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Appointments</title>
<table>
<tr>${HEADINGS.map((heading) => `<th>${heading}</th>`).join('')}</tr>
${rows.join('\n')}
</table>
</html>
`;
}

function row(cells: (string | null)[]): string {
  return `<tr>${cells.map((cell) => `<td>${escape(cell ?? '')}</td>`).join('')}</tr>`;
}

/** The data comes from people, so none of it becomes markup. */
function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
