// spire.api.server.agent.v1.Agent

import { create } from '@bufbuild/protobuf'
import {
  Agent,
  type AttestAgentRequest,
  type CountAgentsRequest_Filter,
  type ListAgentsRequest_Filter,
} from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { EntrySchema } from '../../proto/gen/spire/api/types/entry_pb.js'
import { type Service, service } from '../../runtime/grpc/service.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { NodeAttestor } from '../attestors/attestor.ts'
import { agentIdOfToken, hashOfToken, newToken } from '../attestors/join-token.ts'
import type { Authority } from '../authority.ts'
import type { Peer } from '../callers.ts'
import { entryFromWire } from '../entries.ts'
import { selectorsMatch } from '../selectors.ts'
import type { AgentRow, EntryRow } from '../store/model.ts'
import { agentToWire, badRequest, idToWire, ownIdFromWire, secondsOf, svidToWire } from '../wire.ts'
import { pageOf } from './page.ts'

const longestTokenLife = 86_400
const defaultTokenLife = 600
const shortestToken = 16

type AgentFilter = CountAgentsRequest_Filter | ListAgentsRequest_Filter

/** A time such as `2026-11-21 09:00:00 +0000 -07:00`, or RFC 3339. Throws for anything else (R19). */
function instantOf(text: string): number {
  const at = Date.parse(text)
  return Number.isNaN(at)
    ? badRequest([{ field: 'filter.by_expires_before', problem: 'is no time in RFC 3339' }])
    : at
}

function filtered(agents: Iterable<AgentRow>, filter: AgentFilter | undefined): AgentRow[] {
  if (filter === undefined) return [...agents]
  const {
    byAttestationType: type,
    bySelectorMatch: selectors,
    byBanned,
    byCanReattest,
    byExpiresBefore,
  } = filter
  const before = byExpiresBefore === '' ? Number.POSITIVE_INFINITY : instantOf(byExpiresBefore)
  return [...agents].filter(
    (agent) =>
      (type === '' || agent.attestationType === type) &&
      (selectors === undefined || selectorsMatch(agent.selectors, selectors)) &&
      (byBanned === undefined || agent.banned === byBanned) &&
      (byCanReattest === undefined || agent.canReattest === byCanReattest) &&
      agent.notAfter < before,
  )
}

type Steps = AsyncIterator<AttestAgentRequest>

/** milliseconds, real ones, that a node gets for each of its messages: anyone may begin to attest */
const patience = 30_000

async function nextOf(steps: Steps): Promise<IteratorResult<AttestAgentRequest>> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const error = new IdentityError('ERR_DEADLINE', 'the node said nothing for 30 seconds')
  const timer = setTimeout(reject, patience, error)
  try {
    return await Promise.race([steps.next(), late])
  } finally {
    clearTimeout(timer)
  }
}

async function paramsOf(steps: Steps) {
  const { value, done } = await nextOf(steps)
  if (done === true) return badRequest([{ field: 'params', problem: 'is missing' }])
  const { step } = value
  const { data, params } =
    step.case === 'params'
      ? step.value
      : badRequest([{ field: 'params', problem: 'has to come first' }])
  if (data === undefined) return badRequest([{ field: 'params.data', problem: 'is missing' }])
  if (params === undefined) return badRequest([{ field: 'params.params', problem: 'is missing' }])
  return { type: data.type, payload: data.payload, csr: params.csr }
}

/** Attests over the stream: yields the challenge if there is one, returns what was attested. */
async function* attestation(
  attestor: NodeAttestor,
  { payload, csr }: { readonly payload: Uint8Array; readonly csr: Uint8Array },
  steps: Steps,
) {
  const asked = Promise.withResolvers<Uint8Array>()
  const answered = Promise.withResolvers<Uint8Array>()
  const attested = attestor.attest(payload, csr, (question) => {
    asked.resolve(question)
    return answered.promise
  })
  const first = await Promise.race([
    attested.then((value) => ({ attested: value })),
    asked.promise.then((question) => ({ question })),
  ])
  if ('attested' in first) return first.attested
  yield { step: { case: 'challenge' as const, value: first.question } }
  const { value, done } = await nextOf(steps)
  if (done === true || value.step.case !== 'challengeResponse') {
    attested.catch(() => {})
    answered.reject(new IdentityError('ERR_CANCELLED', 'the node gave no answer'))
    return badRequest([{ field: 'challenge_response', problem: 'is missing' }])
  }
  answered.resolve(value.step.value)
  return await attested
}

function tokenOf(text: string): string {
  if (text === '') return newToken()
  const isFit = text.length >= shortestToken && text.length <= 255 && /^[A-Za-z0-9._-]+$/.test(text)
  return isFit
    ? text
    : badRequest([
        { field: 'token', problem: 'is not 16 to 255 of letters, digits, dot, hyphen, underscore' },
      ])
}

/** at once; the next ones come again a little later, each at another moment */
const mostJoins = 512

function createJoins() {
  let now = 0
  return {
    /** Throws ERR_EXHAUSTED when too many are in progress. */
    enter(): Disposable {
      if (now >= mostJoins) {
        const retryAfter = 1000 + Math.random() * 4000
        const message = `${now} nodes are joining already; try again in a few seconds`
        throw new IdentityError('ERR_EXHAUSTED', message, { retryAfter })
      }
      now++
      return { [Symbol.dispose]: () => void now-- }
    },
  }
}

export function agentService(authority: Authority): Service<Peer> {
  const joins = createJoins()
  const { trustDomain, clock, store, registry, callers, attestors } = authority
  const agentsBy = (filter: AgentFilter | undefined) => filtered(registry.agents.values(), filter)
  const idOf = (message: Parameters<typeof ownIdFromWire>[0]) =>
    ownIdFromWire(message, 'id', trustDomain, { reserved: true })
  const missing = (id: string) => new IdentityError('ERR_NOT_FOUND', `agent ${id} not found`)

  /** SPIRE's alias: an identity that the agent's workloads can have as parent, made after the token. */
  function aliasOf(message: Parameters<typeof ownIdFromWire>[0], token: string): EntryRow {
    const spiffeId = ownIdFromWire(message, 'agent_id', trustDomain, { reserved: false })
    const agentId = agentIdOfToken(trustDomain, token)
    const entry = create(EntrySchema, {
      spiffeId: idToWire(spiffeId),
      parentId: idToWire(agentId),
      selectors: [{ type: 'spiffe_id', value: agentId }],
    })
    return entryFromWire(entry, trustDomain, clock.now())
  }

  return service<typeof Agent, Peer>(Agent, {
    countAgents: ({ filter }) => ({ count: agentsBy(filter).length }),
    listAgents({ filter, outputMask, pageSize, pageToken }) {
      const { items, nextPageToken } = pageOf(agentsBy(filter), pageSize, pageToken)
      return { agents: items.map((agent) => agentToWire(agent, outputMask)), nextPageToken }
    },
    getAgent({ id, outputMask }) {
      const agent = registry.agents.get(idOf(id))
      if (agent === undefined) throw missing(idOf(id))
      return agentToWire(agent, outputMask)
    },
    async deleteAgent({ id }) {
      if (!(await store.agents.delete(idOf(id)))) throw missing(idOf(id))
      return {}
    },
    async banAgent({ id }) {
      if (!(await store.agents.ban(idOf(id)))) throw missing(idOf(id))
      return {}
    },
    async *attestAgent(requests) {
      const steps = requests[Symbol.asyncIterator]()
      const { type, payload, csr } = await paramsOf(steps)
      using _ = joins.enter()
      const attestor = attestors.get(type)
      if (attestor === undefined)
        badRequest([
          {
            field: 'params.data.type',
            problem: `no attestor of type ${JSON.stringify(type.slice(0, 40))}`,
          },
        ])
      const attested = yield* attestation(attestor, { payload, csr }, steps)
      const svid = await authority.issue(csr, attested, { kind: 'agent' })
      const reattestable = attested.kind === 'node' && attested.canReattest
      yield { step: { case: 'result' as const, value: { svid: svidToWire(svid), reattestable } } }
    },
    async renewAgent({ params }, context) {
      if (params === undefined) return badRequest([{ field: 'params', problem: 'is missing' }])
      const { attested } = callers.agent(context)
      return { svid: svidToWire(await authority.issue(params.csr, attested, { kind: 'agent' })) }
    },
    async createJoinToken({ ttl, token: wanted, agentId }) {
      if (ttl < 0 || ttl > longestTokenLife)
        badRequest([{ field: 'ttl', problem: `is not 1 to ${longestTokenLife} seconds` }])
      const token = tokenOf(wanted)
      const expiresAt = clock.now() + (ttl === 0 ? defaultTokenLife : ttl) * 1000
      const alias = agentId && aliasOf(agentId, token)
      await store.issuance.createToken({ hash: hashOfToken(token), expiresAt })
      if (alias !== undefined) await store.entries.create(alias)
      return { value: token, expiresAt: secondsOf(expiresAt) }
    },
    async postStatus({ agentVersion }, context) {
      const { row } = callers.agent(context)
      await store.agents.setVersion(row.id, agentVersion.slice(0, 64))
      return {}
    },
  })
}
