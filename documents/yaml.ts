// YAML read strictly, with places: every problem says file, line and field. Pure; used for
// configuration files and for policies alike.
import {
  type Document,
  isCollection,
  isMap,
  isNode,
  isScalar,
  LineCounter,
  type Pair,
  parseAllDocuments,
  visit,
} from 'yaml'
import type { z } from 'zod'
import { type ErrorCode, type FieldProblem, IdentityError } from '../spiffe/errors.ts'

/** Steps from the top of a document: keys and list positions. */
export type Path = readonly (string | number)[]

/** A document whose shape was checked. Lines count from 1. */
export interface Checked<T> {
  readonly value: T
  /** offsets in the text, from its `---` to that of the next document */
  readonly range: readonly [from: number, to: number]
  lineOf(path: Path): number
}

const largestText = 1024 * 1024
/** levels of lists and mappings */
const deepest = 32
const tooDeep = `nested deeper than ${deepest} levels`

/** `rules[0].to[1].operation.paths[2]`, as people write it. */
export function fieldName(path: Path): string {
  return path
    .map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`))
    .join('')
}

interface Source {
  readonly file: string
  readonly code: ErrorCode
  readonly lines: LineCounter
}

function lineAt(document: Document, path: Path, lines: LineCounter): number {
  for (let depth = path.length; depth >= 0; depth--) {
    const key = keyNode(document, path.slice(0, depth))
    const node =
      key ?? (depth === 0 ? document.contents : document.getIn(path.slice(0, depth), true))
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line
  }
  return 1
}

/** The node of the key itself, so that a problem with a mapping points at its name. */
function keyNode(document: Document, path: Path): unknown {
  const last = path[path.length - 1]
  if (typeof last !== 'string') return undefined
  const parent = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true)
  if (!isMap(parent)) return undefined
  const isIt = (pair: Pair) => isNode(pair.key) && String(pair.key) === last
  return parent.items.find(isIt)?.key
}

/** One problem per wrong place; an unknown key is a problem of its own. */
export function problemsOf(
  issues: readonly z.core.$ZodIssue[],
): { readonly path: Path; readonly problem: string }[] {
  return issues.flatMap((issue) => {
    const path = issue.path.filter((step) => typeof step !== 'symbol')
    if (issue.code !== 'unrecognized_keys') return [{ path, problem: issue.message }]
    return issue.keys.map((key) => ({ path: [...path, key], problem: 'unknown key' }))
  })
}

/** Throws one error that lists all problems, the first of them in its message. */
export function refuseAt(
  file: string,
  code: ErrorCode,
  problems: readonly { line: number; path: Path; problem: string }[],
): never {
  const fields: FieldProblem[] = problems.map(({ line, path, problem }) => {
    const field = fieldName(path)
    return { field: `${file}:${line}${field === '' ? '' : ` ${field}`}`, problem }
  })
  return refuseFields(code, fields)
}

/** Throws `code` with all of the problems; its message is the first one. */
export function refuseFields(code: ErrorCode, fields: readonly FieldProblem[]): never {
  const [first] = fields
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : ''
  throw new IdentityError(code, `${first?.field}: ${first?.problem}${more}`, { fields })
}

/**
 * Does `read` with each item, so that the problems of all are told at once: throws one error with the field
 * problems of each, in their order. Other errors are thrown as they come.
 */
export function readEach<T, R>(items: readonly T[], code: ErrorCode, read: (item: T) => R): R[] {
  const fields: FieldProblem[] = []
  const results: R[] = []
  for (const item of items) {
    try {
      results.push(read(item))
    } catch (error) {
      if (!(error instanceof IdentityError) || error.code !== code || error.fields.length === 0) {
        throw error
      }
      fields.push(...error.fields)
    }
  }
  return fields.length === 0 ? results : refuseFields(code, fields)
}

function checkSyntax(document: Document, { file, code, lines }: Source): void {
  const refuse = (offset: number, problem: string): never =>
    refuseAt(file, code, [{ line: lines.linePos(offset).line, path: [], problem }])
  const [error] = [...document.errors, ...document.warnings]
  if (error !== undefined) {
    // the parser's own recursion, told as an error of the document
    const isTooDeep = error.message.startsWith('Maximum call stack')
    refuse(error.pos[0], isTooDeep ? tooDeep : error.message)
  }
  // with %YAML 1.1 the same text means something else
  const { yaml, tags } = document.directives ?? {}
  if (yaml?.explicit === true || Object.keys(tags ?? {}).length > 1) {
    refuse(document.range?.[0] ?? 0, 'directives (%YAML, %TAG) are not accepted')
  }
  // a document of a few lines could expand without bound
  visit(document, {
    Collection: (_, { range }, path) => {
      if (path.filter(isCollection).length >= deepest) refuse(range?.[0] ?? 0, tooDeep)
    },
    Alias: (_, { range }) => refuse(range?.[0] ?? 0, 'aliases (&name, *name) are not accepted'),
  })
}

/** Nothing between two `---`, but for comments. */
function isEmpty({ contents, errors, range }: Document): boolean {
  const isNothing = isScalar(contents) && contents.source === '' && contents.tag === undefined
  return errors.length === 0 && range !== null && (contents === null || isNothing)
}

function checkOne<T>(document: Document, schema: z.ZodType<T>, source: Source): Checked<T> {
  checkSyntax(document, source)
  const result = schema.safeParse(document.toJS())
  if (!result.success) {
    const problems = problemsOf(result.error.issues).map((it) => ({
      ...it,
      line: lineAt(document, it.path, source.lines),
    }))
    return refuseAt(source.file, source.code, problems)
  }
  return {
    value: result.data,
    range: [document.range?.[0] ?? 0, document.range?.[2] ?? 0],
    lineOf: (path) => lineAt(document, path, source.lines),
  }
}

/**
 * Reads all documents of `text`; empty ones are skipped. Throws `code` with one field problem for each
 * wrong place: malformed YAML, duplicate keys, aliases, directives, unknown keys, wrong types.
 */
export function readDocuments<T>(
  text: string,
  file: string,
  schema: z.ZodType<T>,
  code: ErrorCode,
): Checked<T>[] {
  if (text.length > largestText) {
    return refuseAt(file, code, [{ line: 1, path: [], problem: 'longer than 1 MiB' }])
  }
  const lines = new LineCounter()
  const source = { file, code, lines }
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    uniqueKeys: true,
    prettyErrors: false,
    version: '1.2',
  })
  if (!Array.isArray(documents)) return []
  const written = documents.filter((document) => !isEmpty(document))
  return readEach(written, code, (document) => checkOne(document, schema, source))
}
