// castellan svid verify: each certificate of the corpus through the program that scripts call, the rest in
// this process.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { formatBundleDocument } from '../../spiffe/bundle-document.ts'
import { chainToPem, toPem } from '../../spiffe/pem.ts'
import { castellan, startCastellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'
import { signToken, tokenSigner } from '../support/svid-tokens.ts'
import { ca, leaf, now } from '../support/vectors.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const file = (name: string, content: string) => {
  writeFileSync(join(folder.path, name), content)
  return join(folder.path, name)
}

const corpus = join(import.meta.dirname, '../../../shared/corpus/certs')
const manifestOf = (text: string) =>
  z
    .object({
      certificates: z.array(
        z.object({
          file: z.string(),
          bundles: z.record(z.string(), z.string()),
          expect: z.enum(['accept', 'reject']),
        }),
      ),
    })
    .parse(JSON.parse(text))

describe('the corpus of certificates beside the repository', () => {
  it('is judged right by the command, every line of it', async ({ skip }) => {
    const reason = `no folder ../shared/corpus/certs beside the repository`
    if (!existsSync(corpus)) {
      if (process.env.CI === 'true') throw new Error(reason)
      return skip(reason)
    }
    const { certificates } = manifestOf(readFileSync(join(corpus, 'manifest.json'), 'utf8'))
    const wrong: string[] = []
    for (const { file: chain, bundles, expect: wanted } of certificates) {
      const given = Object.entries(bundles).flatMap(([name, it]) => ['--bundle', `${name}=${it}`])
      const { code, stdout } = await startCastellan(['svid', 'verify', ...given, chain], {
        cwd: corpus,
      })
      const isRight =
        wanted === 'accept'
          ? code === 0 && stdout.startsWith('accepted: spiffe://')
          : code === 1 && /^refused: .{5,}/.test(stdout)
      if (!isRight) wrong.push(`${chain}: ${code} ${stdout}`)
    }
    expect(wrong).toEqual([])
    expect(certificates.length).toBeGreaterThanOrEqual(16)
  })
}, 300_000)

const id = 'spiffe://example.org/workload'
const at = ['--at', new Date(now).toISOString()]
const root = ca('root')
const foreign = ca('foreign')
const pem = (...ders: readonly Uint8Array[]) => chainToPem(ders)
const rootFile = file('root.pem', pem(root.certificate))
const ours = ['--bundle', `example.org=${rootFile}`]
const chain = pem(...leaf(root))
const verify = (args: readonly string[], stdin?: string) =>
  castellan(['svid', 'verify', ...args], stdin)
const refused = (reason: string) => ({ code: 1, stdout: `refused: ${reason}\n`, stderr: '' })
const misused = (message: string) => ({ code: 2, stdout: '', stderr: `castellan: ${message}\n` })

describe('castellan svid verify of a chain', () => {
  it('accepts it, from a file or from standard input', async () => {
    const accepted = {
      code: 0,
      stdout: `accepted: ${id}, until 2031-05-17T13:00:00.000Z\n`,
      stderr: '',
    }
    expect(await verify([...ours, ...at, file('chain.pem', chain)])).toEqual(accepted)
    expect(await verify([...ours, ...at, '-'], chain)).toEqual(accepted)
    const { stdout } = await verify([...ours, ...at, '-o', 'json', '-'], chain)
    expect(JSON.parse(stdout)).toMatchObject({
      accepted: true,
      kind: 'x509',
      spiffeId: id,
      expiresAt: '2031-05-17T13:00:00.000Z',
      path: [{ notAfter: '2031-05-17T13:00:00.000Z' }, { notAfter: '2031-05-18T12:00:00.000Z' }],
    })
  })

  it('refuses it with the reason, and the answer is no', async () => {
    const late = ['--at', '2031-05-17T15:00:00+01:00']
    expect(await verify([...ours, ...late, '-'], chain)).toEqual(
      refused(`${id}: expired at 2031-05-17T13:00:00.000Z`),
    )
    const { code, stdout } = await verify([...ours, '-o', 'json', '-'], chain)
    expect([code, JSON.parse(stdout)]).toEqual([
      1,
      { accepted: false, reason: `${id}: not valid before 2031-05-17T11:00:00.000Z` },
    ])
    const theirs = ['--bundle', `example.com=${rootFile}`]
    expect(await verify([...theirs, ...at, '-'], chain)).toEqual(
      refused('trust domain example.org is not trusted here'),
    )
  })

  it('X5-20 takes the bundle of the leaf’s own trust domain, and a SPIFFE bundle as well', async () => {
    const none = { jwt: [], wit: [], sequence: 1n, refreshHint: 60 }
    const document = formatBundleDocument({ ...none, x509: [root.certificate] })
    const both = [
      ...['--bundle', `example.com=${rootFile}`],
      ...['--bundle', `example.org=${file('foreign.pem', pem(foreign.certificate))}`],
    ]
    expect(await verify([...both, ...at, '-'], chain)).toEqual(
      refused(`${id}: no path to a root of the bundle`),
    )
    const json = ['--bundle', `spiffe://example.org=${file('bundle.json', document)}`]
    expect((await verify([...json, ...at, '-'], chain)).code).toBe(0)
    expect(
      (await verify(['--bundle', 'example.org=-', ...at, file('c.pem', chain)], document)).code,
    ).toBe(0)
    const empty = file('empty.json', formatBundleDocument({ ...none, x509: [] }))
    expect(await verify(['--bundle', `example.org=${empty}`, ...at, '-'], chain)).toEqual(
      refused(`${id}: no path to a root of the bundle`),
    )
  })

  it('wrong usage and unreadable input are 2', async () => {
    expect(await verify(['-'])).toEqual(
      misused('--bundle: is missing: write --bundle example.org=FILE'),
    )
    expect(await verify(ours)).toEqual(
      misused('what is to be verified? Give CHAIN.pem, or --jwt FILE'),
    )
    expect(await verify(['--bundle', rootFile, '-'])).toEqual(
      misused(`--bundle ${JSON.stringify(rootFile)}: write TRUST-DOMAIN=FILE`),
    )
    expect(await verify([...ours, ...ours, '-'])).toEqual(
      misused('--bundle: example.org stands twice'),
    )
    expect(await verify([...ours, '--at', 'yesterday', '-'])).toEqual(
      misused('--at: is not a time such as 2031-05-17T12:00:00Z'),
    )
    expect(await verify([...ours, '--audience', 'a', '-'])).toEqual(
      misused('--audience belongs to --jwt'),
    )
    expect(await verify([...ours, join(folder.path, 'none')])).toEqual(
      misused(`cannot read ${join(folder.path, 'none')} (ENOENT)`),
    )
    expect(await verify(['--bundle', 'example.org=-', '-'], pem(root.certificate))).toEqual(
      misused('standard input (-) can be read only once'),
    )
    expect(await verify([...ours, '-'], 'x')).toEqual(misused('-: text outside of PEM blocks'))
    const key = toPem(Buffer.from('secret'), 'PRIVATE KEY')
    expect(await verify([...ours, '-'], chain + key)).toEqual(
      misused('-: a PRIVATE KEY block where only CERTIFICATE belongs'),
    )
    expect((await verify(['--bundle', 'Example=x', '-'])).code).toBe(2)
    expect(
      (await verify(['--bundle', `example.org=${file('chain.pem', chain)}`, '-'], chain)).code,
    ).toBe(2)
  })
})

describe('castellan svid verify of a JWT-SVID', () => {
  const signer = tokenSigner()
  const none = { x509: [], wit: [], sequence: undefined, refreshHint: undefined }
  const bundle = file('jwt.json', formatBundleDocument({ ...none, jwt: [signer.key] }))
  const given = ['--bundle', `example.org=${bundle}`, ...at, '--jwt', '-']
  const claims = { sub: id, aud: ['reports'], exp: now / 1000 + 60 }

  it('WA-22 accepts and refuses it', async () => {
    const token = await signToken(signer, claims)
    const own = ['--audience', 'reports']
    expect(await verify([...given, ...own], `${token}\n`)).toEqual({
      code: 0,
      stdout: `accepted: ${id}, until 2031-05-17T12:01:00.000Z\n`,
      stderr: '',
    })
    const { stdout } = await verify([...given, ...own, '-o', 'json'], token)
    expect(JSON.parse(stdout)).toEqual({
      accepted: true,
      kind: 'jwt',
      spiffeId: id,
      expiresAt: '2031-05-17T12:01:00.000Z',
      audience: ['reports'],
      claims,
    })
    expect(await verify([...given, '--audience', 'other'], token)).toEqual(
      refused('aud does not name "other"'),
    )
    const pemOnly = [...ours, ...at, '--jwt', '-', ...own]
    expect(await verify(pemOnly, token)).toEqual(
      refused('the bundle of example.org has no keys of JWT-SVIDs'),
    )
    const elsewhere = ['--bundle', `example.com=${bundle}`, '--jwt', '-', ...own]
    expect(await verify([...elsewhere, ...at], token)).toEqual(
      refused('trust domain example.org is not trusted here'),
    )
  })

  it('asks for the audience, and for one thing at a time', async () => {
    expect(await verify(given)).toEqual(misused('--audience is missing: who is the token for?'))
    expect(await verify([...given, '--audience', 'a', 'chain.pem'])).toEqual(
      misused('give either CHAIN.pem or --jwt FILE'),
    )
  })
})

describe('what a command reads', () => {
  it('is bounded, and text', async () => {
    expect(await verify([...ours, '-'], 'x'.repeat(16 * 1024 * 1024 + 1))).toEqual(
      misused('cannot read - (it has more than 16777216 bytes)'),
    )
    const latin = await castellan(['svid', 'verify', ...ours, '-'], Buffer.of(0xff))
    expect(latin).toEqual(misused('cannot read - (ERR_ENCODING_INVALID_ENCODED_DATA)'))
  })
})
