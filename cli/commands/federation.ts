// castellan federation create, list, show, update, refresh, delete
import type { MessageInitShape } from '@bufbuild/protobuf'
import { createClient, type Transport } from '@connectrpc/connect'
import { z } from 'zod'
import { TrustDomain } from '../../proto/gen/spire/api/server/trustdomain/v1/trustdomain_pb.js'
import type {
  FederationRelationship,
  FederationRelationshipSchema,
} from '../../proto/gen/spire/api/types/federationrelationship_pb.js'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { answer, type Context, table } from '../context.ts'
import { allPages, demandDone } from '../messages.ts'
import { type Given, optionalText, optionsOf, type Register, text } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'
import { readBundle } from './bundle.ts'

const options = atAuthority.extend({
  url: text,
  endpointId: optionalText,
  bundle: optionalText,
  format: z.enum(['pem', 'spiffe']),
})

function plain({ trustDomain, bundleEndpointUrl, ...it }: FederationRelationship) {
  const { bundleEndpointProfile: profile, trustDomainBundle } = it
  return {
    trustDomain,
    url: bundleEndpointUrl,
    profile: profile.case === 'httpsSpiffe' ? 'https_spiffe' : 'https_web',
    endpointId: profile.case === 'httpsSpiffe' ? profile.value.endpointSpiffeId : '',
    hasBundle: trustDomainBundle !== undefined,
  }
}

type Plain = ReturnType<typeof plain>

const lineOf = (it: Plain) => [
  it.trustDomain,
  it.url,
  it.endpointId === '' ? it.profile : `${it.profile} ${it.endpointId}`,
  it.hasBundle ? 'yes' : 'no',
]

function tableOf(rows: readonly Plain[]): string {
  return table([['TRUST DOMAIN', 'BUNDLE ENDPOINT', 'PROFILE', 'BUNDLE'], ...rows.map(lineOf)])
}

function all(transport: Transport): Promise<FederationRelationship[]> {
  const client = createClient(TrustDomain, transport)
  return allPages(
    (pageToken) => client.listFederationRelationships({ pageToken }),
    ({ federationRelationships }) => federationRelationships,
  )
}

/** Creates or updates from the same options. */
function write(context: Context, given: Given, verb: 'create' | 'update'): Promise<0> {
  const { socket, url, endpointId, bundle, format } = optionsOf(given, options)
  const trustDomain = parseTrustDomain(given.args[0] ?? '')
  const relationship: MessageInitShape<typeof FederationRelationshipSchema> = {
    trustDomain,
    bundleEndpointUrl: url,
    bundleEndpointProfile:
      endpointId === undefined
        ? { case: 'httpsWeb', value: {} }
        : { case: 'httpsSpiffe', value: { endpointSpiffeId: endpointId } },
    ...(bundle === undefined ? {} : { trustDomainBundle: readBundle(trustDomain, bundle, format) }),
  }
  return withAuthority(context, socket, async (transport) => {
    const client = createClient(TrustDomain, transport)
    const federationRelationships = [relationship]
    const { results } =
      verb === 'create'
        ? await client.batchCreateFederationRelationship({ federationRelationships })
        : await client.batchUpdateFederationRelationship({ federationRelationships })
    demandDone(results)
    const written = results.flatMap(({ federationRelationship: it }) =>
      it === undefined ? [] : [plain(it)],
    )
    answer(context, written[0] ?? {}, () => tableOf(written))
    return 0
  })
}

export function federationCommands(register: Register): void {
  const writing = [
    ['create', 'Says where the bundle of another trust domain is published, and by whom.'],
    ['update', 'Replaces what is known of a relationship.'],
  ] as const
  for (const [verb, about] of writing) {
    register({
      noun: 'federation',
      verb,
      about,
      positional: ['<trust-domain>'],
      options: [
        ['--url <url>', 'its bundle endpoint, https'],
        [
          '--endpoint-id <id>',
          'who serves it (https_spiffe); by Web PKI when left out (https_web)',
        ],
        ['--bundle <file>', 'its bundle as it is now, - for standard input'],
        ['--format <format>', 'of that file: pem or spiffe', 'spiffe'],
        socketOption,
      ],
      run: (context, given) => write(context, given, verb),
    })
  }
  readingCommands(register)
  actingCommands(register)
}

function actingCommands(register: Register): void {
  register({
    noun: 'federation',
    verb: 'refresh',
    about: 'Fetches the bundle of one trust domain now; otherwise it is fetched as its hint says.',
    positional: ['<trust-domain>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const trustDomain = parseTrustDomain(given.args[0] ?? '')
        await createClient(TrustDomain, transport).refreshBundle({ trustDomain })
        answer(
          context,
          { trustDomain, refreshed: true },
          () => `the bundle of ${trustDomain} is as its endpoint has it`,
        )
        return 0
      }),
  })
  register({
    noun: 'federation',
    verb: 'delete',
    about: 'Ends the relationship; the bundle stays until castellan bundle delete.',
    positional: ['<trust-domain>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const trustDomain = parseTrustDomain(given.args[0] ?? '')
        const client = createClient(TrustDomain, transport)
        const request = { trustDomains: [trustDomain] }
        demandDone((await client.batchDeleteFederationRelationship(request)).results)
        answer(
          context,
          { trustDomain, deleted: true },
          () => `the relationship with ${trustDomain} is gone`,
        )
        return 0
      }),
  })
}

function readingCommands(register: Register): void {
  register({
    noun: 'federation',
    verb: 'list',
    about: 'Lists the relationships with other trust domains.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const rows = (await all(transport)).map(plain)
        answer(context, rows, () => (rows.length === 0 ? 'no relationships' : tableOf(rows)))
        return 0
      }),
  })
  register({
    noun: 'federation',
    verb: 'show',
    about: 'Shows the relationship with one trust domain.',
    positional: ['<trust-domain>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const trustDomain = parseTrustDomain(given.args[0] ?? '')
        const client = createClient(TrustDomain, transport)
        const shown = plain(await client.getFederationRelationship({ trustDomain }))
        answer(context, shown, () => tableOf([shown]))
        return 0
      }),
  })
}
