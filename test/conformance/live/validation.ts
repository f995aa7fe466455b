// What the agent believes of another trust domain's tokens: the suite has that one's keys, and tries rule by rule.
import { strict as assert } from 'node:assert'
import { createHmac, generateKeyPairSync, sign } from 'node:crypto'
import { Code } from '@connectrpc/connect'
import { SignJWT, UnsecuredJWT } from 'jose'
import { signText } from '../../support/svid-tokens.ts'
import { assertRefused, check, need, patience } from './check.ts'
import type { Foreign } from './foreign.ts'
import type { Scene } from './scene.ts'

type Make = (foreign: Foreign) => string | Promise<string>

function validate({ client }: Scene, { audience }: Foreign, svid: string) {
  return client.validateJWTSVID({ audience, svid }, { signal: patience() })
}

/** One check for tokens that are all valid, or all refused. */
function tokens(
  verdict: 'accepted' | 'refused',
  ids: string,
  says: string,
  ...all: readonly Make[]
) {
  return check(ids, `${says}: ${verdict}`, async (scene) => {
    const foreign = need(scene.foreign)
    for (const [i, make] of all.entries()) {
      const call = validate(scene, foreign, await make(foreign))
      try {
        if (verdict === 'refused') await assertRefused(call, Code.InvalidArgument)
        else await call
      } catch (error) {
        const which = all.length === 1 ? '' : `token ${i + 1}: `
        assert.fail(`${which}${error instanceof Error ? error.message : String(error)}`)
      }
    }
  })
}
const accepted = (ids: string, says: string, ...all: readonly Make[]) =>
  tokens('accepted', ids, says, ...all)
const refused = (ids: string, says: string, ...all: readonly Make[]) =>
  tokens('refused', ids, says, ...all)

const subject =
  (sub: unknown): Make =>
  ({ token }) =>
    token({ sub })
const path = (text: string) => subject(`spiffe://conformance.test${text}`)
const claims =
  (said: Readonly<Record<string, unknown>>): Make =>
  ({ token }) =>
    token(said)
const header =
  (said: Readonly<Record<string, unknown>>): Make =>
  ({ token }) =>
    token({}, said)
const now = () => Math.floor(Date.now() / 1000)
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** Signed as it is written. */
const written =
  (payload: (base: string) => string): Make =>
  ({ id, audience, signers }) => {
    const base = `"sub":"${id}","aud":["${audience}"]`
    return signText(signers.es256, '{"alg":"ES256","kid":"es256"}', `{${payload(base)}}`)
  }

const flattened: Make = async ({ token }) => {
  const [protectedHeader, payload, signature] = (await token()).split('.')
  return JSON.stringify({ protected: protectedHeader, payload, signature })
}
const unsecured: Make = ({ id, audience }) =>
  new UnsecuredJWT({ sub: id, aud: [audience], exp: now() + 300 }).encode()

/** The public key taken for a shared secret. */
const byHmac: Make = ({ id, audience, signers }) => {
  const body = encoded({ sub: id, aud: [audience], exp: now() + 300 })
  const text = `${encoded({ alg: 'HS256', kid: 'es256', typ: 'JWT' })}.${body}`
  const secret = signers.es256.publicKey.export({ format: 'pem', type: 'spki' })
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`
}
const byEd25519: Make = ({ id, audience }) => {
  const { privateKey } = generateKeyPairSync('ed25519')
  const body = encoded({ sub: id, aud: [audience], exp: now() + 300 })
  const text = `${encoded({ alg: 'EdDSA', kid: 'es256', typ: 'JWT' })}.${body}`
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`
}
const withoutKid: Make = ({ id, audience, signers }) =>
  new SignJWT({ sub: id, aud: [audience], exp: now() + 300 })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT' })
    .sign(signers.rs256.privateKey)
const cut: Make = async ({ token }) => (await token()).slice(0, -8)

/** Another ID in front of a signature that was made for the first one. */
const tampered: Make = async ({ token, id, audience }) => {
  const [head, , signature] = (await token()).split('.')
  return `${head}.${encoded({ sub: `${id}/other`, aud: [audience], exp: now() + 300 })}.${signature}`
}

const idChecks = [
  refused(
    'ID-1',
    'other schemes',
    subject('http://conformance.test/x'),
    subject('s'),
    subject('spiffe:/conformance.test'),
  ),
  refused('ID-2', 'no trust domain', subject('spiffe:///path'), subject('spiffe://')),
  refused('ID-3', 'a query or fragment', path('/p?'), path('/p?x'), path('/p#'), path('/p#f')),
  refused('ID-4', 'user information', subject('spiffe://u@conformance.test/p')),
  refused(
    'ID-5',
    'a port',
    subject('spiffe://conformance.test:80/p'),
    subject('spiffe://conformance.test:/p'),
  ),
  refused('ID-6 ID-19', 'an upper-case trust domain', subject('spiffe://Conformance.test/p')),
  refused('ID-8', 'percent-encoding in the trust domain', subject('spiffe://conformance%2etest/p')),
  refused('ID-9', 'an IPv6 literal', subject('spiffe://[::1]/p')),
  refused('ID-11', 'percent-encoding in the path', path('/a%20b')),
  refused('ID-12', 'empty segments', path('//a'), path('/a//b')),
  refused('ID-13', 'dot segments', path('/a/.'), path('/a/../b')),
  accepted('ID-13', 'dots in segments', path('/...'), path('/.a'), path('/a..b'), path('/..a')),
  refused('ID-14', 'a trailing slash', path('/a/'), path('/')),
  refused(
    'ID-15',
    'other characters',
    path('/a~'),
    path('/a+b'),
    path('/a@b'),
    path('/a:b'),
    path('/ä'),
  ),
  accepted('ID-15', 'every character', path('/azAZ09.-_')),
  accepted('ID-16 JW-6', 'an ID of 2048 bytes', path(`/${'a'.repeat(2048 - 26)}`)),
]

const formChecks = [
  accepted('WA-22 WA-24 JW-1', 'a token that keeps every rule', ({ token }) => token()),
  refused(
    'JW-1',
    'JSON serializations, encrypted and broken tokens',
    flattened,
    async ({ token }) => `${await token()}.a.b`,
    cut,
  ),
  refused('JW-2', 'jwk in the header', ({ token, signers }) =>
    token({}, { jwk: signers.es256.publicKey.export({ format: 'jwk' }) }),
  ),
  refused(
    'JW-2',
    'jku or x5u in the header',
    header({ jku: 'https://conformance.test' }),
    header({ x5u: 'https://conformance.test' }),
  ),
  refused('JW-3', 'no signature, a shared secret, EdDSA', unsecured, byHmac, byEd25519),
  accepted('JW-3 JW-18', 'RS256', ({ token, signers }) => token({}, {}, signers.rs256)),
  accepted('JW-4', 'no kid', withoutKid),
  accepted('JW-5', 'typ JOSE', header({ typ: 'JOSE' })),
  refused('JW-5', 'another typ', header({ typ: 'at+jwt' }), header({ typ: 'wit+jwt' })),
  refused('JW-6', 'no sub, or one without path', subject(undefined), path('')),
  accepted('JW-7', 'aud as a text', claims({ aud: 'conformance' })),
  refused(
    'JW-7',
    'no aud, or an empty one',
    claims({ aud: undefined }),
    claims({ aud: [] }),
    claims({ aud: '' }),
  ),
  refused(
    'JW-8',
    'another audience',
    claims({ aud: ['Conformance'] }),
    claims({ aud: 'conformance2' }),
  ),
  refused('JW-10 R7', 'no exp', claims({ exp: undefined })),
  accepted(
    'JW-10 R14',
    'exp written 1.9e9 or 19e8',
    written((base) => `${base},"exp":1.9e9`),
    written((base) => `${base},"exp":19e8`),
  ),
  refused('JW-11', 'expired two minutes ago', claims({ exp: now() - 120 })),
  refused('JW-12', 'nbf in ten minutes', claims({ nbf: now() + 600, exp: now() + 900 })),
  accepted('JW-12', 'other claims', claims({ groups: ['a'], jti: 'x', nbf: now() - 60 })),
  refused('JW-18', 'an algorithm of another kind of key', ({ token, signers }) =>
    token({}, { kid: 'es256' }, signers.rs256),
  ),
  refused('JW-15', 'signed by a key for WIT-SVIDs', ({ token, witSigner }) =>
    token({}, {}, witSigner),
  ),
  refused('WA-22', 'changed behind its signature', tampered),
  refused('WA-24', 'of a trust domain that nobody knows', subject('spiffe://unknown.test/x')),
  refused('JW-16', 'of a trust domain without keys for tokens', ({ token, withoutTokens }) =>
    token({ sub: `spiffe://${withoutTokens}/x` }),
  ),
  check(
    'WA-24 FE-6 TB-14',
    'of the agent’s own trust domain, by another one’s key: refused',
    async (scene) => {
      const foreign = need(scene.foreign)
      const sub = scene.served.jwt.svids[0]?.spiffeId
      await assertRefused(
        validate(scene, foreign, await foreign.token({ sub })),
        Code.InvalidArgument,
      )
    },
  ),
]

export const validationChecks = [...idChecks, ...formChecks]
