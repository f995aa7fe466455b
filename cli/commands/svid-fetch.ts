// castellan svid fetch: what the agent gives to a process like this one. Keys go into files or nowhere.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import type { z } from 'zod'
import type { X509SVIDResponse } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { writeDurably } from '../../runtime/durable.ts'
import { bundleOfDer, bundleToPem } from '../../spiffe/bundle.ts'
import { splitDer } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseSpiffeId, parseTrustDomain, trustDomainOf } from '../../spiffe/id.ts'
import { toPem } from '../../spiffe/pem.ts'
import { answer, type Context, type ExitCode } from '../context.ts'
import { optionalText, optionsOf, type Register, texts } from '../register.ts'
import { atWorkloadApi, firstOf, withWorkloadApi, workloadApiOptions } from '../workload-api.ts'
import { plainX509, x509Text } from '../x509-view.ts'

const options = atWorkloadApi.extend({ audience: texts, id: optionalText, write: optionalText })
type Options = z.infer<typeof options>

interface Output {
  readonly name: string
  readonly content: string
  readonly mode: number
}

const secret = (name: string, content: string): Output => ({ name, content, mode: 0o600 })
const open = (name: string, content: string): Output => ({ name, content, mode: 0o644 })

/** Returns the paths; nothing without a folder. */
function writeAll(folder: string | undefined, outputs: readonly Output[]): string[] {
  if (folder === undefined) return []
  mkdirSync(folder, { recursive: true })
  return outputs.map(({ name, content, mode }) => {
    const path = join(folder, name)
    writeDurably(path, content, { mode })
    return path
  })
}

/** The names that `spire-agent api fetch -write` uses. */
function x509Outputs({ svids, federatedBundles }: X509SVIDResponse): Output[] {
  const federated = Object.entries(federatedBundles).map(([name, der]) =>
    bundleToPem(bundleOfDer(parseTrustDomain(name), der)),
  )
  return svids.flatMap(({ spiffeId, x509Svid, x509SvidKey, bundle }, i) => {
    const chain = splitDer(x509Svid).map((der) => toPem(der, 'CERTIFICATE'))
    const own = bundleOfDer(trustDomainOf(parseSpiffeId(spiffeId)), bundle)
    return [
      secret(`svid.${i}.key`, toPem(x509SvidKey, 'PRIVATE KEY')),
      open(`svid.${i}.pem`, chain.join('')),
      open(`bundle.${i}.pem`, bundleToPem(own)),
      ...federated.map((pem, j) => open(`federated_bundle.${i}.${j}.pem`, pem)),
    ]
  })
}

const textOf = (lines: readonly string[], written: readonly string[]) =>
  [...lines, ...written.map((path) => `wrote ${path}`)].join('\n')

async function fetchX509(context: Context, given: Options): Promise<ExitCode> {
  const response = await withWorkloadApi(context, given, (client, signal) =>
    firstOf(client.fetchX509SVID({}, signal)),
  )
  const { id } = given
  const svids = response.svids.filter(({ spiffeId }) => id === undefined || spiffeId === id)
  if (svids.length === 0) return notAmong(id, response.svids)
  const wanted = { ...response, svids }
  const plain = plainX509(wanted)
  const written = writeAll(given.write, x509Outputs(wanted))
  answer(context, { ...plain, written }, () => textOf([x509Text(plain, Date.now())], written))
  return 0
}

function notAmong(id: string | undefined, svids: readonly { readonly spiffeId: string }[]): never {
  const own = svids.map(({ spiffeId }) => spiffeId).join(', ')
  throw new IdentityError('ERR_NO_IDENTITY', `${id} is not this process; it is ${own}`)
}

interface Token {
  readonly spiffeId: string
  readonly hint: string
  readonly token: string
}

function plainToken({ spiffeId, hint, token }: Token) {
  const { exp = 0, aud } = decodeJwt(token)
  const audience = aud === undefined ? {} : { audience: [aud].flat() }
  return { spiffeId, hint, ...audience, expiresAt: new Date(exp * 1000).toISOString(), token }
}

/** Tokens alone on standard output, so that a script can take them; whose they are on the other one. */
function answerTokens(context: Context, tokens: readonly Token[], written: readonly string[]) {
  const plain = tokens.map(plainToken)
  if (!context.isJson && tokens.length > 1) {
    const owners = tokens.map(({ spiffeId }) => spiffeId).join(', ')
    context.process.stderr.write(`castellan: of ${owners}, in this order; --id chooses one\n`)
  }
  const lines = tokens.map(({ token }) => token)
  answer(context, { svids: plain, written }, () => textOf(lines, written))
}

async function fetchJwt(context: Context, given: Options): Promise<ExitCode> {
  const { audience = [], id: spiffeId = '', write } = given
  if (audience.length === 0)
    throw new IdentityError('ERR_BAD_REQUEST', '--audience is missing: who is the token for?')
  const { svids } = await withWorkloadApi(context, given, (client, signal) =>
    client.fetchJWTSVID({ audience, spiffeId }, signal),
  )
  const tokens = svids.map((it) => ({ ...it, token: it.svid }))
  const files = tokens.map(({ token }, i) => secret(`jwt.${i}.token`, token))
  answerTokens(context, tokens, writeAll(write, files))
  return 0
}

async function fetchWit(context: Context, given: Options): Promise<ExitCode> {
  const { id: spiffeId = '', write } = given
  const { svids } = await withWorkloadApi(context, given, (client, signal) =>
    firstOf(client.fetchWITSVID({ spiffeId }, signal)),
  )
  const tokens = svids.map((it) => ({ ...it, token: it.witSvid }))
  const files = svids.flatMap(({ witSvid, witSvidKey }, i) => [
    secret(`wit.${i}.key`, witSvidKey),
    secret(`wit.${i}.token`, witSvid),
  ])
  answerTokens(context, tokens, writeAll(write, files))
  return 0
}

const profiles: ReadonlyMap<string, typeof fetchX509> = new Map([
  ['x509', fetchX509],
  ['jwt', fetchJwt],
  ['wit', fetchWit],
])

export function svidFetchCommand(register: Register): void {
  register({
    noun: 'svid',
    verb: 'fetch',
    about:
      'Fetches what the agent gives to a process like this one: x509, jwt or wit. A jwt is printed, a key never.',
    positional: ['<profile>'],
    options: [
      ...workloadApiOptions,
      ['--audience <name>', 'jwt: whom the token is for; may stand several times', []],
      ['--id <spiffe-id>', 'which identity; all when left out'],
      ['--write <folder>', 'write certificates, bundles and tokens there, and keys with mode 0600'],
    ],
    run(context, given) {
      const [name = ''] = given.args
      const fetch = profiles.get(name)
      if (fetch !== undefined) return fetch(context, optionsOf(given, options))
      throw new IdentityError('ERR_BAD_REQUEST', `${JSON.stringify(name)}: x509, jwt or wit`)
    },
  })
}
