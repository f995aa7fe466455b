// The corpus through the program that scripts call, as its README says to run it: a process for each folder
// and profile, two of them at a time.

import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'
import type { Profile } from '../../policies/language/mesh.ts'
import { type CommandResult, castellan, startCastellan } from '../support/command.ts'
import {
  corpusFixtures,
  corpusProblem,
  type Fixture,
  type Got,
  isExpected,
} from '../support/corpus.ts'

interface Answer extends Got {
  readonly id: string
  readonly reason: string
}

interface Run {
  readonly fixture: Fixture
  readonly profile: Profile
}

type Start = (args: readonly string[], stdin: string) => Promise<CommandResult>

const inProcess: Start = castellan
const asProcess: Start = (args, stdin) => startCastellan(args, { cwd: import.meta.dirname, stdin })

async function answersOf({ fixture, profile }: Run, start: Start): Promise<string> {
  const cases = casesOf({ fixture, profile })
  const lines = cases.map(({ id, request }) => JSON.stringify({ id, ...request }))
  const named = ['--policies', fixture.file('policies.yaml'), '--mesh', fixture.file('mesh.yaml')]
  const args = ['policy', 'eval', ...named, '--profile', profile, '--requests', '-', '-o', 'json']
  const { code, stdout, stderr } = await start(args, lines.join('\n'))
  expect({ code, stderr }, fixture.name).toEqual({ code: 0, stderr: '' })
  return stdout
}

const casesOf = ({ fixture, profile }: Run) =>
  fixture.cases.filter((it) => it.expect[profile] !== undefined)

const linesOf = (stdout: string): Answer[] =>
  stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

/** `namespace/name` of the policies of a folder by what they do. */
function actionsIn(fixture: Fixture): ReadonlyMap<string, string> {
  const documents = parseAllDocuments(readFileSync(fixture.file('policies.yaml'), 'utf8'))
  return new Map(
    documents.map((it) => {
      const { kind, metadata, spec = {} } = it.toJS()
      const name = `${metadata.namespace}/${metadata.name}`
      return [name, kind === 'AuthorizationPolicy' ? (spec.action ?? 'ALLOW') : kind]
    }),
  )
}

const refusals = [400, 401, 403, 414, 431]

/** What README "Decision" says of any answer, whatever was expected of the case. */
function oddity({ decision, status = 0, policy }: Answer, isHttp: boolean, action?: string) {
  if (decision === 'allow' && status !== 0) return 'an allow with a status'
  if (decision === 'deny' && status !== (isHttp ? 403 : 0)) return 'a deny with another status'
  if (decision === 'reject' && !refusals.includes(status)) return 'a reject with an odd status'
  if (policy === undefined) return undefined
  const others = { allow: 'ALLOW', deny: 'DENY', reject: undefined }
  return action === others[decision] ? undefined : `${policy} is said to have determined it`
}

/** What is wrong with the answers. */
function wrongIn(run: Run, answers: readonly Answer[]): readonly string[] {
  const { fixture, profile } = run
  const cases = casesOf(run)
  expect(answers.map(({ id }) => id)).toEqual(cases.map(({ id }) => id))
  const actions = actionsIn(fixture)
  return cases.flatMap(({ id, expect: expected, request, why }, i) => {
    const [wanted, got] = [expected[profile], answers[i]]
    if (wanted === undefined || got === undefined) throw new Error(`no answer to ${id}`)
    const isHttp = (request.http ?? request.raw ?? request.h2) !== undefined
    const odd = oddity(got, isHttp, actions.get(got.policy ?? ''))
    if (isExpected(wanted, got) && odd === undefined) return []
    const where = `${fixture.name} ${profile} ${id}`
    return [`${where}: ${JSON.stringify(got)} for ${JSON.stringify(wanted)}: ${odd ?? why}`]
  })
}

const profiles: readonly Profile[] = ['strict', 'istio']
const runs = corpusFixtures()
  .flatMap((fixture) => profiles.map((profile) => ({ fixture, profile })))
  .filter((run) => casesOf(run).length > 0)

describe('castellan policy eval', () => {
  it('decides every case of the corpus as it says, in both profiles', async ({ skip }) => {
    const problem = corpusProblem()
    if (problem !== undefined) return skip(problem)
    const wrong: string[] = []
    let asked = 0
    for (const run of runs) {
      const answers = linesOf(await answersOf(run, inProcess))
      asked += answers.length
      wrong.push(...wrongIn(run, answers))
    }
    console.info(`corpus: ${asked} decisions, ${wrong.length} wrong`)
    expect(wrong).toEqual([])
    expect(asked).toBeGreaterThan(900)
  })

  // paths, hosts, HTTP/2, tokens, forwarded addresses, TCP; a start for each of the other folders would take minutes
  it.for(['D', 'H', 'G', 'J', 'R', 'TCP-allow'])(
    'says the same as a process of its own: %s',
    async (name, { skip }) => {
      const problem = corpusProblem()
      if (problem !== undefined) return skip(problem)
      const own = runs.filter(({ fixture }) => fixture.name === name)
      expect(own.length).toBe(2)
      for (const run of own) {
        expect(await answersOf(run, asProcess)).toBe(await answersOf(run, inProcess))
      }
    },
  )
})
