// Findings for people and for programs.
import { answer, type Context, table } from '../context.ts'
import { type Finding, type Inspection, isValid } from './finding.ts'

/** What a stranger wrote, without what a terminal would obey. */
function printable(text: string): string {
  return text.replace(
    /[\p{C}\p{Zl}\p{Zp}]/gu,
    (it) => `\\u{${(it.codePointAt(0) ?? 0).toString(16)}}`,
  )
}

function verdictOf({ level, verdict }: Finding): string {
  if (verdict === 'not judged') return '?'
  if (verdict === 'holds') return 'yes'
  return level === 'must' ? 'NO' : 'advice'
}

const factText = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

function factLines({ facts }: Inspection): string[] {
  return Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => `  ${name}: ${factText(value)}`)
}

function details(it: Inspection): string {
  const rows = it.findings.map((found) => [verdictOf(found), found.rule, found.reason])
  const lines = table([['HOLDS', 'RULE', 'WHY NOT'], ...rows.map((row) => row.map(printable))])
  const head = `${it.where}: ${it.what}, ${isValid(it) ? 'valid' : 'NOT valid'}`
  return [...[head, ...factLines(it)].map(printable), lines.replace(/^/gm, '  '), ''].join('\n')
}

function brokenOf({ findings }: Inspection): string {
  const broken = findings.filter(({ verdict, level }) => verdict === 'broken' && level === 'must')
  return broken.map(({ rule, reason }) => `${rule} (${reason})`).join('; ')
}

function overview(items: readonly Inspection[]): string {
  const rows = items.map((it) => [it.where, isValid(it) ? 'yes' : 'NO', it.what, brokenOf(it)])
  return table([['WHERE', 'VALID', 'WHAT', 'WHY NOT'], ...rows.map((row) => row.map(printable))])
}

function plain(it: Inspection) {
  const { kind, where, what, facts, findings: rules } = it
  return { kind, where, valid: isValid(it), what, ...facts, rules }
}

/** JSON: one value per line. People: one line for each of many, all rules of a few. */
export function print(context: Context, items: readonly Inspection[], isBatch: boolean): void {
  if (context.isJson) for (const it of items) answer(context, plain(it), () => '')
  else if (isBatch && items.length > 1) answer(context, items, () => overview(items))
  else answer(context, items, () => items.map(details).join('\n').trimEnd())
}
