// castellan authority status, prepare, activate, taint, revoke, retire
import { createClient, type Transport } from '@connectrpc/connect'
import { z } from 'zod'
import { Authorities, type Status } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import {
  type AuthorityState,
  LocalAuthority,
} from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { answer, type Context, table } from '../context.ts'
import { type Given, optionalText, optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const kinds = ['x509', 'jwt', 'wit'] as const
type Kind = (typeof kinds)[number]
const options = atAuthority.extend({ kind: z.enum(kinds), force: optionalText })
const forceOption = [
  '--force <reason>',
  'do not wait for agents that have not followed; the reason is recorded',
] as const
const kindOption = ['--kind <kind>', 'x509, jwt or wit', 'x509'] as const

type Change = 'activate' | 'revoke'
type Step = 'prepare' | 'taint'

/** `prepare` and `taint` wait for nobody: they are SPIRE's calls, which exist once per kind. */
function stepsOf(transport: Transport, kind: Kind) {
  const of = createClient(LocalAuthority, transport)
  const all = {
    x509: {
      prepare: async () => (await of.prepareX509Authority({})).preparedAuthority,
      taint: async (authorityId: string) =>
        (await of.taintX509Authority({ authorityId })).taintedAuthority,
    },
    jwt: {
      prepare: async () => (await of.prepareJWTAuthority({})).preparedAuthority,
      taint: async (authorityId: string) =>
        (await of.taintJWTAuthority({ authorityId })).taintedAuthority,
    },
    wit: {
      prepare: async () => (await of.prepareWITAuthority({})).preparedAuthority,
      taint: async (authorityId: string) =>
        (await of.taintWITAuthority({ authorityId })).taintedAuthority,
    },
  } satisfies Record<Kind, Record<Step, (id: string) => Promise<AuthorityState | undefined>>>
  return all[kind]
}

const moment = (seconds: bigint) =>
  seconds === 0n ? '' : new Date(Number(seconds) * 1000).toISOString()

const plain = (state: AuthorityState | undefined) => ({
  authorityId: state?.authorityId ?? '',
  expiresAt: moment(state?.expiresAt ?? 0n),
})

/** As text with readable times, for JSON. */
function plainStatus({
  authorities,
  laggards,
  connectedAgents,
  outlook,
  overrides,
  replicas,
}: Status) {
  return {
    authorities: authorities.map(({ kind, id, phase, expiresAt, live, replica }) => {
      return { kind, id, phase, expiresAt: moment(expiresAt), live: Number(live), replica }
    }),
    replicas: replicas.filter((name) => name !== ''),
    connectedAgents: Number(connectedAgents),
    laggards: laggards.map(({ agentId, since, heardAt }) => {
      return { agentId, since: moment(since), heardAt: moment(heardAt) }
    }),
    outlook: {
      holders: Number(outlook?.holders ?? 0n),
      firstFailsAt: moment(outlook?.firstFailsAt ?? 0n),
      halfFailedAt: moment(outlook?.halfFailedAt ?? 0n),
      lastFailsAt: moment(outlook?.lastFailsAt ?? 0n),
    },
    overrides: overrides.map(({ at, caller, action, authorityId, reason }) => {
      return { at: moment(at), caller, action, authorityId, reason }
    }),
  }
}

type PlainStatus = ReturnType<typeof plainStatus>

function agentsText({ connectedAgents, laggards }: PlainStatus): string {
  if (connectedAgents === 0) return 'no agent is connected'
  if (laggards.length === 0)
    return connectedAgents === 1
      ? 'the one connected agent knows these keys'
      : `all ${connectedAgents} connected agents know these keys`
  const lines = laggards.map((it) => `  ${it.agentId}  since ${it.since}, heard at ${it.heardAt}`)
  return `${laggards.length} of ${connectedAgents} connected agents do not know these keys yet:\n${lines.join('\n')}`
}

function outlookText({ outlook: it }: PlainStatus): string {
  if (it.holders === 0) return 'no workload has a certificate'
  return `if nothing were signed from now on, of ${it.holders} workloads the first would fail at ${it.firstFailsAt}, half at ${it.halfFailedAt}, the last at ${it.lastFailsAt}`
}

function statusText(status: PlainStatus): string {
  const isShared = status.replicas.length > 0
  const isMixed = status.authorities.some(({ replica }) => replica !== '')
  const heading = ['KIND', 'PHASE', 'ID', 'EXPIRES', 'CARRIES', ...(isMixed ? ['OF'] : [])]
  const rows = status.authorities.map((it) => [
    ...[it.kind, it.phase, it.id, it.expiresAt],
    it.kind === 'x509' ? `${it.live} holders` : '',
    ...(isMixed ? [it.replica || (isShared ? 'all' : 'this one')] : []),
  ])
  const alive = isShared ? [`alive: ${status.replicas.join(', ')}`] : []
  const forced = status.overrides.map(
    (it) => `  ${it.at}  ${it.action} ${it.authorityId} by ${it.caller}: ${it.reason}`,
  )
  const overrides = forced.length === 0 ? [] : ['', 'forced:', ...forced]
  return [
    table([heading, ...rows]),
    '',
    ...alive,
    agentsText(status),
    outlookText(status),
    ...overrides,
  ].join('\n')
}

/** A verb that moves one authority on. */
async function move(context: Context, given: Given, verb: Change, done: string): Promise<0> {
  const { socket, kind, force: forceReason = '' } = optionsOf(given, options)
  return await withAuthority(context, socket, async (transport) => {
    const authorityId = given.args[0] ?? ''
    const client = createClient(Authorities, transport)
    const { id, expiresAt } = await client[verb]({ kind, authorityId, forceReason })
    const moved = { kind, authorityId: id, expiresAt: moment(expiresAt) }
    answer(context, moved, () => `${done} ${kind} authority ${id}`)
    return 0
  })
}

function retireCommand(register: Register): void {
  register({
    noun: 'authority',
    verb: 'retire',
    about:
      'Makes the keys of a replica that is gone for good old and tainted; then revoke them. `status` names it.',
    positional: ['<replica>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const [replica = ''] = given.args
        await createClient(Authorities, transport).retire({ replica })
        const next = 'its workloads renew now; then: castellan authority revoke'
        answer(context, { replica }, () => `retired replica ${replica}\n${next}`)
        return 0
      }),
  })
}

export function authorityCommands(register: Register): void {
  register({
    noun: 'authority',
    verb: 'status',
    about:
      'Shows which keys sign, come next or are still trusted, which agents lag, and how long all would go on alone.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const status = plainStatus(await createClient(Authorities, transport).getStatus({}))
        answer(context, status, () => statusText(status))
        return 0
      }),
  })
  register({
    noun: 'authority',
    verb: 'prepare',
    about: 'Makes the next key and publishes it; it signs nothing yet.',
    options: [kindOption, socketOption],
    run: (context, given) => {
      const { socket, kind } = optionsOf(given, options)
      return withAuthority(context, socket, async (transport) => {
        const made = plain(await stepsOf(transport, kind).prepare())
        const id = made.authorityId
        const more = kind === 'x509' ? '' : ` --kind ${kind}`
        answer(
          context,
          { kind, ...made },
          () =>
            `prepared ${kind} authority ${id}\nonce the agents know it: castellan authority activate ${id}${more}`,
        )
        return 0
      })
    },
  })
  register({
    noun: 'authority',
    verb: 'taint',
    about: 'Marks an old key: what it signed is renewed at once, spread over time.',
    positional: ['<authority-id>'],
    options: [kindOption, socketOption],
    run: (context, given) => {
      const { socket, kind } = optionsOf(given, options)
      return withAuthority(context, socket, async (transport) => {
        const tainted = plain(await stepsOf(transport, kind).taint(given.args[0] ?? ''))
        answer(
          context,
          { kind, ...tainted },
          () => `tainted ${kind} authority ${tainted.authorityId}`,
        )
        return 0
      })
    },
  })
  retireCommand(register)
  const verbs = [
    ['activate', 'Lets the prepared key sign, once every connected agent knows it.', 'activated'],
    ['revoke', 'Takes a tainted key out of the bundle, once nobody needs it.', 'revoked'],
  ] as const
  for (const [verb, about, done] of verbs) {
    register({
      noun: 'authority',
      verb,
      about,
      positional: ['<authority-id>'],
      options: [kindOption, forceOption, socketOption],
      run: (context, given) => move(context, given, verb, done),
    })
  }
}
