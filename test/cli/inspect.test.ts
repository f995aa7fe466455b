// castellan inspect, in this process: what it says of good and bad things, and what it never prints.
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { commonName } from '../../certs-dev/certificate.ts'
import {
  extendedKeyUsage,
  generalName,
  keyUsage,
  subjectAltName,
} from '../../certs-dev/extensions.ts'
import { inspectCertificates } from '../../cli/inspect/certificate.ts'
import { isValid } from '../../cli/inspect/finding.ts'
import { inspectId } from '../../cli/inspect/id.ts'
import { formatBundleDocument } from '../../spiffe/bundle-document.ts'
import { keyUsages, parseCertificate } from '../../spiffe/certificate.ts'
import { bareCsr } from '../../spiffe/csr.ts'
import { element } from '../../spiffe/der-writer.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { chainToPem, toPem } from '../../spiffe/pem.ts'
import { leafIdOf, serverAuth } from '../../spiffe/svid.ts'
import { castellan } from '../support/command.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { testFolder } from '../support/folder.ts'
import { refusalOf } from '../support/refusal.ts'
import { type Said, signText, signToken, tokenSigner } from '../support/svid-tokens.ts'
import { ca, leaf, now } from '../support/vectors.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const file = (name: string, content: string) => {
  writeFileSync(join(folder.path, name), content)
  return join(folder.path, name)
}

interface Item {
  readonly kind: string
  readonly where: string
  readonly valid: boolean
  readonly what: string
  readonly rules: readonly { rule: string; level: string; verdict: string; reason: string }[]
  readonly [fact: string]: unknown
}

const at = ['--at', new Date(now).toISOString()]
const inspect = (kind: string, stdin: string | Uint8Array, ...args: string[]) =>
  castellan(['inspect', kind, ...at, ...args], stdin)

/** The values that `-o json` prints, one per line, with the exit code. */
async function json(kind: string, stdin: string, ...args: string[]) {
  const { code, stdout, stderr } = await inspect(kind, stdin, '-o', 'json', ...args)
  expect(stderr).toBe('')
  const items = stdout
    .trimEnd()
    .split('\n')
    .map((line): Item => JSON.parse(line))
  return { code, items }
}
const broken = (it: Item | undefined, level = 'must') =>
  it?.rules
    .filter((rule) => rule.verdict === 'broken' && rule.level === level)
    .map(({ rule, reason }) => `${rule}: ${reason}`)

async function expectBroken(kind: string, stdin: string, ...rules: string[]) {
  const { code, items } = await json(kind, stdin)
  expect([broken(items[0]), items[0]?.valid, code]).toEqual([rules, false, 1])
}
const pem = (...ders: readonly Uint8Array[]) => chainToPem(ders)

describe('castellan inspect id', () => {
  it('says what it is, and each rule', async () => {
    const { code, items } = await json('id', '', 'spiffe://example.org/a/b', 'spiffe://example.org')
    expect(code).toBe(0)
    expect(items).toMatchObject([
      {
        kind: 'id',
        where: 'argument 1',
        valid: true,
        what: "a workload's ID",
        id: 'spiffe://example.org/a/b',
        trustDomain: 'example.org',
        path: '/a/b',
      },
      { where: 'argument 2', what: 'the ID of a trust domain', path: '' },
    ])
    expect(items[0]?.rules).toHaveLength(16)
    const { stdout } = await inspect('id', '', 'spiffe://example.org/a')
    expect(stdout).toMatch(/^argument 1: a workload's ID, valid\n {2}id: spiffe:/)
    expect(stdout).toMatch(/\n {2}HOLDS {2}RULE .*\n {2}yes {4}ID-1 the scheme/)
  })

  it.each([
    ['ID-1', 'http://td/x'],
    ['ID-1', 'spiffe:/td'],
    ['ID-1', ''],
    ['ID-2', 'spiffe://'],
    ['ID-2', 'spiffe:///path'],
    ['ID-3', 'spiffe://td?'],
    ['ID-3', 'spiffe://td/p#f'],
    ['ID-4', 'spiffe://u:p@td'],
    ['ID-5', 'spiffe://td:80/p'],
    ['ID-5', 'spiffe://td:/p'],
    ['ID-6', 'spiffe://Td/p'],
    ['ID-7', 'spiffe://tä/p'],
    ['ID-8', 'spiffe://t%64/p'],
    ['ID-9', 'spiffe://[::1]/x'],
    ['ID-11', 'spiffe://td/%61'],
    ['ID-12', 'spiffe://td//a'],
    ['ID-13', 'spiffe://td/a/../b'],
    ['ID-13', 'spiffe://td/.'],
    ['ID-14', 'spiffe://td/'],
    ['ID-15', 'spiffe://td/a~'],
    ['ID-16', `spiffe://td/${'a'.repeat(2037)}`],
    ['ID-18', `spiffe://${'a'.repeat(256)}/a`],
  ])('%s names what is wrong with %s', async (line, text) => {
    const { code, items } = await json('id', '', text)
    expect([code, items[0]?.what]).toEqual([1, 'no SPIFFE ID'])
    expect(broken(items[0])?.map((rule) => rule.split(' ')[0])).toContain(line)
  })

  it('all rules hold exactly for what is a SPIFFE ID', () => {
    const part = fc.constantFrom(
      'td',
      'a',
      '.',
      '..',
      '/',
      '//',
      ':',
      '@',
      '?',
      '#',
      '%',
      'A',
      '-_',
    )
    const rest = fc.array(fc.oneof(part, fc.string({ maxLength: 2 })), { maxLength: 8 })
    const scheme = fc.constantFrom('spiffe://', 'spiffe://td/', 'spiffe:', '')
    fc.assert(
      fc.property(scheme, rest, (start, parts) => {
        const text = start + parts.join('')
        expect([text, isValid(inspectId(text, ''))]).toEqual([text, isSpiffeId(text)])
      }),
      { numRuns: 2000 },
    )
  })

  it('reads one per line, and answers with one line each', async () => {
    const text = 'spiffe://td/a\n\nspiffe://Td\r\n'
    const { code, items } = await json('id', text, '-')
    expect(items.map(({ where, valid }) => [where, valid])).toEqual([
      ['-:1', true],
      ['-:3', false],
    ])
    expect(code).toBe(1)
    const { stdout } = await inspect('id', '', file('ids', text))
    expect(stdout.split('\n')).toMatchObject([
      expect.stringMatching(/^WHERE +VALID +WHAT +WHY NOT$/),
      expect.stringMatching(/ids:1 +yes +a workload's ID$/),
      expect.stringMatching(/ids:3 +NO +no SPIFFE ID +ID-6 .*\(it has capital letters\)$/),
      '',
    ])
  })

  it('prints nothing that a terminal would obey', async () => {
    const { stdout } = await inspect('id', '', 'spiffe://td/\u001b[2J\u202e')
    expect(stdout).toContain('text: spiffe://td/\\u{1b}[2J\\u{202e}\n')
  })
})

const root = ca('root', { extensions: { name: subjectAltName([generalName.uri('spiffe://td')]) } })
const ruleOf = (it: Item | undefined, text: string) =>
  it?.rules.find(({ rule }) => rule.includes(text))

describe('castellan inspect cert', () => {
  it('tells a leaf from a signing certificate, and finds issuers in the same input', async () => {
    const { code, items } = await json('cert', pem(...leaf(root), root.certificate))
    expect(code).toBe(0)
    expect(items).toMatchObject([
      {
        where: '-:1',
        what: 'a leaf of spiffe://example.org/workload',
        names: ['uri:spiffe://example.org/workload'],
        issuer: 'O=castellan, CN=root',
        key: 'ec prime256v1',
        notAfter: '2031-05-17T13:00:00.000Z',
      },
      {
        where: '-:2',
        what: 'a signing certificate of spiffe://td',
        subject: 'O=castellan, CN=root',
      },
    ])
    expect(items.map((it) => ruleOf(it, 'its issuer signed it')?.verdict)).toEqual([
      'holds',
      'holds',
    ])
    const alone = await json('cert', pem(...leaf(root)))
    expect(ruleOf(alone.items[0], 'its issuer')).toMatchObject({
      verdict: 'not judged',
      reason: 'its issuer is not in the same input',
    })
  })

  it.each([
    ['X5-1', { extensions: { subjectAltName: null } }],
    ['X5-4', { id: 'spiffe://example.org' }],
    ['X5-19', { id: 'https://example.org' }],
    [
      'X5-5',
      { extensions: { subjectAltName: subjectAltName([generalName.uri('spiffe://td/a')]) } },
    ],
    ['X5-12', { extensions: { keyUsage: null } }],
    ['X5-14', { extensions: { keyUsage: keyUsage([keyUsages.cRLSign]) } }],
    ['X5-15', { extensions: { extendedKeyUsage: extendedKeyUsage([serverAuth]) } }],
    ['X5-17', { notAfter: now - 1000 }],
    ['X5-17', { notBefore: now + 1000 }],
    ['X5-17', { keys: generateKeyPairSync('rsa', { modulusLength: 1024 }) }],
  ])('%s is broken by %j', async (line, choices) => {
    const { code, items } = await json('cert', pem(...leaf(root, choices)))
    expect(code).toBe(1)
    expect(broken(items[0])?.join()).toContain(line)
  })

  it.each([
    ['X5-6 its ID', { extensions: { name: subjectAltName([generalName.uri('spiffe://td/a')]) } }],
    [
      'X5-1 one URI',
      { extensions: { name: subjectAltName([generalName.uri('a'), generalName.uri('b')]) } },
    ],
    ['X5-12', { extensions: { keyUsage: null } }],
    ['X5-13 keyCertSign', { extensions: { keyUsage: keyUsage([keyUsages.cRLSign]) } }],
    ['X5-17 its issuer', { signingKey: ca('other').privateKey }],
    [
      'X5-17 every critical',
      { extensions: { more: Buffer.from('300a0603291f2a0101ff0400', 'hex') } },
    ],
  ])('a signing certificate: %s', async (rule, choices) => {
    const { items } = await json('cert', pem(ca('root', choices).certificate))
    expect(broken(items[0])?.join()).toContain(rule)
  })

  it('advice is not what makes a certificate invalid', async () => {
    const extensions = {
      keyUsage: keyUsage([keyUsages.keyCertSign, keyUsages.digitalSignature]),
      purposes: extendedKeyUsage([serverAuth]),
    }
    const { code, items } = await json('cert', pem(ca('root', { extensions }).certificate))
    expect([code, items[0]?.what]).toEqual([0, 'a signing certificate without one SPIFFE ID'])
    expect(broken(items[0], 'should')).toEqual([
      'X5-6 it is an SVID itself: it has no SPIFFE ID',
      'X5-13 digitalSignature is clear: it is set',
      'X5-16 no extended key usage: it has one, which binds all below it',
    ])
    const bare = { extensions: { extendedKeyUsage: null } }
    const { stdout } = await inspect('cert', pem(...leaf(root, bare)))
    expect(stdout).toMatch(/advice {2}X5-15 an extended key usage is present +it has none/)
  })

  it('names of every kind are shown', async () => {
    const { uri, dns, email, ip, directory } = generalName
    const names = [uri('spiffe://td/a'), dns('a.test'), email('a@b'), ip(10, 0, 0, 1)]
    const six = ip(...Array.from({ length: 16 }, (_, i) => i))
    const list = subjectAltName(
      [...names, six, directory(commonName('x')), element(0x88, Buffer.of(1))],
      { critical: true },
    )
    const { items } = await json(
      'cert',
      pem(...leaf(root, { extensions: { subjectAltName: list } })),
    )
    expect(items[0]?.names).toEqual([
      'uri:spiffe://td/a',
      'dns:a.test',
      'email:a@b',
      'ip:10.0.0.1',
      'ip:0001:0203:0405:0607:0809:0a0b:0c0d:0e0f',
      'a directory name',
      'a name of tag 136',
    ])
  })

  it('what is no certificate, or no PEM, is not valid', async () => {
    await expectBroken(
      'cert',
      pem(Buffer.from('x')),
      'X5-17 a version 3 certificate in DER: malformed certificate: truncated at byte 1',
    )
    await expectBroken(
      'cert',
      'x',
      'RFC 7468 nothing but blocks of CERTIFICATE: -: text outside of PEM blocks',
    )
    const { code, items } = await json('cert', pem(Buffer.from('x'), root.certificate))
    expect([code, items.map(({ valid }) => valid)]).toEqual([1, [false, true]])
  })

  it('agrees with the verifier on what is a leaf, whatever is changed in it', () => {
    const [der = Buffer.of()] = leaf(root)
    fc.assert(
      fc.property(fc.nat(der.length - 1), fc.nat(255), (i, byte) => {
        const changed = Buffer.from(der)
        changed[i] = byte
        const [found] = inspectCertificates([changed], 'x', now)
        const isRead = refusalOf(() => parseCertificate(changed)) === undefined
        const isLeaf = isRead && refusalOf(() => leafIdOf(parseCertificate(changed))) === undefined
        expect(found?.findings.length).toBeGreaterThan(0)
        if (isRead && !isLeaf && found?.what.startsWith('a leaf'))
          expect(isValid(found)).toBe(false)
      }),
      { numRuns: 500 },
    )
  })
})

describe('castellan inspect bundle', () => {
  const signer = tokenSigner('ES256', 'one')
  const bundle = {
    x509: [root.certificate],
    jwt: [signer.key],
    wit: [tokenSigner('RS256', 'two').key],
    sequence: 2n ** 60n + 1n,
    refreshHint: 300,
  }
  const document = formatBundleDocument(bundle)
  const parsed = (): { keys: Record<string, unknown>[] } & Said => ({
    ...JSON.parse(document),
    spiffe_sequence: 1,
  })
  const changed = (index: number, change: Said) => {
    const copy = parsed()
    copy.keys[index] = { ...copy.keys[index], ...change }
    return JSON.stringify(copy)
  }

  it('says what is in it, sequences to the last digit', async () => {
    const { code, items } = await json('bundle', document)
    expect([code, broken(items[0]), broken(items[0], 'should')]).toEqual([0, [], []])
    expect(items[0]).toMatchObject({
      what: 'a SPIFFE bundle',
      authorities: [{ notAfter: '2031-05-18T12:00:00.000Z' }],
      jwtKeys: ['one'],
      witKeys: ['two'],
      sequence: '1152921504606846977',
      refreshHint: 300,
    })
    expect(ruleOf(items[0], 'keys[0]: X5-21 its members')?.verdict).toBe('holds')
    expect(ruleOf(items[0], 'certificate 1: X5-13 keyCertSign')?.verdict).toBe('holds')
    expect((await inspect('bundle', document)).stdout).toMatch(/^-: a SPIFFE bundle, valid\n/)
  })

  it('takes certificates in PEM', async () => {
    const { code, items } = await json('bundle', pem(root.certificate))
    expect([code, items[0]?.what]).toEqual([0, 'a bundle in PEM, certificates: 1'])
    const late = await json('bundle', pem(ca('old', { notAfter: now - 1 }).certificate))
    expect([late.code, broken(late.items[0], 'should')?.join()]).toEqual([
      0,
      expect.stringContaining('certificate 1: X5-17 it is in its lifetime: expired'),
    ])
    await expectBroken(
      'bundle',
      pem(...leaf(root), Buffer.from('x')),
      'X5-17 certificate 1 can be read, and is a CA: it is no CA certificate',
      'X5-17 certificate 2 can be read, and is a CA: malformed certificate: truncated at byte 1',
    )
    const key = toPem(Buffer.from('x'), 'PUBLIC KEY')
    const rule = 'RFC 7468 nothing but blocks of CERTIFICATE'
    await expectBroken(
      'bundle',
      key,
      `${rule}: -: a PUBLIC KEY block where only CERTIFICATE belongs`,
    )
  })

  it('TB-1 is a JSON object; its text is not repeated', async () => {
    await expectBroken('bundle', 'secret', 'TB-1 a JSON object: it is no JSON')
    await expectBroken('bundle', '[]', 'TB-1 a JSON object: it is none')
  })

  const whole = (reason: string) => `it is accepted as a whole: the bundle: ${reason}`
  it.each([
    [
      'TB-4',
      '{"spiffe_sequence":1}',
      ['TB-4 keys is a list: it is missing or none', whole('keys is missing or no list')],
    ],
    [
      'TB-2',
      '{"keys":[],"spiffe_sequence":1.5}',
      [
        'TB-2 spiffe_sequence is a whole number: it is no whole number of 64 bits',
        whole('spiffe_sequence is no whole number of 64 bits'),
      ],
    ],
    [
      'TB-10',
      '{"keys":[],"keys":[]}',
      ['TB-10 no member twice: "keys" stands twice', whole('has the member "keys" twice')],
    ],
    [
      'a key that is none',
      '{"keys":[7]}',
      ['keys[0]: TB-1 a JSON object: it is none', whole('keys[0] is no JSON object')],
    ],
  ])('%s', async (_, text, rules) => {
    await expectBroken('bundle', text, ...rules)
  })

  it('TB-2 TB-3 TB-7 what should be there is advice', async () => {
    const { code, items } = await json('bundle', '{"keys":[]}')
    expect([code, broken(items[0], 'should')]).toEqual([
      0,
      [
        'TB-2 spiffe_sequence is present: it is missing',
        'TB-3 spiffe_refresh_hint is present: it is missing',
        'TB-7 it holds a key: an empty bundle trusts nobody',
      ],
    ])
  })

  it('TB-5 TB-6 TB-8 keys that readers leave out', async () => {
    for (const [change, rule] of [
      [{ kty: 'AKP' }, 'keys[0]: TB-5 a kty that readers know: they leave it out'],
      [{ use: 'sig' }, 'keys[0]: TB-6 a use that readers know: they leave it out'],
    ] as const) {
      const { code, items } = await json('bundle', changed(0, change))
      expect([code, broken(items[0], 'should')]).toEqual([0, [rule]])
    }
    await expectBroken(
      'bundle',
      changed(0, { use: undefined }),
      'keys[0]: TB-8 kty and use are present: one of them is missing or no text',
    )
  })

  it('X5-21 keys of certificates', async () => {
    await expectBroken(
      'bundle',
      changed(0, { kid: 'x' }),
      'keys[0]: X5-21 kid is absent: it is present',
    )
    await expectBroken(
      'bundle',
      changed(0, { x5c: [] }),
      'keys[0]: X5-21 x5c is exactly one certificate: it is not',
      'keys[0]: X5-21 its members are the key of the certificate: there is no certificate',
    )
    const other = ca('other').certificate.toString('base64')
    await expectBroken(
      'bundle',
      changed(0, { x5c: [other] }),
      'keys[0]: X5-21 its members are the key of the certificate: it is another key',
    )
    const { items } = await json('bundle', changed(0, { x5c: ['A'] }))
    expect(broken(items[0])).toContain(
      'keys[0]: X5-21 a CA certificate that can be read: it.x5c is no base64',
    )
    const noKey = await json('bundle', changed(0, { x: undefined }))
    expect(broken(noKey.items[0])?.[0]).toMatch(
      /^keys\[0\]: X5-21 its members .*: it is no public key/,
    )
  })

  it('JW-14 JW-18 WT-19 keys of tokens', async () => {
    const noKid = await json('bundle', changed(1, { kid: undefined }))
    expect(broken(noKid.items[0])?.[0]).toBe(
      'keys[1]: JW-14 WT-19 kid is set: it is missing or no text',
    )
    await expectBroken(
      'bundle',
      changed(1, { kid: 'two' }),
      'WT-19 no kid stands twice: "two" does',
    )
    const jwk = (key: ReturnType<typeof tokenSigner>['publicKey']) => key.export({ format: 'jwk' })
    const weak = jwk(tokenSigner('RS256', '', 1024).publicKey)
    await expectBroken(
      'bundle',
      changed(2, { ...weak }),
      'keys[2]: JW-18 a key for one of the nine algorithms: an RSA key of 1024 bits (2048 to 8192) is not accepted',
    )
    const ed = jwk(generateKeyPairSync('ed25519').publicKey)
    await expectBroken(
      'bundle',
      changed(1, { y: undefined, ...ed }),
      'keys[1]: JW-18 a key for one of the nine algorithms: none of them is for it',
    )
    const bad = await json('bundle', changed(1, { x: 'A' }))
    expect(broken(bad.items[0])?.[0]).toMatch(
      /^keys\[1\]: JW-14 WT-19 a public key that can be read: it /,
    )
  })

  it('a private key in it is named, and not printed', async () => {
    const { stdout } = await inspect('bundle', changed(1, { d: 'c2VjcmV0' }))
    expect(stdout).toMatch(/NO +keys\[1\]: TB-8 it is a public key +it holds a private key/)
    expect(stdout).not.toContain('c2VjcmV0')
  })

  it('one document per line is many', async () => {
    const text = `${changed(0, {})}\n{"keys":[]}\n`
    const { items } = await json('bundle', text)
    expect(items.map(({ where }) => where)).toEqual(['-:1', '-:2'])
    expect((await json('bundle', '{"keys":\n[]}\n')).items).toHaveLength(1)
  })
})

describe('castellan inspect jwt and wit', () => {
  const signer = tokenSigner()
  const id = 'spiffe://example.org/workload'
  const claims = { sub: id, aud: ['a'], exp: now / 1000 + 60 }
  const jwk = { ...signer.publicKey.export({ format: 'jwk' }), alg: 'ES256' }

  it('says what a JWT-SVID says, and what only a bundle can judge', async () => {
    const token = await signToken(signer, { ...claims, iat: now / 1000 }, { typ: 'JWT' })
    const { code, items } = await json('jwt', `${token}\n`)
    expect([code, broken(items[0])]).toEqual([0, []])
    expect(items[0]).toMatchObject({
      what: `a token of ${id}`,
      header: { alg: 'ES256', kid: 'key-1', typ: 'JWT' },
      claims: { ...claims, iat: now / 1000 },
      times: { iat: '2031-05-17T12:00:00.000Z', exp: '2031-05-17T12:01:00.000Z' },
    })
    expect(items[0]?.rules.at(-1)).toMatchObject({
      verdict: 'not judged',
      reason: 'castellan svid verify --jwt',
    })
    const { stdout } = await inspect('jwt', token)
    expect(stdout).toContain('?      JW-8 JW-15')
    expect(stdout).not.toContain(token.split('.')[2])
  })

  it('names every rule that is broken, not the first one only', async () => {
    const token = signText(signer, '{"alg":"HS256","x":1,"typ":"X"}', '{"sub":"a","exp":1e400}')
    const { code, items } = await json('jwt', token)
    expect([code, items[0]?.what]).toEqual([1, 'a token of nobody'])
    expect(broken(items[0])).toEqual([
      'JW-3 alg is one of the nine: the algorithm "HS256" is not accepted',
      'JW-2 the header is alg, kid and typ: the header has the member "x"',
      'JW-5 typ, when present, is JWT or JOSE: typ is "X", not JWT or JOSE',
      expect.stringMatching(/^JW-6 .*it does not start with spiffe/),
      'JW-7 aud names a receiver: aud is missing',
      'JW-10 JW-11 exp is present and to come: exp is null, no time in seconds',
    ])
    await expectBroken(
      'jwt',
      'a.b',
      'JW-1 a compact JWS of JSON objects, no member twice: no compact JWS: three parts with a dot between them',
    )
    await expectBroken(
      'jwt',
      signText(signer, '{"alg":"ES256"}', '{'),
      'JW-1 a compact JWS of JSON objects, no member twice: the payload is no JSON',
    )
  })

  it('says what a WIT-SVID says, never the private half of its key', async () => {
    const typ = { typ: 'wit+jwt' }
    const token = await signToken(signer, { ...claims, aud: undefined, cnf: { jwk } }, typ)
    const { code, items } = await json('wit', token)
    expect([code, items[0]?.claims]).toEqual([0, { sub: id, exp: claims.exp, cnf: { jwk } }])
    expect(items[0]?.rules.filter(({ verdict }) => verdict === 'not judged')).toHaveLength(2)
    const secret = { ...jwk, d: 'c2VjcmV0' }
    const leaking = await signToken(
      signer,
      { ...claims, cnf: { jwk: secret }, keys: [secret] },
      typ,
    )
    const { stdout } = await inspect('wit', leaking)
    expect(stdout).toMatch(/NO .*cnf.jwk holds a private key \(d\)/)
    expect(stdout).toContain('(not shown)')
    expect(stdout).not.toContain('c2VjcmV0')
  })

  it('many tokens are a line each, in the order given', async () => {
    const good = await signToken(signer, claims)
    const late = await signToken(signer, { ...claims, exp: 1 })
    const { stdout, code } = await inspect('jwt', `${good}\n${late}\n`)
    expect(code).toBe(1)
    expect(stdout.split('\n').slice(1, 3)).toMatchObject([
      expect.stringMatching(/^-:1 +yes /),
      expect.stringMatching(/^-:2 +NO .*expired at 1970/),
    ])
  })
})

describe('castellan inspect csr', () => {
  const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  const csr = (der: Uint8Array) => toPem(der, 'CERTIFICATE REQUEST')

  it('says whether it proves its key, and what it asks for', async () => {
    const { code, items } = await json('csr', csr(bareCsr(keys)))
    expect([code, items[0]]).toMatchObject([
      0,
      { what: 'a request that proves its key', key: 'ec prime256v1', uris: [], dnsNames: [] },
    ])
    const names = requestedNames([0x86, 'spiffe://td/a'], [0x82, 'a.test'])
    const asking = await json('csr', csr(makeCsr(keys, { attributes: [names] })))
    expect([asking.code, asking.items[0]]).toMatchObject([
      0,
      { uris: ['spiffe://td/a'], dnsNames: ['a.test'] },
    ])
  })

  it('R18 names what is wrong with it', async () => {
    const other = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
    const rule = 'R18 well-formed, of an accepted key, and signed by that key'
    await expectBroken(
      'csr',
      csr(makeCsr(keys, { signingKey: other.privateKey })),
      `${rule}: CSR refused: its signature is not by its own key`,
    )
    const two = requestedNames([0x86, 'spiffe://td/a'], [0x86, 'spiffe://td'])
    await expectBroken(
      'csr',
      csr(makeCsr(keys, { attributes: [two] })),
      'X5-1 one URI at most: it asks for 2 of them',
      'X5-4 X5-19 a URI is a SPIFFE ID with a path: "spiffe://td" is none',
    )
    const { items } = await json('csr', csr(Buffer.from('x')))
    expect(items[0]).toMatchObject({ what: 'a request that proves nothing', key: 'not accepted' })
    await expectBroken(
      'csr',
      pem(root.certificate),
      'RFC 7468 nothing but blocks of CERTIFICATE REQUEST: -: a CERTIFICATE block where only CERTIFICATE REQUEST belongs',
    )
  })
})

describe('castellan inspect', () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
  it.each(['pkcs8', 'sec1'] as const)('refuses a private key by name: %s', async (type) => {
    const text = privateKey.export({ format: 'pem', type }).toString()
    const label = type === 'pkcs8' ? 'PRIVATE KEY' : 'EC PRIVATE KEY'
    for (const kind of ['id', 'cert', 'bundle', 'jwt', 'wit', 'csr'])
      expect(await inspect(kind, pem(root.certificate) + text)).toEqual({
        code: 2,
        stdout: '',
        stderr: `castellan: -: a ${label}, which is not for inspection\n`,
      })
  })

  it('refuses a private JWK', async () => {
    const jwk = JSON.stringify(privateKey.export({ format: 'jwk' }))
    const refused = 'castellan: -: a private JWK, which is not for inspection\n'
    for (const kind of ['id', 'jwt', 'csr'])
      expect(await inspect(kind, jwk)).toEqual({ code: 2, stdout: '', stderr: refused })
  })

  it('wrong usage is 2', async () => {
    const nothing = {
      code: 2,
      stdout: '',
      stderr: 'castellan: there is nothing to inspect in it\n',
    }
    expect(await inspect('id', '')).toEqual(nothing)
    expect(await inspect('jwt', '\n\n', '-')).toEqual(nothing)
    mkdirSync(join(folder.path, 'sub'))
    const unreadable = await inspect('cert', '', join(folder.path, 'sub'))
    expect(unreadable).toMatchObject({ code: 2, stderr: expect.stringContaining('(EISDIR)') })
    expect((await inspect('cert', '', 'none.pem')).code).toBe(2)
    expect((await castellan(['inspect', 'key', 'x'])).code).toBe(2)
    expect((await castellan(['inspect', 'id', '--at', 'x', 'spiffe://a'])).code).toBe(2)
  })

  it('several inputs are one answer', async () => {
    const one = file('one.pem', pem(root.certificate))
    const { items } = await json('cert', pem(...leaf(root)), one, '-')
    expect(items.map(({ where }) => where)).toEqual([`${one}:1`, '-:1'])
  })
})
