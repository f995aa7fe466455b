// Every method of every service of SPIRE's server and of our own, against every class of caller.
import type { DescMethod } from '@bufbuild/protobuf'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkVouched } from '../../ca/attestors/attestor.ts'
import {
  type CallerClass,
  type Callers,
  callersOf,
  createCallers,
  type Peer,
} from '../../ca/callers.ts'
import { openRegistry, type Registry } from '../../ca/registry.ts'
import type { AgentRow } from '../../ca/store/model.ts'
import type { Store } from '../../ca/store/store.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { Control } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { DenyRules } from '../../proto/gen/castellan/deny/v1/deny_rules_pb.js'
import { Labels } from '../../proto/gen/castellan/entry/v1/labels_pb.js'
import { Policies } from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { Records } from '../../proto/gen/castellan/records/v1/records_pb.js'
import { Echo } from '../../proto/gen/castellan/test/v1/echo_pb.js'
import { Health } from '../../proto/gen/grpc/health/v1/health_pb.js'
import { ServerReflection } from '../../proto/gen/grpc/reflection/v1/reflection_pb.js'
import { IstioCertificateService } from '../../proto/gen/istio/v1/auth/ca_pb.js'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { Debug } from '../../proto/gen/spire/api/server/debug/v1/debug_pb.js'
import { Entry } from '../../proto/gen/spire/api/server/entry/v1/entry_pb.js'
import { LocalAuthority } from '../../proto/gen/spire/api/server/localauthority/v1/localauthority_pb.js'
import { Logger } from '../../proto/gen/spire/api/server/logger/v1/logger_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { TrustDomain } from '../../proto/gen/spire/api/server/trustdomain/v1/trustdomain_pb.js'
import { methodName } from '../../runtime/grpc/service.ts'
import { serialOf } from '../../spiffe/certificate.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { refusalOf } from '../support/refusal.ts'
import { testAgent, testEntry } from '../support/rows.ts'
import { testStore } from '../support/store.ts'

const trustDomain = parseTrustDomain('example.org')
const now = 1_900_000_000_000
const services = [
  ...[Agent, Entry, SVID, Bundle, TrustDomain, LocalAuthority, Logger, Debug],
  ...[Authorities, DenyRules, Labels, Records],
  ...[IstioCertificateService, Control, Policies, Health, ServerReflection],
]
const methods = services.flatMap<DescMethod>((it) => [...it.methods])

/** What stands in SPIRE's documentation, and in design.md §1: one line per method, by hand. */
const expected: Readonly<Record<string, readonly (CallerClass | 'nobody')[]>> = {
  'Agent/AttestAgent': ['anyone'],
  'Agent/RenewAgent': ['agent'],
  'Agent/PostStatus': ['agent'],
  'Agent/CountAgents': ['local', 'admin'],
  'Agent/ListAgents': ['local', 'admin'],
  'Agent/GetAgent': ['local', 'admin'],
  'Agent/DeleteAgent': ['local', 'admin'],
  'Agent/BanAgent': ['local', 'admin'],
  'Agent/CreateJoinToken': ['local', 'admin'],
  'Entry/CountEntries': ['local', 'admin'],
  'Entry/ListEntries': ['local', 'admin'],
  'Entry/GetEntry': ['local', 'admin'],
  'Entry/BatchCreateEntry': ['local', 'admin'],
  'Entry/BatchUpdateEntry': ['local', 'admin'],
  'Entry/BatchDeleteEntry': ['local', 'admin'],
  'Entry/GetAuthorizedEntries': ['agent'],
  'Entry/SyncAuthorizedEntries': ['agent'],
  'SVID/MintX509SVID': ['local', 'admin'],
  'SVID/BatchNewX509SVID': ['agent'],
  'Bundle/GetBundle': ['anyone'],
  'SVID/MintJWTSVID': ['local', 'admin'],
  'SVID/MintWITSVID': ['local', 'admin'],
  'SVID/NewJWTSVID': ['agent'],
  'SVID/BatchNewWITSVID': ['agent'],
  'SVID/NewDownstreamX509CA': ['downstream'],
  'Bundle/CountBundles': ['local', 'admin'],
  'Bundle/AppendBundle': ['local', 'admin'],
  'Bundle/ListFederatedBundles': ['local', 'admin'],
  'Bundle/BatchCreateFederatedBundle': ['local', 'admin'],
  'Bundle/BatchUpdateFederatedBundle': ['local', 'admin'],
  'Bundle/BatchSetFederatedBundle': ['local', 'admin'],
  'Bundle/BatchDeleteFederatedBundle': ['local', 'admin'],
  'Bundle/GetFederatedBundle': ['local', 'admin', 'agent'],
  'Bundle/PublishJWTAuthority': ['downstream'],
  'Bundle/PublishWITAuthority': ['downstream'],
  'TrustDomain/ListFederationRelationships': ['local', 'admin'],
  'TrustDomain/GetFederationRelationship': ['local', 'admin'],
  'TrustDomain/BatchCreateFederationRelationship': ['local', 'admin'],
  'TrustDomain/BatchUpdateFederationRelationship': ['local', 'admin'],
  'TrustDomain/BatchDeleteFederationRelationship': ['local', 'admin'],
  'TrustDomain/RefreshBundle': ['local', 'admin'],
  'LocalAuthority/GetX509AuthorityState': ['local', 'admin'],
  'LocalAuthority/PrepareX509Authority': ['local', 'admin'],
  'LocalAuthority/ActivateX509Authority': ['local', 'admin'],
  'LocalAuthority/TaintX509Authority': ['local', 'admin'],
  'LocalAuthority/RevokeX509Authority': ['local', 'admin'],
  'LocalAuthority/GetJWTAuthorityState': ['local', 'admin'],
  'LocalAuthority/PrepareJWTAuthority': ['local', 'admin'],
  'LocalAuthority/ActivateJWTAuthority': ['local', 'admin'],
  'LocalAuthority/TaintJWTAuthority': ['local', 'admin'],
  'LocalAuthority/RevokeJWTAuthority': ['local', 'admin'],
  'LocalAuthority/GetWITAuthorityState': ['local', 'admin'],
  'LocalAuthority/PrepareWITAuthority': ['local', 'admin'],
  'LocalAuthority/ActivateWITAuthority': ['local', 'admin'],
  'LocalAuthority/TaintWITAuthority': ['local', 'admin'],
  'LocalAuthority/RevokeWITAuthority': ['local', 'admin'],
  'LocalAuthority/TaintX509UpstreamAuthority': ['local', 'admin'],
  'LocalAuthority/RevokeX509UpstreamAuthority': ['local', 'admin'],
  'Logger/GetLogger': ['local', 'admin'],
  'Logger/SetLogLevel': ['local', 'admin'],
  'Logger/ResetLogLevel': ['local', 'admin'],
  'Debug/GetInfo': ['local', 'admin'],
  'IstioCertificateService/CreateCertificate': ['anyone'],
  'Authorities/GetStatus': ['local', 'admin'],
  'Authorities/Activate': ['local', 'admin'],
  'Authorities/Revoke': ['local', 'admin'],
  'Authorities/Retire': ['local', 'admin'],
  'DenyRules/AddRule': ['local', 'admin'],
  'DenyRules/ListRules': ['local', 'admin'],
  'DenyRules/RemoveRule': ['local', 'admin'],
  'Labels/ListLabels': ['local', 'admin'],
  'Labels/UpdateLabels': ['local', 'admin'],
  'Records/ListIssued': ['local', 'admin'],
  'Records/Backup': ['local'],
  'Control/Subscribe': ['agent'],
  'Policies/GetPolicies': ['local', 'admin'],
  'Policies/ApplyPolicies': ['local', 'admin'],
  'Policies/ListVersions': ['local', 'admin'],
  'Policies/RollbackPolicies': ['local', 'admin'],
  'Policies/DeletePolicy': ['local', 'admin'],
  'Policies/WatchEnforcement': ['local', 'admin'],
  'Health/Check': ['anyone'],
  'Health/Watch': ['anyone'],
  'Health/List': ['anyone'],
  'ServerReflection/ServerReflectionInfo': ['local', 'admin'],
}
const shortName = (method: DescMethod) => `${method.parent.name}/${method.name}`

const serial = (byte: number) => serialOf(Buffer.alloc(16, byte))
const svid = (path: string, byte = 0x41, notAfter = now + 1000): Peer => ({
  kind: 'svid',
  id: parseSpiffeId(`spiffe://example.org${path}`),
  serial: serial(byte),
  authorityIds: ['a1'],
  notAfter,
  address: '192.0.2.1',
})
const agentPath = '/spire/agent/a'

let store: Store
let registry: Registry
let callers: Callers
beforeEach(async () => {
  store = await testStore()
  registry = await openRegistry(store, trustDomain)
  callers = createCallers({
    ...{ registry, table: store.agents, now: () => now },
    isTrusted: (authorityId) => authorityId === 'a1',
  })
  await join(testAgent('a', { serial: serial(0x41) }))
  const admin = { spiffeId: parseSpiffeId('spiffe://example.org/boss'), admin: true }
  await store.entries.create(testEntry('boss', admin))
  await store.entries.create(testEntry('worker'))
  const below = { spiffeId: parseSpiffeId('spiffe://example.org/below'), downstream: true }
  await store.entries.create(testEntry('below', below))
})
afterEach(() => {
  registry[Symbol.dispose]()
  store[Symbol.asyncDispose]()
})

async function join(agent: AgentRow): Promise<void> {
  const { id: spiffeId } = agent
  const row = { spiffeId, authorityId: '', requester: '', entryId: '', notBefore: 0, notAfter: 0 }
  const bytes = Buffer.alloc(16, 0x50 + registry.agents.size)
  await store.issuance.record(
    { ...row, serial: serialOf(bytes), certificate: new Uint8Array() },
    { kind: 'attested', agent, token: undefined },
  )
}

const contextOf = (peer: Peer, method: DescMethod) => ({
  method,
  peer,
  metadata: new Map<string, string[]>(),
  signal: new AbortController().signal,
})
const may = (peer: Peer, method: DescMethod) => callers.authorize(contextOf(peer, method))
const refusal = (peer: Peer, method: DescMethod = Entry.method.syncAuthorizedEntries) =>
  may(peer, method).then(
    () => undefined,
    ({ code, message }: { code: string; message: string }) => ({ code, message }),
  )

describe('the table of callers', () => {
  it('holds exactly the methods that it should, each with a class', () => {
    const known = Object.keys(callersOf).filter(
      (name) => !name.startsWith('grpc.reflection.v1alpha'),
    )
    const wanted = methods.filter((it) => expected[shortName(it)] !== undefined).map(methodName)
    expect(known.sort()).toEqual(wanted.sort())
    for (const classes of Object.values(callersOf)) expect(classes.length).toBeGreaterThan(0)
  })

  const peers: Readonly<Record<string, { peer: Peer; classes: readonly CallerClass[] }>> = {
    local: { peer: { kind: 'local' }, classes: ['anyone', 'local'] },
    anonymous: { peer: { kind: 'anonymous', address: '192.0.2.1' }, classes: ['anyone'] },
    agent: { peer: svid(agentPath), classes: ['anyone', 'agent'] },
    admin: { peer: svid('/boss'), classes: ['anyone', 'admin'] },
    downstream: { peer: svid('/below'), classes: ['anyone', 'downstream'] },
    workload: { peer: svid('/worker'), classes: ['anyone'] },
    server: { peer: svid('/spire/server'), classes: ['anyone'] },
    'unknown agent': { peer: svid('/spire/agent/x'), classes: ['anyone'] },
    'expired admin': { peer: svid('/boss', 0x41, now - 1), classes: ['anyone'] },
    'expired agent': { peer: svid(agentPath, 0x41, now - 1), classes: ['anyone'] },
    'a path that only begins like that of agents': {
      peer: svid('/spire/agents/a'),
      classes: ['anyone'],
    },
  }
  it.each(Object.keys(peers))(
    'lets %s call what its classes may, and nothing else',
    async (name) => {
      const { peer, classes } = peers[name] ?? { peer: svid('/x'), classes: [] }
      for (const method of methods) {
        const wanted = (expected[shortName(method)] ?? []).some((it) =>
          classes.some((of) => of === it),
        )
        const found = await refusal(peer, method)
        expect(found === undefined, `${name} ${methodName(method)}: ${found?.message}`).toBe(wanted)
        if (found !== undefined) expect(found.code).toMatch(/^ERR_(DENIED|AGENT_[A-Z_]+)$/)
      }
    },
  )

  it('refuses what has no row, whoever calls', async () => {
    for (const peer of [{ kind: 'local' } as const, svid(agentPath), svid('/boss')]) {
      expect((await refusal(peer, Echo.method.unary))?.code).toBe('ERR_DENIED')
    }
  })

  it('is asked by own names only', async () => {
    const method: DescMethod = Object.create(Health.method.check, {
      name: { value: 'constructor' },
      parent: { value: { typeName: 'x' } },
    })
    expect((await refusal({ kind: 'local' }, method))?.code).toBe('ERR_DENIED')
  })
})

describe('an agent is told why it is none', () => {
  const id = 'spiffe://example.org/spire/agent/a'

  it('banned', async () => {
    await store.agents.ban(testAgent('a').id)
    expect(await refusal(svid(agentPath))).toEqual({
      code: 'ERR_AGENT_BANNED',
      message: `${id} is banned`,
    })
  })

  it('not attested', async () => {
    await store.agents.delete(testAgent('a').id)
    expect(await refusal(svid(agentPath))).toEqual({
      code: 'ERR_AGENT_NOT_ATTESTED',
      message: `${id} is not attested`,
    })
  })

  it('expired', async () => {
    expect(await refusal(svid(agentPath, 0x41, now - 1))).toEqual({
      code: 'ERR_AGENT_EXPIRED',
      message: `the certificate of ${id} has expired`,
    })
  })

  it('replaced', async () => {
    expect(await refusal(svid(agentPath, 0x42))).toEqual({
      code: 'ERR_AGENT_NOT_ACTIVE',
      message: `certificate ${serial(0x42)} of ${id} was replaced`,
    })
  })

  it('a workload, or nobody', async () => {
    expect(await refusal(svid('/worker'))).toEqual({
      code: 'ERR_DENIED',
      message: 'spiffe://example.org/worker is no agent',
    })
    expect(await refusal({ kind: 'anonymous', address: '' })).toEqual({
      code: 'ERR_DENIED',
      message: 'anonymous is no agent',
    })
  })
})

describe('a renewed certificate', () => {
  it('replaces the one in use when it is first seen, and not before', async () => {
    const { id: spiffeId } = testAgent('a')
    const row = { spiffeId, authorityId: '', requester: '', entryId: '', notBefore: 0 }
    const renewed = { kind: 'renewed', id: spiffeId, serial: serial(0x42), notAfter: now } as const
    await store.issuance.record(
      { ...row, serial: serial(0x42), notAfter: now, certificate: new Uint8Array() },
      renewed,
    )
    expect(await refusal(svid(agentPath, 0x41))).toBe(undefined)
    expect(await refusal(svid(agentPath, 0x41))).toBe(undefined)
    expect(await refusal(svid(agentPath, 0x42))).toBe(undefined)
    expect((await refusal(svid(agentPath, 0x41)))?.code).toBe('ERR_AGENT_NOT_ACTIVE')
    expect(await store.agents.get(spiffeId)).toMatchObject({
      serial: serial(0x42),
      pendingSerial: '',
    })
    expect(registry.agents.get(spiffeId)).toEqual(await store.agents.get(spiffeId))
  })
})

describe('an administrator', () => {
  const list = Entry.method.listEntries

  it('is one only while its entry says so and lives', async () => {
    expect(await refusal(svid('/boss'), list)).toBe(undefined)
    await store.entries.update('boss', (it) => ({ ...it, expiresAt: now / 1000 }))
    expect((await refusal(svid('/boss'), list))?.code).toBe('ERR_DENIED')
    await store.entries.update('boss', (it) => ({ ...it, expiresAt: 0, admin: false }))
    expect((await refusal(svid('/boss'), list))?.code).toBe('ERR_DENIED')
  })

  it('is vouched for by name, and nobody else is', () => {
    const local = callers.administrator(contextOf({ kind: 'local' }, list))
    checkVouched(local)
    expect(local).toEqual({ kind: 'administrator', name: 'local' })
    const remote = callers.administrator(contextOf(svid('/boss'), list))
    expect(remote).toEqual({ kind: 'administrator', name: 'spiffe://example.org/boss' })
    expect(refusalOf(() => callers.administrator(contextOf(svid('/worker'), list)))).toEqual({
      code: 'ERR_DENIED',
      message: 'spiffe://example.org/worker is no administrator',
    })
  })
})

describe('a connection that was good', () => {
  it('is so no more when its authority is revoked, or a rule denies it', async () => {
    const list = methods.find((it) => it.name === 'ListEntries')
    expect(await refusal(svid('/boss'), list)).toBeUndefined()
    const old = { ...svid('/boss'), authorityIds: ['b2'] }
    expect(callers.denialOf(old)).toBe('authority b2 is not trusted any more')
    expect(await refusal(old, list)).toEqual({
      code: 'ERR_DENIED',
      message: 'authority b2 is not trusted any more',
    })
    const id = parseSpiffeId('spiffe://example.org/boss')
    const rule = { id: 'r', target: { kind: 'id', id }, reason: 'seen', createdAt: 1, expiresAt: 0 }
    await store.denyRules.add({ ...rule, target: { kind: 'id', id } })
    expect(callers.denialOf(svid('/boss'))).toBe(`id ${id} is on the deny-list`)
    expect(callers.denialOf({ kind: 'local' })).toBeUndefined()
  })
})
