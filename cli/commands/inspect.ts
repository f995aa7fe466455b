// castellan inspect id, cert, bundle, jwt, wit, csr: what it is, and which rules of the standard it keeps.
import { existsSync } from 'node:fs'
import { z } from 'zod'
import { IdentityError } from '../../spiffe/errors.ts'
import { isMembers } from '../../spiffe/json.ts'
import { parsePem } from '../../spiffe/pem.ts'
import type { Context, ExitCode } from '../context.ts'
import { createInput } from '../input.ts'
import { inspectBundleDocument, inspectPemBundle } from '../inspect/bundle.ts'
import { inspectCertificates } from '../inspect/certificate.ts'
import { inspectCsr } from '../inspect/csr.ts'
import { finding, type Inspection, isValid, problemOf } from '../inspect/finding.ts'
import { inspectId } from '../inspect/id.ts'
import { print } from '../inspect/print.ts'
import { inspectToken, type TokenKind } from '../inspect/token.ts'
import { moment, optionsOf, type Register } from '../register.ts'

interface Kind {
  readonly about: string
  /** one thing per line: many of them are printed as one line each */
  readonly isBatch: boolean
  readonly inspect: (text: string, file: string, now: number) => readonly Inspection[]
}

interface Line {
  readonly text: string
  readonly where: string
}

function linesOf(text: string, file: string): Line[] {
  return text
    .split(/\r?\n/)
    .map((line, i) => ({ text: line, where: `${file}:${i + 1}` }))
    .filter((line) => line.text.trim() !== '')
}

/** What `inspect` makes of the blocks of `label`, or that there are none such. */
function inspectPem(
  kind: string,
  label: string,
  { text, file }: { text: string; file: string },
  inspect: (ders: readonly Uint8Array[]) => readonly Inspection[],
): readonly Inspection[] {
  const problem = problemOf(() => parsePem(text, label, file))
  if (problem === undefined) return inspect(parsePem(text, label, file))
  const findings = [finding(`RFC 7468 nothing but blocks of ${label}`, problem)]
  return [{ kind, where: file, what: 'not readable', facts: {}, findings }]
}

const tokens = (kind: TokenKind) => (text: string, file: string, now: number) =>
  linesOf(text, file).map((it) => inspectToken(kind, it.text.trim(), it.where, { now, leeway: 0 }))

function isDocument(line: Line): boolean {
  try {
    return isMembers(JSON.parse(line.text))
  } catch {
    return false
  }
}

/** One document, or one on each line. */
function documentsOf(text: string, file: string): Line[] {
  const lines = linesOf(text, file)
  return lines.length > 1 && lines.every(isDocument) ? lines : [{ text, where: file }]
}

const kinds: Readonly<Record<string, Kind>> = {
  id: {
    about: 'SPIFFE IDs, given as they are, or one per line in files',
    isBatch: true,
    inspect: (text, file) => linesOf(text, file).map((it) => inspectId(it.text, it.where)),
  },
  cert: {
    about: 'Certificates in PEM, leaves and authorities',
    isBatch: false,
    inspect: (text, file, now) =>
      inspectPem('cert', 'CERTIFICATE', { text, file }, (ders) =>
        inspectCertificates(ders, file, now),
      ),
  },
  bundle: {
    about: 'Trust bundles: SPIFFE bundle documents, or certificates in PEM',
    isBatch: false,
    inspect: (text, file, now) =>
      text.trimStart().startsWith('-----')
        ? inspectPem('bundle', 'CERTIFICATE', { text, file }, (ders) => [
            inspectPemBundle(ders, file, now),
          ])
        : documentsOf(text, file).map((it) => inspectBundleDocument(it.text, it.where, now)),
  },
  jwt: { about: 'JWT-SVIDs, one per line', isBatch: true, inspect: tokens('jwt') },
  wit: { about: 'WIT-SVIDs, one per line', isBatch: true, inspect: tokens('wit') },
  csr: {
    about: 'Certificate requests in PEM',
    isBatch: false,
    inspect: (text, file) =>
      inspectPem('csr', 'CERTIFICATE REQUEST', { text, file }, (ders) =>
        ders.map((der, i) => inspectCsr(der, `${file}:${i + 1}`)),
      ),
  },
}

// What is inspected is printed, and a private key never is.
function refuseSecrets(text: string, file: string, kind: string): void {
  const [, label] = /-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----/.exec(text) ?? []
  // a bundle is judged, and nothing of its keys is printed
  const isJwk = kind !== 'bundle' && /"kty"\s*:/.test(text) && /"(?:d|k|priv)"\s*:/.test(text)
  const found = label ?? (isJwk ? 'private JWK' : undefined)
  if (found !== undefined)
    throw new IdentityError('ERR_BAD_REQUEST', `${file}: a ${found}, which is not for inspection`)
}

interface Input extends Line {
  /** an argument that is the ID, not the name of a file */
  readonly isItself: boolean
}

/** What is to be inspected. An ID may stand for itself; whatever else is named is a file. */
async function readAll(context: Context, kind: string, given: readonly string[]): Promise<Input[]> {
  const read = createInput(context)
  const inputs: Input[] = []
  for (const [i, it] of given.entries()) {
    const isItself = kind === 'id' && it !== '-' && !existsSync(it)
    const text = isItself ? it : await read(it)
    const where = isItself ? `argument ${i + 1}` : it
    refuseSecrets(text, where, kind)
    inputs.push({ text, where, isItself })
  }
  return inputs
}

async function inspectAll(
  context: Context,
  [name, kind]: readonly [string, Kind],
  given: readonly string[],
  now: number,
): Promise<ExitCode> {
  const inputs = await readAll(context, name, given.length === 0 ? ['-'] : given)
  const items = inputs.flatMap(({ text, where, isItself }) =>
    isItself ? [inspectId(text, where)] : kind.inspect(text, where, now),
  )
  if (items.length === 0)
    throw new IdentityError('ERR_BAD_REQUEST', 'there is nothing to inspect in it')
  print(context, items, kind.isBatch)
  return items.every(isValid) ? 0 : 1
}

export function inspectCommands(register: Register): void {
  for (const [name, kind] of Object.entries(kinds))
    register({
      noun: 'inspect',
      verb: name,
      about: `${kind.about}: what they are and which rules they keep. - is standard input; 1 when one is not valid.`,
      positional: ['[input...]'],
      options: [
        ['--at <time>', 'as if it were that time, such as 2031-05-17T12:00:00Z; now when left out'],
      ],
      run: (context, given) => {
        const { at = Date.now() } = optionsOf(given, z.object({ at: moment }))
        const inputs = given.args.filter((it) => it !== undefined)
        return inspectAll(context, [name, kind], inputs, at)
      },
    })
}
