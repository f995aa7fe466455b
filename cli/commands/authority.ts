// castellan authority status, prepare, activate, taint, revoke
import { createClient, type Transport } from '@connectrpc/connect'
import { z } from 'zod'
import {
  type AuthorityState,
  LocalAuthority,
} from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { answer, type Context, table } from '../context.ts'
import { type Given, optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const kinds = ['x509', 'jwt', 'wit'] as const
type Kind = (typeof kinds)[number]
const phases = ['active', 'prepared', 'old'] as const

const options = atAuthority.extend({ kind: z.enum(kinds) })
const kindOption = ['--kind <kind>', 'x509, jwt or wit', 'x509'] as const

interface Steps {
  state(): Promise<Readonly<Record<(typeof phases)[number], AuthorityState | undefined>>>
  prepare(): Promise<AuthorityState | undefined>
  activate(authorityId: string): Promise<AuthorityState | undefined>
  taint(authorityId: string): Promise<AuthorityState | undefined>
  revoke(authorityId: string): Promise<AuthorityState | undefined>
}

const phasesOf = ({ active, prepared, old }: Partial<Awaited<ReturnType<Steps['state']>>>) => ({
  active,
  prepared,
  old,
})

/** The calls of one kind: SPIRE has three times the same ones. */
function stepsOf(transport: Transport, kind: Kind): Steps {
  const of = createClient(LocalAuthority, transport)
  const all: Readonly<Record<Kind, Steps>> = {
    x509: {
      state: async () => phasesOf(await of.getX509AuthorityState({})),
      prepare: async () => (await of.prepareX509Authority({})).preparedAuthority,
      activate: async (authorityId) =>
        (await of.activateX509Authority({ authorityId })).activatedAuthority,
      taint: async (authorityId) => (await of.taintX509Authority({ authorityId })).taintedAuthority,
      revoke: async (authorityId) =>
        (await of.revokeX509Authority({ authorityId })).revokedAuthority,
    },
    jwt: {
      state: async () => phasesOf(await of.getJWTAuthorityState({})),
      prepare: async () => (await of.prepareJWTAuthority({})).preparedAuthority,
      activate: async (authorityId) =>
        (await of.activateJWTAuthority({ authorityId })).activatedAuthority,
      taint: async (authorityId) => (await of.taintJWTAuthority({ authorityId })).taintedAuthority,
      revoke: async (authorityId) =>
        (await of.revokeJWTAuthority({ authorityId })).revokedAuthority,
    },
    wit: {
      state: async () => phasesOf(await of.getWITAuthorityState({})),
      prepare: async () => (await of.prepareWITAuthority({})).preparedAuthority,
      activate: async (authorityId) =>
        (await of.activateWITAuthority({ authorityId })).activatedAuthority,
      taint: async (authorityId) => (await of.taintWITAuthority({ authorityId })).taintedAuthority,
      revoke: async (authorityId) =>
        (await of.revokeWITAuthority({ authorityId })).revokedAuthority,
    },
  }
  return all[kind]
}

const plain = ({ authorityId, expiresAt }: AuthorityState) => ({
  authorityId,
  expiresAt: new Date(Number(expiresAt) * 1000).toISOString(),
})

async function statusOf(transport: Transport) {
  const rows = await Promise.all(
    kinds.map(async (kind) => {
      const state = await stepsOf(transport, kind).state()
      return phases.flatMap((phase) => {
        const it = state[phase]
        return it === undefined ? [] : [{ kind, phase, ...plain(it) }]
      })
    }),
  )
  return rows.flat()
}

/** A verb that moves one authority on. */
async function move(
  context: Context,
  given: Given,
  verb: 'activate' | 'taint' | 'revoke',
  done: string,
): Promise<0> {
  const { socket, kind } = optionsOf(given, options)
  return await withAuthority(context, socket, async (transport) => {
    const moved = await stepsOf(transport, kind)[verb](given.args[0] ?? '')
    const value = moved === undefined ? {} : plain(moved)
    answer(context, { kind, ...value }, () => `${done} ${kind} authority ${moved?.authorityId}`)
    return 0
  })
}

export function authorityCommands(register: Register): void {
  register({
    noun: 'authority',
    verb: 'status',
    about: 'Shows which keys sign, which come next, and which are still trusted.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const rows = await statusOf(transport)
        answer(context, rows, () =>
          table([
            ['KIND', 'PHASE', 'ID', 'EXPIRES'],
            ...rows.map((it) => [it.kind, it.phase, it.authorityId, it.expiresAt]),
          ]),
        )
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
        const made = await stepsOf(transport, kind).prepare()
        const value = made === undefined ? {} : plain(made)
        const id = made?.authorityId ?? ''
        answer(
          context,
          { kind, ...value },
          () =>
            `prepared ${kind} authority ${id}\nonce the agents know it: castellan authority activate ${id}${kind === 'x509' ? '' : ` --kind ${kind}`}`,
        )
        return 0
      })
    },
  })
  const verbs = [
    ['activate', 'Lets the prepared key sign, once every connected agent knows it.', 'activated'],
    ['taint', 'Marks an old key: what it signed is renewed at once, spread over time.', 'tainted'],
    ['revoke', 'Takes a tainted key out of the bundle, once nobody needs it.', 'revoked'],
  ] as const
  for (const [verb, about, done] of verbs) {
    register({
      noun: 'authority',
      verb,
      about,
      positional: ['<authority-id>'],
      options: [kindOption, socketOption],
      run: (context, given) => move(context, given, verb, done),
    })
  }
}
