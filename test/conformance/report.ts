// How verdicts are shown: a line each and the totals, or a table for docs/conformance.md.
import type { Verdict } from './judge.ts'

const shown = { passed: 'pass', failed: 'FAIL', 'not applicable': 'not applicable' } as const

function remarkOf(verdict: Verdict): string {
  if (verdict.kind !== 'passed') return `: ${verdict.reason}`
  return verdict.by === 1 ? '' : ` (${verdict.by} tests)`
}

export function toText(verdict: Verdict): string {
  const { id, mark, says } = verdict.line
  const outcome = shown[verdict.kind].padEnd(14)
  return `${id.padEnd(6)} ${mark} ${outcome} ${says}${remarkOf(verdict)}`
}

export function totalsOf(verdicts: readonly Verdict[]) {
  const count = (kind: Verdict['kind']) => verdicts.filter((it) => it.kind === kind).length
  return { passed: count('passed'), failed: count('failed'), not: count('not applicable') }
}

export function totalLine(verdicts: readonly Verdict[]): string {
  const { passed, failed, not } = totalsOf(verdicts)
  return `conformance: ${passed} passed, ${failed} failed, ${not} not applicable`
}

export interface Column {
  readonly name: string
  readonly verdicts: readonly Verdict[]
}

const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;')

function verdictCell(verdict: Verdict | undefined): string {
  if (verdict === undefined) return ''
  return verdict.kind === 'failed' ? '**fail**' : verdict.kind === 'passed' ? 'pass' : 'n/a'
}

/** One table per section, then the reasons of what failed or does not apply, column by column. */
export function toMarkdown(columns: readonly Column[], date: string): string {
  const [first] = columns
  const lines = first?.verdicts.map(({ line }) => line) ?? []
  const names = columns.map(({ name }) => name)
  const of = ({ verdicts }: Column, id: string) => verdicts.find(({ line }) => line.id === id)
  const tables = [...Map.groupBy(lines, ({ section }) => section)].map(([section, rows]) => {
    const body = rows.map(({ id, mark, says }) => {
      const cells = columns.map((column) => verdictCell(of(column, id)))
      return `| ${[id, mark, cell(says), ...cells].join(' | ')} |`
    })
    const head = `| line | | in our words | ${names.join(' | ')} |`
    return [
      `### ${section}`,
      '',
      head,
      `|---|---|---|${'---|'.repeat(names.length)}`,
      ...body,
    ].join('\n')
  })
  const totals = columns.map(({ name, verdicts }) => `- ${name}: ${totalLine(verdicts)}`)
  const reasons = columns.flatMap(({ name, verdicts }) => reasonsOf(name, verdicts))
  return [`Recorded ${date}.`, totals.join('\n'), ...tables, ...reasons].join('\n\n')
}

/** Lines with one reason stand together. */
function reasonsOf(name: string, verdicts: readonly Verdict[]): readonly string[] {
  const listed = (kind: 'failed' | 'not applicable', title: string) => {
    const some = verdicts.flatMap((it) => (it.kind === kind ? [it] : []))
    const rows = [...Map.groupBy(some, ({ reason }) => reason)].map(
      ([reason, same]) => `- ${same.map(({ line }) => line.id).join(', ')}: ${cell(reason)}`,
    )
    return rows.length === 0 ? [] : [`### ${name}: ${title}`, rows.join('\n')]
  }
  return [...listed('failed', 'what failed'), ...listed('not applicable', 'what does not apply')]
}
