// The checklist as data: every requirement of the SPIFFE standards, and what SPIRE got wrong once.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Line {
  readonly id: string
  /** must, should, open; a note or a past defect of SPIRE */
  readonly mark: 'M' | 'S' | 'O' | '-'
  readonly section: string
  readonly says: string
  /** why nobody can pass or fail it, unless a test names it */
  readonly notApplicable: string | undefined
}

const form = /^(?<id>(?:ID|X5|JW|WT|TB|FE|WA|WE|BR)-\d+b?|R\d+) (?<mark>[MSO-]) (?<says>\S.*)$/
const isMark = (text: string): text is Line['mark'] => ['M', 'S', 'O', '-'].includes(text)

/** The ids that `text` names, such as the name of a test. */
export function idsIn(text: string): readonly string[] {
  const found = text.matchAll(/(?<![\w-])(?:(?:ID|X5|JW|WT|TB|FE|WA|WE|BR)-\d+b?|R\d+)(?![\w-])/g)
  return [...new Set([...found].map(([id]) => id))]
}

/** Throws for a row that is none, and for an id that stands twice. */
export function parseChecklist(text: string): readonly Line[] {
  const lines: Line[] = []
  let section = ''
  let ofSection: string | undefined
  for (const row of text.split('\n')) {
    const { id = '', mark = '', says = '' } = form.exec(row)?.groups ?? {}
    const last = lines.at(-1)
    if (row === '' || row.startsWith('#')) continue
    if (row.startsWith('  ') && last?.section === section)
      lines.splice(-1, 1, { ...last, notApplicable: row.trim() })
    else if (row.startsWith('  ')) ofSection = row.trim()
    else if (/^\d/.test(row)) [section, ofSection] = [row, undefined]
    else if (!isMark(mark)) throw new Error(`no line of a checklist: ${row}`)
    else if (lines.some((line) => line.id === id)) throw new Error(`${id} stands twice`)
    else lines.push({ id, mark, section, says, notApplicable: ofSection })
  }
  return lines
}

export function readChecklist(): readonly Line[] {
  return parseChecklist(readFileSync(join(import.meta.dirname, 'checklist.txt'), 'utf8'))
}
