// Kills an authority at work before one of its statements, starts it again, and says what it finds.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import type { Authority } from '../../ca/authority.ts'
import { openAuthority } from '../../ca/open.ts'
import { parseSpiffeId, type SpiffeId } from '../../spiffe/id.ts'
import { memoryLog, testConfig } from './ca.ts'
import { testAgent } from './rows.ts'

const program = fileURLToPath(new URL('./doomed-work.ts', import.meta.url))
const id = parseSpiffeId('spiffe://example.org/work')

/** What the work has left behind, step by step: true where its effect is there. */
type Effects = Readonly<Record<string, boolean>>

export interface Findings {
  /** the steps that were answered before the kill */
  readonly answered: readonly string[]
  readonly effects: Effects
  /** what must never be, in words; empty when all is well */
  readonly problems: readonly string[]
  /** of the whole work, when it was not killed */
  readonly statements: number | undefined
}

function countsIn(folder: string) {
  using db = new DatabaseSync(join(folder, 'state', 'castellan.db'))
  const all = (sql: string) => db.prepare(sql).all()
  const reserved = all('SELECT intents FROM reservations').flatMap(({ intents }) => {
    const parsed: { serial: string }[] = JSON.parse(String(intents))
    return parsed.map(({ serial }) => serial)
  })
  const recorded = all('SELECT lower(hex(serial)) AS serial FROM issued').map(
    (it) => `${it.serial}`,
  )
  const tokens = all('SELECT reserved_by FROM join_tokens')
  const issuedTokens = all('SELECT 1 FROM issued_tokens').length
  return { reserved, recorded, tokens, issuedTokens }
}

/** What is wrong with serials: one that was used twice, or a record without its reservation. */
function serialProblems({ reserved, recorded }: ReturnType<typeof countsIn>): string[] {
  const twice = new Set(reserved).size < reserved.length ? ['a serial was reserved twice'] : []
  const lost = recorded.filter((serial) => !reserved.includes(serial))
  return [...twice, ...lost.map((serial) => `${serial} was recorded without a reservation`)]
}

/** How far the X.509 authorities were moved: prepared, activated, tainted, revoked. */
function movesOf({ authorities }: Authority, first: string): number {
  const [oldest] = authorities.all()
  if (oldest === undefined || oldest.id !== first) return 4
  if (oldest.isTainted) return 3
  if (oldest.state === 'old') return 2
  return authorities.all().length - 1
}

/** How many certificates, two at most. */
async function issuedTo({ store }: Authority, spiffeId: SpiffeId): Promise<number> {
  return (await store.issuance.list({ spiffeId, since: 0, limit: 2 })).rows.length
}

async function effectsOf(authority: Authority, first: string): Promise<Record<string, boolean>> {
  const { authorities, store } = authority
  const { id: agentId } = testAgent('a')
  const moves = movesOf(authority, first)
  const jwt = authorities.jwt.all()
  const agent = await store.agents.get(agentId)
  return {
    entry: (await store.entries.some(['e'])).length === 1,
    certificate: (await issuedTo(authority, id)) === 1,
    agent: agent !== undefined,
    prepare: moves >= 1,
    activate: moves >= 2,
    taint: moves >= 3,
    revoke: moves >= 4,
    'prepare jwt': jwt.length === 2,
    'activate jwt': jwt.some(({ state }) => state === 'old'),
    deny: (await store.denyRules.list()).length === 1,
    ban: agent?.banned === true,
    policies: (await store.policies.current()).version === 1,
  }
}

/** What must never be, whatever the moment. */
function phaseProblems({ authorities }: Authority): string[] {
  const { jwt, wit } = authorities
  return Object.entries({ x509: authorities, jwt, wit }).flatMap(([kind, slots]) => {
    const phases = slots.all().map(({ state }) => state)
    const isWell = phases.filter((phase) => phase === 'active').length === 1
    return isWell ? [] : [`${kind} has the phases ${phases.join()}`]
  })
}

/** The work in `folder`, killed before its statement `at` (never, when it has fewer), and the restart. */
export async function killedAt(folder: string, at: number): Promise<Findings> {
  rmSync(join(folder, 'state'), { recursive: true, force: true })
  const child = spawnSync(process.execPath, [program, folder, String(at)], { encoding: 'utf8' })
  const lines = child.stdout.split('\n').filter((line) => line !== '')
  const total = /^statements (\d+)$/.exec(lines.at(-1) ?? '')?.[1]
  if (child.signal !== 'SIGKILL' && total === undefined) throw new Error(child.stderr)
  const first = /^first (.+)$/.exec(lines[0] ?? '')?.[1]
  const answered = lines.slice(1, total === undefined ? undefined : -1)
  const config = testConfig(folder)
  await using authority = await openAuthority(config, { log: memoryLog().log })
  // killed before its first authority: there is nothing to be lost yet
  const known = await effectsOf(authority, first ?? authority.authorities.active().id)
  const problems = phaseProblems(authority)
  if (((await issuedTo(authority, testAgent('a').id)) === 1) !== known.agent)
    problems.push('an agent without its certificate, or a certificate without its agent')
  await authority[Symbol.asyncDispose]()
  const counts = countsIn(folder)
  problems.push(...serialProblems(counts))
  if (counts.tokens.some(({ reserved_by }) => reserved_by !== null))
    problems.push('a join token stayed reserved')
  // used up with the agent's record, and only then
  const token = counts.tokens.length === 1 || known.agent === true
  const effects = { ...known, token, jwt: counts.issuedTokens === 1 }
  const statements = total === undefined ? undefined : Number(total)
  return { answered, effects, problems, statements }
}

/** Steps in the order of the work. */
const order = [
  ...['entry', 'certificate', 'token', 'agent', 'jwt', 'prepare', 'activate', 'taint', 'revoke'],
  ...['prepare jwt', 'activate jwt', 'deny', 'ban', 'policies'],
]

/** What was answered is there; of the rest at most the next step is, whole. */
export function problemsOf({ answered, effects, problems }: Findings): string[] {
  const lost = answered.filter((step) => effects[step] !== true).map((step) => `${step} was lost`)
  const early = order
    .slice(answered.length + 1)
    .filter((step) => effects[step] === true)
    .map((step) => `${step} was done before its time`)
  return [...problems, ...lost, ...early]
}
