// In which order a proxy hears of a denial: who is denied cannot come back when its connections are cut.
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { AnySchema, anyUnpack } from '@bufbuild/protobuf/wkt'
import { beforeEach, expect, it } from 'vitest'
import type { Knowledge } from '../../../agent/knowledge.ts'
import { createProxyLedger, type Kind } from '../../../agent/proxies/ledger.ts'
import { type StateOfTheWorld, stateOfTheWorld } from '../../../agent/xds/state-of-the-world.ts'
import { createTelling } from '../../../agent/xds/telling.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { ClusterLoadAssignmentSchema } from '../../../proto/gen/envoy/config/endpoint/v3/endpoint_pb.js'
import { ListenerSchema } from '../../../proto/gen/envoy/config/listener/v3/listener_pb.js'
import type { DiscoveryResponseSchema } from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'
import { proxySpec } from '../../../proxy-spec/spec.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { parseSpiffeId } from '../../../spiffe/id.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { driveBy, knowledgeOf } from '../../support/driving.ts'
import { policyText } from '../../support/policy-text.ts'
import { request } from './fake-resources.ts'
import { makeRoot, svidOf, trustDomain } from './sds-server.ts'

type Response = MessageInitShape<typeof DiscoveryResponseSchema>

const path = '/ns/shop/sa/web'
const identity = parseSpiffeId(`spiffe://${trustDomain}${path}`)
const caller = `spiffe://${trustDomain}/ns/shop/sa/caller`
const server = `spiffe://${trustDomain}/ns/shop/sa/server`
const root = makeRoot('ours')
const svid = svidOf(root, path)
const spec = proxySpec.parse({
  identity,
  inbound: [
    { name: 'web', listen: '127.0.0.1:8443', protocol: 'http', forwardTo: '127.0.0.1:80' },
    { name: 'raw', listen: '127.0.0.1:8444', protocol: 'tcp', forwardTo: '127.0.0.1:81' },
  ],
  outbound: [
    {
      ...{ name: 'server', listen: '127.0.0.1:9001', protocol: 'http', service: 'server' },
      expect: [server],
    },
  ],
})

const subscriptions: Readonly<Record<string, readonly string[]>> = {
  clusters: [],
  endpoints: ['peer/server'],
  listeners: [],
  routes: ['inbound/web', 'outbound/server'],
}

let knowledge: Knowledge
const apply = (message: MessageInitShape<typeof AuthorityMessageSchema>) =>
  knowledge.apply(create(AuthorityMessageSchema, message))
const deny = (...ids: readonly string[]) => {
  const rules = ids.map((value, i) => ({
    id: value,
    createdAt: BigInt(i + 1),
    target: { case: 'spiffeId', value } as const,
  }))
  apply({ revocation: { denyList: { rules }, crls: [] } })
}

beforeEach(() => {
  knowledge = knowledgeOf(path, [root])
})

/** A proxy that has subscribed to everything, and takes only what it is told to take. */
function open() {
  const driven = driveBy({
    ...{ knowledge, spec, identity, svid, decisions: '/run/authz.sock' },
    endpoints: new Map([['server', [{ host: '192.0.2.1', port: 443, id: parseSpiffeId(server) }]]]),
  })
  const kinds: readonly Kind[] = ['clusters', 'endpoints', 'listeners', 'routes']
  const protocols = new Map(
    kinds.map((kind): [Kind, StateOfTheWorld] => [kind, stateOfTheWorld(kind)]),
  )
  for (const [kind, protocol] of protocols)
    protocol.hear(request({ resourceNames: [...(subscriptions[kind] ?? [])] }))
  let newest = new Map<Kind, Response>()
  let held: Response | undefined
  let now = Date.now()
  const telling = createTelling({
    driven,
    record: createProxyLedger().open({ pid: 0, uid: 0 }),
    told: { protocols, clusters: new Map() },
    started: [],
    clock: { now: () => now },
    note(kind, response: Response) {
      newest.set(kind, response)
      return response
    },
  })
  return {
    /** What is news. */
    look() {
      newest = new Map()
      const entries = knowledge.entriesFor(new Set(['test:caller']))
      if (telling.of(entries).responses.length === 0) telling.cut(entries)
      return newest
    },
    pass(ms: number) {
      now += ms
    },
    /** Tells it secrets that it does not answer. */
    holdSecrets() {
      const protocol = stateOfTheWorld('secrets')
      protocols.set('secrets', protocol)
      protocol.hear(request({ resourceNames: ['ROOT'] }))
      const pack = () => create(AnySchema, {})
      const resource = { name: 'ROOT', version: '1', pack }
      held = protocol.tell({
        ...{ resources: new Map([['ROOT', resource]]), pending: new Set(), absent: new Map() },
      })
    },
    takeSecrets() {
      protocols
        .get('secrets')
        ?.hear(request({ resourceNames: ['ROOT'], responseNonce: held?.nonce ?? '' }))
    },
    take(told: ReadonlyMap<Kind, Response>) {
      for (const [kind, { nonce = '' }] of told) {
        const resourceNames = [...(subscriptions[kind] ?? [])]
        protocols.get(kind)?.hear(request({ resourceNames, responseNonce: nonce }))
      }
    },
  }
}

/** What listeners say of their connections, by name. */
const marksIn = (told: ReadonlyMap<Kind, Response>) =>
  new Map(
    (told.get('listeners')?.resources ?? []).flatMap((any) => {
      const listener = any.$typeName === undefined ? undefined : anyUnpack(any, ListenerSchema)
      const mark = listener?.filterChains[0]?.metadata?.filterMetadata.castellan
      return listener === undefined || mark === undefined ? [] : [[listener.name, mark] as const]
    }),
  )

/** Those that end what is open because somebody is denied. */
const cutsIn = (told: ReadonlyMap<Kind, Response>) =>
  new Map([...marksIn(told)].flatMap(([name, { cut }]) => (cut === undefined ? [] : [[name, cut]])))

const addressesIn = (told: ReadonlyMap<Kind, Response>) =>
  (told.get('endpoints')?.resources ?? []).flatMap((any) =>
    any.$typeName === undefined
      ? []
      : (anyUnpack(any, ClusterLoadAssignmentSchema)?.endpoints[0]?.lbEndpoints ?? []),
  )

it('a denied caller is cut off once the rules that keep it out were taken', () => {
  const proxy = open()
  proxy.take(proxy.look())
  expect(proxy.look().size).toBe(0)
  deny(caller)
  const first = proxy.look()
  expect([...first.keys()]).toEqual(['routes'])
  // nothing else before that was taken
  expect(proxy.look().size).toBe(0)
  proxy.take(first)
  const second = proxy.look()
  expect([...second.keys()]).toEqual(['listeners'])
  expect([...cutsIn(second).keys()]).toEqual(['inbound/web', 'inbound/raw'])
  proxy.take(second)
  expect(proxy.look().size).toBe(0)
})

it('nothing is cut when a denial is over', () => {
  const proxy = open()
  deny(caller, server)
  proxy.take(proxy.look())
  deny(caller)
  const kinds: Kind[] = []
  for (let told = proxy.look(); told.size > 0; told = proxy.look()) {
    kinds.push(...told.keys())
    proxy.take(told)
  }
  expect(new Set(kinds)).toEqual(new Set(['endpoints', 'routes']))
})

const rootId = keyIdOf(parseCertificate(root.certificate).publicKey).toString('hex')

it('a denied root changes no rule: who was let in by it is cut off once other roots were taken', () => {
  const proxy = open()
  const before = proxy.look()
  proxy.take(before)
  proxy.holdSecrets()
  const rules = [
    { id: 'root', createdAt: 1n, target: { case: 'authorityId', value: rootId } },
  ] as const
  apply({ revocation: { denyList: { rules: [...rules] }, crls: [] } })
  expect(proxy.look().size).toBe(0)
  proxy.takeSecrets()
  const told = proxy.look()
  // also what is open to servers of ours: their clusters are others, so that no connection of before is used
  expect([...told.keys()]).toEqual(['clusters', 'endpoints', 'listeners'])
  expect([...cutsIn(told).keys()]).toEqual(['inbound/web', 'inbound/raw', 'outbound/server'])
})

it('a proxy that takes nothing is told to cut after a while', () => {
  const proxy = open()
  proxy.take(proxy.look())
  proxy.holdSecrets()
  deny(caller)
  expect([...proxy.look().keys()]).toEqual(['routes'])
  expect(proxy.look().size).toBe(0)
  proxy.pass(2999)
  expect(proxy.look().size).toBe(0)
  proxy.pass(1)
  expect([...proxy.look().keys()]).toEqual(['listeners'])
})

it('no server of ours is called when an authority below is denied, and those of others are', () => {
  const target = { case: 'authorityId', value: 'ab'.repeat(20) } as const
  apply({ revocation: { denyList: { rules: [{ id: 'below', createdAt: 1n, target }] }, crls: [] } })
  expect(addressesIn(open().look())).toEqual([])
})

const applied = (version: bigint, ...texts: readonly string[]) =>
  apply({
    policies: {
      ...{ version, rootNamespace: '' },
      files: texts.map((text, i) => ({ name: `test-${i}.yaml`, text })),
    },
  })

it('connections of bytes are made anew when others may have them, those of requests are not', () => {
  const proxy = open()
  const before = proxy.look()
  proxy.take(before)
  applied(2n, policyText('[{ from: [{ source: { namespaces: [other] } }] }]'))
  const told = proxy.look()
  expect([...told.keys()]).toEqual(['listeners', 'routes'])
  const [former, now] = [before, told].map(marksIn)
  expect(now?.get('inbound/raw')).not.toEqual(former?.get('inbound/raw'))
  expect(now?.get('inbound/web')).toEqual(former?.get('inbound/web'))
})

it('nothing is made anew when policies change that are about others', () => {
  const proxy = open()
  proxy.take(proxy.look())
  const others = policyText('[{}]').replace(/namespace: [^ ,}\n]+/, 'namespace: others')
  applied(2n, policyText('[{}]'), others)
  expect(proxy.look().size).toBe(0)
})

it('a proxy that comes back is told of its newest listeners at once', () => {
  deny(caller)
  expect([...cutsIn(open().look()).keys()]).toEqual(['inbound/web', 'inbound/raw'])
})

it('a denied server has no address, and what is open to it ends', () => {
  const proxy = open()
  const before = proxy.look()
  expect(addressesIn(before)).toHaveLength(1)
  proxy.take(before)
  deny(server)
  const first = proxy.look()
  expect([...first.keys()]).toEqual(['endpoints', 'routes'])
  expect(addressesIn(first)).toEqual([])
  proxy.take(first)
  expect([...cutsIn(proxy.look()).keys()]).toContain('outbound/server')
})
