// Whom proxies believe: roots that are denied are none.
import { create } from '@bufbuild/protobuf'
import { beforeEach, expect, it } from 'vitest'
import { createKnowledge, type Knowledge } from '../../../agent/knowledge.ts'
import { createBelieved } from '../../../agent/xds/believed.ts'
import { AuthorityMessageSchema } from '../../../proto/gen/castellan/control/v1/control_pb.js'
import { systemClock } from '../../../runtime/clock.ts'
import { createLog } from '../../../runtime/log.ts'
import { parseCertificate } from '../../../spiffe/certificate.ts'
import { keyIdOf } from '../../../spiffe/key-id.ts'
import { bundleOf, makeRoot, trustDomain } from './sds-server.ts'

const [old, next] = [makeRoot('old'), makeRoot('next')]
const authorityId = keyIdOf(parseCertificate(old.certificate).publicKey).toString('hex')
const log = createLog({ name: 'test', level: 'silent' })
const begun = 1_000_000_000_000

let knowledge: Knowledge
let now = begun
beforeEach(() => {
  now = begun
  knowledge = createKnowledge(trustDomain, systemClock)
  const bundle = bundleOf(trustDomain, old, next)
  knowledge.apply(create(AuthorityMessageSchema, { snapshot: true, bundle, entries: [] }))
})

function deny(expiresAt = 0n): void {
  const rules = [
    { id: '1', target: { case: 'authorityId', value: authorityId } as const, expiresAt },
  ]
  knowledge.apply(create(AuthorityMessageSchema, { revocation: { denyList: { rules }, crls: [] } }))
}

const believed = () => createBelieved({ knowledge, clock: { now: () => now }, log })
const roots = () => {
  const { all, until } = believed()([knowledge.own()])
  return {
    ders: all.flatMap(({ trust }) => trust.x509.authorities.map(({ der }) => Buffer.from(der))),
    until,
  }
}

it('is every root while none is denied', () => {
  expect(roots()).toEqual({
    ders: [old.certificate, next.certificate],
    until: undefined,
  })
})

it('is no root that is denied, as long as it is', () => {
  deny(BigInt(begun / 1000 + 60))
  expect(roots()).toEqual({ ders: [next.certificate], until: begun + 60_000 })
  now = begun + 60_000
  expect(roots().ders).toHaveLength(2)
})

it('is nobody where every root is denied', () => {
  knowledge.apply(create(AuthorityMessageSchema, { bundle: bundleOf(trustDomain, old) }))
  deny()
  expect(believed()([knowledge.own()]).all).toEqual([])
})
