// What programs without a proxy hold of the deny-list: identities as they are, certificates by whom they were issued
// to, and nobody gets in where a program cannot see who is denied.
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Knowledge } from '../../../../agent/knowledge.ts'
import { planOf } from '../../../../agent/proxies/envoy/plan.ts'
import { deniedToPrograms } from '../../../../agent/proxies/grpc/denied.ts'
import { AuthorityMessageSchema } from '../../../../proto/gen/castellan/control/v1/control_pb.js'
import { DenyRuleSchema } from '../../../../proto/gen/castellan/deny/v1/deny_pb.js'
import { proxySpec } from '../../../../proxy-spec/spec.ts'
import { parseCertificate } from '../../../../spiffe/certificate.ts'
import { parseSpiffeId } from '../../../../spiffe/id.ts'
import { keyIdOf } from '../../../../spiffe/key-id.ts'
import { knowledgeOf, snapshotBy } from '../../../support/driving.ts'
import { makeRoot, svidOf, trustDomain } from '../../xds/sds-server.ts'

const path = '/ns/shop/sa/payments'
const idOf = (name: string) => parseSpiffeId(`spiffe://${trustDomain}/ns/shop/sa/${name}`)
const identity = idOf('payments')
const [root, other] = [makeRoot('ours'), makeRoot('next')]
const keyId = keyIdOf(parseCertificate(root.certificate).publicKey).toString('hex')
const below = 'ab'.repeat(20)
const svid = svidOf(other, path)
const here = '127.0.0.1:9000'
const spec = proxySpec.parse({
  identity,
  inbound: [{ name: 'pay', listen: here, protocol: 'grpc', forwardTo: here }],
  outbound: [
    {
      ...{ name: 'db', listen: '127.0.0.1:0', protocol: 'grpc', destination: '10.0.0.7:80' },
      ...{ expect: [idOf('db')], loadBalancing: 'round-robin' },
    },
  ],
})

type Rule = MessageInitShape<typeof DenyRuleSchema>
const serial = (value: string, issuedTo = ''): Rule => ({
  target: { case: 'serial', value },
  issuedTo,
})
const authority = (value: string, more: Rule = {}): Rule => ({
  target: { case: 'authorityId', value },
  ...more,
})
const named = (value: string): Rule => ({ target: { case: 'spiffeId', value } })

const begun = 1_800_000_000_000
let now = begun
const clock = {
  now: () => now,
  monotonic: () => now,
  sleep: () => Promise.reject(new Error('nobody sleeps here')),
}

let knowledge: Knowledge
const apply = (message: MessageInitShape<typeof AuthorityMessageSchema>) =>
  knowledge.apply(create(AuthorityMessageSchema, message))
const deny = (...rules: readonly Rule[]) =>
  apply({
    revocation: {
      denyList: { rules: rules.map((it, i) => ({ id: `${i}`, ...it })) },
      crls: [],
    },
  })

beforeEach(() => {
  now = begun
  knowledge = knowledgeOf(path, [root, other], clock)
})

const snapshot = () =>
  snapshotBy({
    ...{ knowledge, spec, identity, svid, driver: 'grpc', clock },
    decisions: '/run/authz.sock',
  })

/** All that the program is told, as text. */
const told = () => JSON.stringify(planOf(snapshot()))
const who = () => snapshot().enforcement.get('pay')
const remarks = () => snapshot().remarks?.join('\n')
const endpoints = () => JSON.stringify(planOf(snapshot()).endpoints)

describe('a denied identity', () => {
  it('is refused by a rule, and nothing has to be said', () => {
    const web = idOf('web')
    expect(told()).not.toContain(web)
    deny(named(web))
    expect(told()).toContain(web)
    expect([who()?.by, remarks()]).toEqual(['native', ''])
  })
})

describe('a denied certificate', () => {
  it('is refused with the whole identity that it was issued to, and that is said', () => {
    deny(serial('0a', idOf('web')), serial('0b', idOf('web')))
    expect(told()).toContain(`"exact":"${idOf('web')}"`)
    expect(who()).toMatchObject({ by: 'native', reasons: [] })
    expect(remarks()).toBe(
      `all of ${idOf('web')} is refused: gRPC looks at no serials, and on the deny-list is 0a, 0b`,
    )
    expect(endpoints()).toContain('10.0.0.7')
  })

  it('of a server is not called any more, for the time that the rule holds', () => {
    const expiresAt = BigInt(begun / 1000 + 60)
    deny({ ...serial('0a', idOf('db')), expiresAt })
    expect(remarks()).toContain('nobody is called: whom it expects is on the deny-list')
    expect(endpoints()).not.toContain('10.0.0.7')
    expect(snapshot().changesAt).toBe(begun + 60_000)
    now = begun + 60_000
    expect(remarks()).toBe('')
    expect(endpoints()).toContain('10.0.0.7')
  })

  it.each([
    ['nobody knows whose it is', '', 'deny add --serial again'],
    ['it is an authority', `spiffe://${trustDomain}`, 'it could have signed any'],
  ])('lets nobody in where %s', (_, issuedTo, why) => {
    deny(serial('0a', issuedTo))
    expect(who()).toMatchObject({ by: 'closed', reasons: [expect.stringContaining(why)] })
    expect(remarks()).toContain('db: nobody is called: certificate 0a')
    expect(endpoints()).not.toContain('10.0.0.7')
  })
})

describe('a denied authority', () => {
  it('below ours lets nobody in, and nobody is called', () => {
    deny(authority(below))
    expect(who()).toMatchObject({ by: 'closed', reasons: [expect.stringContaining(below)] })
    expect(endpoints()).not.toContain('10.0.0.7')
    deny()
    expect(who()?.by).toBe('native')
  })

  it('that is a root of before changes nothing: nobody has it any more', () => {
    deny(authority(below, { root: true }))
    expect([who()?.by, remarks()]).toEqual(['native', ''])
  })

  it('that is a root has connections made anew, once its files were read', () => {
    const before = told()
    deny(authority(keyId, { root: true, createdAt: BigInt(begun / 1000) }))
    expect(who()?.by).toBe('native')
    expect(remarks()).toContain(`root ${keyId} is on the deny-list`)
    expect(snapshot().changesAt).toBe(begun + 15_000)
    now = begun + 15_000
    const first = told()
    expect(snapshot().changesAt).toBe(begun + 120_000)
    now = begun + 120_000
    expect(new Set([before, first, told()]).size).toBe(3)
    expect(snapshot().changesAt).toBeUndefined()
  })
})

it('names a few of very many, and counts the others', () => {
  const rules = Array.from({ length: 40 }, (_, i) => [
    create(DenyRuleSchema, serial(`a${i}`, idOf(`web-${i}`))),
    create(DenyRuleSchema, serial(`b${i}`)),
    create(DenyRuleSchema, serial(`c${i}`, idOf('web-0'))),
  ]).flat()
  const denied = deniedToPrograms(rules, { roots: new Set(), now })
  expect(denied.ids).toHaveLength(40)
  expect([denied.remarks.length, denied.unseen.length]).toEqual([6, 6])
  expect(denied.remarks[0]).toMatch(/a0, c0, c1, c2, c3, 36 more$/)
  expect(denied.remarks[5]).toBe('and so are 35 more identities, for certificates of theirs')
  expect(denied.unseen[5]).toBe('and 35 more like them')
})
