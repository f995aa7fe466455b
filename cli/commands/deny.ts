// castellan deny add, list, remove
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import type { DenyRule } from '../../proto/gen/castellan/deny/v1/deny_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { duration } from '../../runtime/config.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, table } from '../context.ts'
import { timeText } from '../messages.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const options = atAuthority.extend({
  spiffeId: optionalText,
  serial: optionalText,
  authority: optionalText,
  reason: z.string().default(''),
  for: duration.optional(),
})

const authorityOption = [
  '--authority <id>',
  'an X.509 authority that signs no more (castellan authority status), or one below this one',
] as const

function targetOf({ spiffeId, serial, authority }: z.infer<typeof options>): DenyRule['target'] {
  const given = [
    ...(spiffeId === undefined ? [] : [{ case: 'spiffeId', value: spiffeId } as const]),
    ...(serial === undefined ? [] : [{ case: 'serial', value: serial } as const]),
    ...(authority === undefined ? [] : [{ case: 'authorityId', value: authority } as const]),
  ]
  const [target, ...others] = given
  if (target !== undefined && others.length === 0) return target
  throw new IdentityError('ERR_BAD_REQUEST', 'give one of --spiffe-id, --serial and --authority')
}

function plain({ id, target, reason, createdAt, expiresAt, issuedTo }: DenyRule) {
  return {
    id,
    kind: target.case,
    denied: target.value,
    // of a serial
    issuedTo,
    reason,
    createdAt: timeText(createdAt),
    expiresAt: timeText(expiresAt),
  }
}

export function denyCommands(register: Register): void {
  register({
    noun: 'deny',
    verb: 'add',
    about:
      'Denies an identity, one certificate, or all that an authority signed: agents and sidecars refuse it within two seconds.',
    options: [
      ['--spiffe-id <id>', 'a SPIFFE ID, of any trust domain'],
      ['--serial <hex>', 'of one certificate; its workload gets another one at once'],
      authorityOption,
      ['--reason <text>', 'why; it stays in deny list and in the log of the authority'],
      [
        '--for <duration>',
        'such as 90s, 12h or 7d; for ever when left out, or as long as the certificate lives',
      ],
      socketOption,
    ],
    run: (context, given) => {
      const values = optionsOf(given, options)
      const target = targetOf(values)
      const { socket, reason, for: life } = values
      const expiresAt = life === undefined ? 0n : BigInt(Math.ceil((Date.now() + life) / 1000))
      return withAuthority(context, socket, async (transport) => {
        const rule = { target, reason, expiresAt }
        const added = plain(await createClient(DenyRules, transport).addRule({ rule }))
        answer(
          context,
          added,
          () => `denied ${added.denied}\nto take it back: castellan deny remove ${added.id}`,
        )
        return 0
      })
    },
  })
  register({
    noun: 'deny',
    verb: 'list',
    about: 'Lists what is denied.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const { rules } = await createClient(DenyRules, transport).listRules({})
        const rows = rules.map(plain)
        answer(context, rows, () =>
          rows.length === 0
            ? 'nothing is denied'
            : table([
                ['ID', 'DENIED', 'UNTIL', 'REASON'],
                ...rows.map((it) => [it.id, it.denied ?? '', it.expiresAt, it.reason]),
              ]),
        )
        return 0
      }),
  })
  register({
    noun: 'deny',
    verb: 'remove',
    about: 'Takes a rule back.',
    positional: ['<id>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const id = given.args[0] ?? ''
        const removed = plain(await createClient(DenyRules, transport).removeRule({ id }))
        answer(context, removed, () => `${removed.denied} is denied no more`)
        return 0
      }),
  })
}
