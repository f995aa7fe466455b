// May this set of policies come into force? Read as every enforcement point will read it; what it breaks is
// named with file and line, all of it.
import { setImmediate } from 'node:timers/promises'
import { refuseFields } from '../documents/yaml.ts'
import type { Evaluator, ReadBytes } from '../policies/cases/evaluate.ts'
import { readCaseFile } from '../policies/cases/file.ts'
import { expectedText, runSuite } from '../policies/cases/suite.ts'
import { compile } from '../policies/compile.ts'
import { defaultMesh, type Mesh } from '../policies/language/mesh.ts'
import { excuse } from '../policies/language/metadata.ts'
import { type PolicyDocuments, type PolicyText, readPolicies } from '../policies/language/read.ts'
import { isCases, policiesIn } from '../policies/language/set-files.ts'
import { type Finding, findingsIn } from '../policies/lint.ts'
import type { Clock } from '../runtime/clock.ts'
import type { FieldProblem } from '../spiffe/errors.ts'
import type { TrustDomain } from '../spiffe/id.ts'
import { badRequest } from './wire.ts'

/** namespace whose policies hold in every other */
export const rootNamespace = 'istio-system'

const mostFiles = 1000
/** milliseconds */
const turn = 10

const unread: ReadBytes = async () => ({
  status: 400,
  reason:
    'raw bytes are read by a sidecar, not here: keep such cases in a *.cases.jsonl, for castellan policy test',
})

/** The mesh that sidecars of this trust domain decide in. */
export function meshOf(trustDomain: TrustDomain): Mesh {
  return { ...defaultMesh, trustDomain, rootNamespace }
}

function demandNames(files: readonly PolicyText[]): void {
  if (files.length > mostFiles)
    badRequest([{ field: 'files', problem: `more than ${mostFiles} files` }])
  const seen = new Set<string>()
  for (const [i, { name }] of files.entries()) {
    if (name === '') badRequest([{ field: `files[${i}].name`, problem: 'is missing' }])
    if (seen.has(name)) badRequest([{ field: `files[${i}].name`, problem: `${name} comes twice` }])
    seen.add(name)
  }
}

/** Others have their turn after every few milliseconds of work. */
function createTurns(clock: Clock): () => Promise<void> {
  let begun = clock.monotonic()
  return async () => {
    if (clock.monotonic() - begun < turn) return
    await setImmediate()
    begun = clock.monotonic()
  }
}

function findingProblem({ says, rule, mend, witness }: Finding): string {
  return `${says} [${rule}]; ${witness.text}; ${mend}; if it is meant so: annotation ${excuse}: ${rule}`
}

async function findingsOf(
  documents: PolicyDocuments,
  texts: readonly PolicyText[],
  { mesh, clock }: AdmissionOptions,
): Promise<FieldProblem[]> {
  const takeTurns = createTurns(clock)
  const problems: FieldProblem[] = []
  for (const it of findingsIn(documents, texts, { mesh, now: clock.now(), only: 'error' })) {
    if (it !== undefined)
      problems.push({ field: `${it.file}:${it.line} ${it.field}`, problem: findingProblem(it) })
    await takeTurns()
  }
  return problems
}

/** What the tests of the set find, of all that it holds and in the mesh of this authority. */
async function failuresOf(
  documents: PolicyDocuments,
  cases: readonly PolicyText[],
  { mesh, clock }: AdmissionOptions,
): Promise<FieldProblem[]> {
  if (cases.length === 0) return []
  const set = compile(documents, { mesh, now: clock.now() })
  const takeTurns = createTurns(clock)
  const evaluator: Evaluator = { set, readBytes: unread, now: () => clock.now(), takeTurns }
  const problems: FieldProblem[] = []
  for (const { name, text } of cases) {
    const file = readCaseFile(name, text, () => false)
    if (file.profile !== undefined && file.profile !== mesh.profile) {
      const problem = `this mesh decides by profile ${mesh.profile}`
      problems.push({ field: `${name}:1 profile`, problem })
      continue
    }
    const { failures } = await runSuite(file, evaluator)
    for (const { line, name: its, expected, got } of failures) {
      const problem = `${its}: expected ${expectedText(expected)}, is ${got.decision}: ${got.reason}`
      problems.push({ field: `${name}:${line}`, problem })
    }
  }
  return problems
}

export interface AdmissionOptions {
  readonly mesh: Mesh
  readonly clock: Clock
}

/** What every enforcement point has to be able to read. Throws ERR_POLICY or ERR_BAD_REQUEST. */
export function readSet(files: readonly PolicyText[]): PolicyDocuments {
  demandNames(files)
  return readPolicies(policiesIn(files))
}

/**
 * Reads the set, looks for errors that a request can show, and runs its own tests (`*.cases.yaml`). Throws
 * ERR_POLICY or ERR_BAD_REQUEST with every finding.
 */
export async function admitPolicies(
  files: readonly PolicyText[],
  options: AdmissionOptions,
): Promise<void> {
  const documents = readSet(files)
  const fields = [
    ...(await findingsOf(documents, policiesIn(files), options)),
    ...(await failuresOf(documents, files.filter(isCases), options)),
  ]
  if (fields.length > 0) refuseFields('ERR_POLICY', fields)
}
