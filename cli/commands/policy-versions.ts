// castellan policy list, versions, rollback, delete
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, table } from '../context.ts'
import { type Listed, listDocuments } from '../policy/listing.ts'
import { answerOnceEnforced, waiting, waitOptions } from '../policy/waiting.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

export const messageOption = [
  '--message <text>',
  'why, for those who read castellan policy versions',
] as const

const changing = z.object({
  socket: optionalText,
  message: optionalText,
  kind: optionalText,
  ...waiting,
})

const row = (it: Listed, version: string) => [
  it.kind,
  `${it.namespace}/${it.name}`,
  it.shadow ? `${it.action} (shadow)` : it.action || '-',
  String(it.rules),
  `${it.file}:${it.line}`,
  version,
]

function listVerb(register: Register): void {
  register({
    noun: 'policy',
    verb: 'list',
    about: 'Lists the documents in force: kind, name, action, rules, and where each stands.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const { version, files } = await createClient(Policies, transport).getPolicies({})
        const texts = files.map(({ name, text }) => ({ name, text }))
        const documents = listDocuments(texts)
        answer(context, { version, documents, files: texts }, () =>
          documents.length === 0
            ? `version ${version} has no policies: everything is denied`
            : table([
                ['KIND', 'NAMESPACE/NAME', 'ACTION', 'RULES', 'FILE:LINE', 'VERSION'],
                ...documents.map((it) => row(it, String(version))),
              ]),
        )
        return 0
      }),
  })
}

function versionsVerb(register: Register): void {
  register({
    noun: 'policy',
    verb: 'versions',
    about: 'Lists the last policy versions, the newest first: that one is in force.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const { versions } = await createClient(Policies, transport).listVersions({})
        const all = versions.map(({ version, at, caller, message }, i) => ({
          version: Number(version),
          at: new Date(Number(at)).toISOString(),
          caller,
          message,
          inForce: i === 0,
        }))
        answer(context, all, () =>
          all.length === 0
            ? 'no policies were applied yet'
            : table([
                ['VERSION', 'APPLIED', 'BY', 'MESSAGE'],
                ...all.map(({ version, at, caller, message, inForce }) => [
                  inForce ? `${version} *` : String(version),
                  ...[at, caller, message],
                ]),
              ]),
        )
        return 0
      }),
  })
}

function versionArgument(text = ''): bigint {
  if (/^[1-9]\d{0,15}$/.test(text)) return BigInt(text)
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `${JSON.stringify(text)} is no version; castellan policy versions shows them`,
  )
}

function rollbackVerb(register: Register): void {
  register({
    noun: 'policy',
    verb: 'rollback',
    about: 'Puts the files of an older version into force again, as a new version.',
    positional: ['<version>'],
    options: [messageOption, ...waitOptions, socketOption],
    run: (context, given) => {
      const older = versionArgument(given.args[0])
      const { socket, message = '', ...wait } = optionsOf(given, changing)
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Policies, transport)
        const { version } = await client.rollbackPolicies({ version: older, message })
        const text = `version ${version} is in force, with the files of ${older}`
        const done = { version, fields: { files: older }, text }
        return await answerOnceEnforced(context, transport, done, wait)
      })
    },
  })
}

function nameArgument(text = ''): { namespace: string; name: string } {
  const [namespace = '', name = '', ...rest] = text.split('/')
  if (namespace !== '' && name !== '' && rest.length === 0) return { namespace, name }
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `${JSON.stringify(text)}: write NAMESPACE/NAME, as castellan policy list shows it`,
  )
}

function deleteVerb(register: Register): void {
  register({
    noun: 'policy',
    verb: 'delete',
    about: 'Takes one document out of the policies in force; the rest of its file stays as it is.',
    positional: ['<namespace/name>'],
    options: [
      ['--kind <kind>', 'such as AuthorizationPolicy, where several documents have the name'],
      messageOption,
      ...waitOptions,
      socketOption,
    ],
    run: (context, given) => {
      const named = nameArgument(given.args[0])
      const { socket, message = '', kind = '', ...wait } = optionsOf(given, changing)
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Policies, transport)
        const { version } = await client.deletePolicy({ ...named, kind, message })
        const deleted = `${named.namespace}/${named.name}`
        const text = `deleted ${deleted}; version ${version} is in force`
        const done = { version, fields: { deleted }, text }
        return await answerOnceEnforced(context, transport, done, wait)
      })
    },
  })
}

export function policyVersionCommands(register: Register): void {
  listVerb(register)
  versionsVerb(register)
  rollbackVerb(register)
  deleteVerb(register)
}
