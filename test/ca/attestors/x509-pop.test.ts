// x509pop over the wire: a node with a certificate of its own, and nodes that only pretend.
import 'reflect-metadata'
import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type * as x509 from '@peculiar/x509'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { agentPathProblem } from '../../../ca/attestors/x509-pop.ts'
import { Agent } from '../../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import type { X509SVID } from '../../../proto/gen/spire/api/types/x509svid_pb.js'
import { type Connection, denialOf, newKeys } from '../../support/ca-client.ts'
import { makeCsr } from '../../support/csr.ts'
import { testFolder } from '../../support/folder.ts'
import { ec, hugeRsa, nodeIssuer, rsa } from '../../support/node-certificates.ts'
import { sharedCa } from '../../support/shared-ca.ts'

const folder = testFolder()
let known: Awaited<ReturnType<typeof nodeIssuer>>
let foreign: Awaited<ReturnType<typeof nodeIssuer>>
let anyone: Connection
const ca = sharedCa(async () => {
  known = await nodeIssuer('nodes')
  foreign = await nodeIssuer('others')
  writeFileSync(join(folder.path, 'nodes.pem'), known.certificate.toString('pem'))
  return {
    folder: folder.path,
    config: 'attestors: { x509pop: { bundle: nodes.pem } }\n',
  }
})
beforeAll(() => {
  anyone = ca.remote()
})
afterAll(() => {
  anyone[Symbol.dispose]()
  folder[Symbol.dispose]()
})

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
const json = (value: unknown) => new Uint8Array(Buffer.from(JSON.stringify(value)))

/** The answer of an honest node: both nonces, signed. */
function answer(question: Uint8Array, key: KeyObject, nonce = randomBytes(32)): Uint8Array {
  const asked = JSON.parse(Buffer.from(question).toString())
  if (asked.rsa_signature !== null) {
    const signed = Buffer.concat([Buffer.from(asked.rsa_signature.nonce, 'base64'), nonce])
    const signature = sign('sha256', signed, { key, padding: 6 })
    return json({ rsa_signature: { nonce: base64(nonce), signature: base64(signature) } })
  }
  const signed = Buffer.concat([Buffer.from(asked.ecdsa_signature.nonce, 'base64'), nonce])
  const raw = sign('sha256', signed, { key, dsaEncoding: 'ieee-p1363' })
  const half = raw.length / 2
  const [r, s] = [raw.subarray(0, half), raw.subarray(half)].map(base64)
  return json({ ecdsa_signature: { nonce: base64(nonce), r, s } })
}

type Answerer = (question: Uint8Array) => Uint8Array | undefined

async function attest(payload: Uint8Array, respond: Answerer, keys = newKeys()) {
  const asked = Promise.withResolvers<Uint8Array>()
  async function* requests() {
    const data = { type: 'x509pop', payload }
    yield { step: { case: 'params' as const, value: { data, params: { csr: makeCsr(keys) } } } }
    const value = respond(await asked.promise)
    if (value !== undefined) yield { step: { case: 'challengeResponse' as const, value } }
  }
  for await (const { step } of anyone.client(Agent).attestAgent(requests())) {
    if (step.case === 'challenge') asked.resolve(step.value)
    if (step.case === 'result') return { ...step.value, keys }
  }
  throw new Error('no result')
}

const idOf = (svid: X509SVID | undefined) => ({
  trustDomain: 'example.org',
  path: svid?.id?.path ?? '',
})
const payloadOf = (...certificates: x509.X509Certificate[]) =>
  json({ certificates: certificates.map(({ rawData }) => base64(new Uint8Array(rawData))) })
const sha1 = (certificate: x509.X509Certificate) =>
  createHash('sha1').update(new Uint8Array(certificate.rawData)).digest('hex')

describe('a node with a certificate of its own', () => {
  it.each([
    ['EC', ec],
    ['RSA', rsa],
  ] as const)(
    'joins by an %s key, with what its certificate says as selectors',
    async (_name, algorithm) => {
      const { certificate, key } = await known.node(algorithm)
      const { svid, reattestable } = await attest(payloadOf(certificate), (it) => answer(it, key))
      expect(reattestable).toBe(true)
      expect(svid?.id?.path).toBe(`/spire/agent/x509pop/${sha1(certificate)}`)
      const agent = await ca.local.client(Agent).getAgent({ id: idOf(svid) })
      expect(agent).toMatchObject({ attestationType: 'x509pop', canReattest: true })
      const serial = certificate.serialNumber.padStart(
        Math.ceil(certificate.serialNumber.length / 2) * 2,
        '0',
      )
      expect(agent.selectors.map(({ type, value }) => `${type}:${value}`)).toEqual([
        'x509pop:subject:cn:node-7',
        `x509pop:ca:fingerprint:${sha1(known.certificate)}`,
        `x509pop:serialnumber:${serial}`,
      ])
    },
  )

  it('renews by attesting again, and is told so', async () => {
    const { certificate, key } = await known.node(ec)
    const first = await attest(payloadOf(certificate), (it) => answer(it, key))
    const chain = first.svid?.certChain ?? []
    using agent = ca.remote({ chain, keys: first.keys })
    const renewal = agent.client(Agent).renewAgent({ params: { csr: makeCsr(newKeys()) } })
    expect(await denialOf(renewal)).toMatchObject({ code: 'PermissionDenied', reason: 5 })
    const second = await attest(payloadOf(certificate), (it) => answer(it, key))
    expect(second.svid?.id?.path).toBe(first.svid?.id?.path)
    await ca.local.client(Agent).banAgent({ id: idOf(first.svid) })
    const banned = attest(payloadOf(certificate), (it) => answer(it, key))
    expect(await denialOf(banned)).toMatchObject({ code: 'PermissionDenied', reason: 4 })
  })
})

describe('x509pop refuses', () => {
  it('a certificate of another authority, and one that has expired', async () => {
    const other = await foreign.node(ec)
    const told = { code: 'PermissionDenied' }
    expect(
      await denialOf(attest(payloadOf(other.certificate), (it) => answer(it, other.key))),
    ).toMatchObject(told)
    const old = await known.node(ec, -60_000)
    const expired = await denialOf(attest(payloadOf(old.certificate), (it) => answer(it, old.key)))
    expect(expired).toMatchObject({
      ...told,
      message: expect.stringContaining('does not lead to a known CA'),
    })
  })

  it('an answer by another key, of other nonces, of the wrong kind, or none', async () => {
    const { certificate, key } = await known.node(ec)
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
    const payload = payloadOf(certificate)
    const unsigned = {
      code: 'PermissionDenied',
      message: 'x509pop: the answer is not signed by the key of the certificate',
    }
    const empty = json({ rsa_signature: null, ecdsa_signature: null })
    const other = json({ ecdsa_signature: { nonce: base64(randomBytes(32)) }, rsa_signature: null })
    expect(await denialOf(attest(payload, (it) => answer(it, stranger)))).toEqual(unsigned)
    expect(await denialOf(attest(payload, () => answer(other, key)))).toEqual(unsigned)
    expect(await denialOf(attest(payload, () => empty))).toEqual(unsigned)
    expect(await denialOf(attest(payload, (it) => answer(it, key, randomBytes(8))))).toMatchObject({
      code: 'InvalidArgument',
    })
    expect(await denialOf(attest(payload, () => undefined))).toMatchObject({
      code: 'InvalidArgument',
      message: 'challenge_response: is missing',
    })
  })

  it.each([
    ['no JSON', new Uint8Array([1, 2, 3])],
    ['no certificate', json({ certificates: [] })],
    ['nine of them', json({ certificates: Array(9).fill('AAAA') })],
    ['what is no certificate', json({ certificates: ['AAAA'] })],
    ['unknown members', json({ certificates: ['AAAA'], more: 1 })],
    ['more than 64 KiB', new Uint8Array(65_537)],
  ])('%s', async (_what, payload) => {
    expect(await denialOf(attest(payload, () => undefined))).toMatchObject({
      code: 'InvalidArgument',
      message: expect.stringMatching(/^x509pop: /),
    })
  })
})

describe('R6 evidence costs no more than it is worth:', () => {
  it('a key of more than 4096 bits is refused before it verifies anything', async () => {
    const { certificate } = await known.node(hugeRsa)
    let asked = 0
    const respond = () => {
      asked++
      return undefined
    }
    expect(await denialOf(attest(payloadOf(certificate), respond))).toEqual({
      code: 'PermissionDenied',
      message: 'x509pop: the key is neither RSA of 2048 to 4096 bits nor P-256, P-384 or P-521',
    })
    expect(asked).toBe(0)
  })

  it('a chain of more than eight certificates, or one above 16 KiB, is not parsed', async () => {
    const { certificate } = await known.node(ec)
    const tooMany = attest(payloadOf(...Array(9).fill(certificate)), () => undefined)
    expect(await denialOf(tooMany)).toMatchObject({
      code: 'InvalidArgument',
      message: 'x509pop: is not the JSON of this attestor',
    })
    const large = base64(new Uint8Array(16 * 1024 + 1))
    const tooLarge = attest(json({ certificates: [large] }), () => undefined)
    expect(await denialOf(tooLarge)).toMatchObject({
      code: 'InvalidArgument',
      message: 'x509pop: has a certificate of more than 16 KiB',
    })
  })
})

describe('the path of an agent ID', () => {
  it.each(['/x509pop/{fingerprint}', '/node/{cn}', '/{cn}/{serial}', '/rack-1.{cn}'])(
    'can be %s',
    (template) => {
      expect(agentPathProblem(template)).toBeUndefined()
    },
  )
  it.each([
    ['', 'has none of {fingerprint}, {serial} and {cn}: all agents were one'],
    ['/node', 'has none of {fingerprint}, {serial} and {cn}: all agents were one'],
    ['/node/{uri}', '{uri} is none of {fingerprint}, {serial} and {cn}'],
    ['node/{cn}', 'makes no path of a SPIFFE ID'],
    ['/node/{cn}/', 'makes no path of a SPIFFE ID'],
    ['/../{cn}', 'makes no path of a SPIFFE ID'],
    ['/a b/{cn}', 'makes no path of a SPIFFE ID'],
  ])('cannot be %j', (template, problem) => {
    expect(agentPathProblem(template)).toBe(problem)
  })
})
