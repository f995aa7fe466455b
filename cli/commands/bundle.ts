// castellan bundle show, list, set, delete
import { readFileSync } from 'node:fs'
import { createClient, type Transport } from '@connectrpc/connect'
import { z } from 'zod'
import {
  Bundle,
  BatchDeleteFederatedBundleRequest_Mode as Mode,
} from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import type { Bundle as BundleMessage } from '../../proto/gen/spire/api/types/bundle_pb.js'
import { errnoOf } from '../../runtime/errno.ts'
import { formatBundleDocument, parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { fingerprintOf, parseCertificate } from '../../spiffe/certificate.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { parsePem, toPem } from '../../spiffe/pem.ts'
import { answer, table } from '../context.ts'
import { allPages, demandDone } from '../messages.ts'
import { optionalText, optionsOf, type Register, text } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'

const formats = ['pem', 'spiffe'] as const
const formatOption = [
  '--format <format>',
  'pem (certificates) or spiffe (a SPIFFE bundle document, with the keys of tokens)',
  'pem',
] as const
const showOptions = atAuthority.extend({ format: z.enum(formats), trustDomain: optionalText })
const setOptions = atAuthority.extend({ format: z.enum(formats), file: text })
const modes = { restrict: Mode.RESTRICT, delete: Mode.DELETE, dissociate: Mode.DISSOCIATE } as const
const deleteOptions = atAuthority.extend({ mode: z.enum(['restrict', 'delete', 'dissociate']) })

function documentOf(bundle: BundleMessage): string {
  const { x509Authorities, jwtAuthorities, witAuthorities, sequenceNumber, refreshHint } = bundle
  return formatBundleDocument({
    x509: x509Authorities.map(({ asn1 }) => asn1),
    jwt: jwtAuthorities,
    wit: witAuthorities,
    sequence: sequenceNumber,
    refreshHint: refreshHint === 0n ? undefined : Number(refreshHint),
  })
}

function plain(bundle: BundleMessage) {
  return {
    trustDomain: bundle.trustDomain,
    authorities: bundle.x509Authorities.map(({ asn1 }) => ({
      pin: `sha256:${fingerprintOf(asn1)}`,
      notAfter: new Date(parseCertificate(asn1).notAfter).toISOString(),
      pem: toPem(asn1, 'CERTIFICATE'),
    })),
    jwtKeys: bundle.jwtAuthorities.map(({ keyId }) => keyId),
    witKeys: bundle.witAuthorities.map(({ keyId }) => keyId),
  }
}

function textOf(bundle: BundleMessage, format: (typeof formats)[number]): string {
  if (format === 'spiffe') return documentOf(bundle)
  const pems = bundle.x509Authorities.map(({ asn1 }) => toPem(asn1, 'CERTIFICATE'))
  return pems.join('').trimEnd()
}

function readInput(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (cause) {
    const message = `cannot read ${file} (${errnoOf(cause)})`
    throw new IdentityError('ERR_BAD_REQUEST', message, { cause })
  }
}

/** The bundle of another trust domain as a file holds it. */
export function readBundle(trustDomain: string, file: string, format: (typeof formats)[number]) {
  const content = readInput(file)
  if (format === 'pem') {
    const x509Authorities = parsePem(content, 'CERTIFICATE', file).map((asn1) => ({ asn1 }))
    return { trustDomain, x509Authorities }
  }
  const { x509, jwt, wit, sequence, refreshHint } = parseBundleDocument(content, file)
  return {
    trustDomain,
    x509Authorities: x509.map((asn1) => ({ asn1 })),
    jwtAuthorities: [...jwt],
    witAuthorities: [...wit],
    sequenceNumber: sequence ?? 0n,
    refreshHint: BigInt(refreshHint ?? 0),
  }
}

function allFederated(transport: Transport): Promise<BundleMessage[]> {
  const client = createClient(Bundle, transport)
  return allPages(
    (pageToken) => client.listFederatedBundles({ pageToken }),
    ({ bundles }) => bundles,
  )
}

export function bundleCommands(register: Register): void {
  register({
    noun: 'bundle',
    verb: 'show',
    about: 'Prints the trust bundle, our own or that of another trust domain; pins are in -o json.',
    options: [
      ['--trust-domain <name>', 'another trust domain; our own when left out'],
      formatOption,
      socketOption,
    ],
    run: (context, given) => {
      const { socket, format, trustDomain } = optionsOf(given, showOptions)
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Bundle, transport)
        const bundle =
          trustDomain === undefined
            ? await client.getBundle({})
            : await client.getFederatedBundle({ trustDomain })
        answer(context, plain(bundle), () => textOf(bundle, format))
        return 0
      })
    },
  })
  register({
    noun: 'bundle',
    verb: 'list',
    about: 'Lists the bundles of other trust domains.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const rows = (await allFederated(transport)).map(plain)
        answer(context, rows, () =>
          rows.length === 0
            ? 'no bundle of another trust domain is known'
            : table([
                ['TRUST DOMAIN', 'CERTIFICATES', 'JWT KEYS', 'WIT KEYS'],
                ...rows.map((it) => [
                  it.trustDomain,
                  ...[it.authorities, it.jwtKeys, it.witKeys].map((keys) => String(keys.length)),
                ]),
              ]),
        )
        return 0
      }),
  })
  writingCommands(register)
}

function writingCommands(register: Register): void {
  register({
    noun: 'bundle',
    verb: 'set',
    about: 'Sets the bundle of another trust domain, whatever it was before.',
    positional: ['<trust-domain>'],
    options: [formatOption, ['--file <file>', 'what to read, - for standard input'], socketOption],
    run: (context, given) => {
      const { socket, format, file } = optionsOf(given, setOptions)
      const trustDomain = parseTrustDomain(given.args[0] ?? '')
      return withAuthority(context, socket, async (transport) => {
        const bundle = readBundle(trustDomain, file, format)
        const client = createClient(Bundle, transport)
        const { results } = await client.batchSetFederatedBundle({ bundle: [bundle] })
        demandDone(results)
        answer(context, { trustDomain, set: true }, () => `the bundle of ${trustDomain} is set`)
        return 0
      })
    },
  })
  register({
    noun: 'bundle',
    verb: 'delete',
    about: 'Deletes the bundle of another trust domain.',
    positional: ['<trust-domain>'],
    options: [
      [
        '--mode <mode>',
        'what becomes of entries that federate with it: restrict (then nothing is deleted), delete, dissociate',
        'restrict',
      ],
      socketOption,
    ],
    run: (context, given) => {
      const { socket, mode } = optionsOf(given, deleteOptions)
      const trustDomain = parseTrustDomain(given.args[0] ?? '')
      return withAuthority(context, socket, async (transport) => {
        const client = createClient(Bundle, transport)
        const request = { trustDomains: [trustDomain], mode: modes[mode] }
        demandDone((await client.batchDeleteFederatedBundle(request)).results)
        answer(
          context,
          { trustDomain, deleted: true },
          () => `the bundle of ${trustDomain} is gone`,
        )
        return 0
      })
    },
  })
}
