// Takes one document out of the text of its file and leaves the rest as it is, byte for byte.
import { readDocuments } from '../../documents/yaml.ts'
import { hasCode, IdentityError } from '../../spiffe/errors.ts'
import { type PolicyDocument, type PolicyText, policyDocument } from './read.ts'

export interface Named {
  readonly namespace: string
  readonly name: string
  /** any when left out */
  readonly kind?: PolicyDocument['kind'] | undefined
}

export interface Found {
  readonly kind: PolicyDocument['kind']
  readonly file: PolicyText
  /** from 1 */
  readonly line: number
}

const read = ({ name, text }: PolicyText) => readDocuments(text, name, policyDocument, 'ERR_POLICY')

const isIt = ({ kind, metadata }: PolicyDocument, { namespace, name, ...named }: Named) =>
  metadata.namespace === namespace &&
  metadata.name === name &&
  (named.kind === undefined || named.kind === kind)

/** Documents of that name. `files` have been read before. */
export function findDocuments(files: readonly PolicyText[], named: Named): Found[] {
  return files.flatMap((file) =>
    read(file)
      .filter(({ value }) => isIt(value, named))
      .map(({ value: { kind }, lineOf }) => ({ kind, file, line: lineOf(['kind']) })),
  )
}

/** Nothing but markers between documents. */
const isBlank = (text: string) => /^\uFEFF?(?:---|\.\.\.|\s)*$/.test(text)

const valuesOf = (documents: ReturnType<typeof read>) =>
  JSON.stringify(documents.map(({ value }) => value))

function isReadAs(file: PolicyText, wanted: string): boolean {
  try {
    return valuesOf(read(file)) === wanted
  } catch (error) {
    if (!hasCode(error, 'ERR_POLICY')) throw error
    return false
  }
}

/**
 * The file without the document, undefined when nothing else stands in it. Throws ERR_PRECONDITION where its
 * neighbours would be read otherwise without it.
 */
export function withoutDocument(file: PolicyText, named: Required<Named>): PolicyText | undefined {
  const { name, text } = file
  const documents = read(file)
  const gone = documents.find(({ value }) => isIt(value, named))
  if (gone === undefined) return file
  const [from, to] = gone.range
  // its marker may be all that holds its neighbours apart
  const marker = /^---[^\n]*\n/.exec(text.slice(from, to))?.[0] ?? ''
  const wanted = valuesOf(documents.filter((it) => it !== gone))
  const rest = ['', marker]
    .map((kept) => ({ name, text: text.slice(0, from) + kept + text.slice(to) }))
    .find((it) => isReadAs(it, wanted))
  if (rest === undefined) {
    const message = `${name}: ${named.namespace}/${named.name} cannot be cut out of the text around it; edit the file and apply it`
    throw new IdentityError('ERR_PRECONDITION', message)
  }
  return isBlank(rest.text) ? undefined : rest
}
