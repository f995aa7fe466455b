// castellan svid verify: what a validator says of a chain or a token, offline (design.md §12).
import { z } from 'zod'
import { bundleOf } from '../../spiffe/bundle.ts'
import { type BundleDocument, parseBundleDocument } from '../../spiffe/bundle-document.ts'
import { type Certificate, fingerprintOf } from '../../spiffe/certificate.ts'
import { explain, hasCode, IdentityError } from '../../spiffe/errors.ts'
import { parseTrustDomain, type TrustDomain } from '../../spiffe/id.ts'
import { verifyJwtSvid } from '../../spiffe/jwt-svid.ts'
import { parsePem } from '../../spiffe/pem.ts'
import { verifySvid } from '../../spiffe/svid.ts'
import { answer, type Context, type ExitCode } from '../context.ts'
import { createInput, type ReadInput } from '../input.ts'
import { moment, optionalText, optionsOf, type Register } from '../register.ts'

const options = z.object({
  bundle: z.array(z.string()).min(1, 'is missing: write --bundle example.org=FILE'),
  at: moment,
  jwt: optionalText,
  audience: optionalText,
})

type Bundles = ReadonlyMap<TrustDomain, BundleDocument>

function misused(message: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', message)
}

function documentOf(content: string, file: string): BundleDocument {
  if (content.trimStart().startsWith('{')) return parseBundleDocument(content, file)
  const x509 = parsePem(content, 'CERTIFICATE', file)
  return { x509, jwt: [], wit: [], sequence: undefined, refreshHint: undefined }
}

async function readBundles(given: readonly string[], read: ReadInput): Promise<Bundles> {
  const bundles = new Map<TrustDomain, BundleDocument>()
  for (const it of given) {
    const at = it.indexOf('=')
    if (at < 1) misused(`--bundle ${JSON.stringify(it)}: write TRUST-DOMAIN=FILE`)
    const trustDomain = parseTrustDomain(it.slice(0, at))
    if (bundles.has(trustDomain)) misused(`--bundle: ${trustDomain} stands twice`)
    const file = it.slice(at + 1)
    bundles.set(trustDomain, documentOf(await read(file), file))
  }
  return bundles
}

const time = (at: number) => new Date(at).toISOString()
const plain = (it: Certificate) => ({
  serial: it.serial,
  fingerprint: fingerprintOf(it.der),
  notBefore: time(it.notBefore),
  notAfter: time(it.notAfter),
})

function verifiedChain(chain: readonly Uint8Array[], bundles: Bundles, now: number) {
  const x509 = new Map(
    [...bundles].map(([name, document]) => [name, bundleOf(name, document.x509)]),
  )
  const { id, leaf, path } = verifySvid(chain, (name) => x509.get(name), { now })
  return {
    accepted: true,
    kind: 'x509',
    spiffeId: id,
    expiresAt: time(leaf.notAfter),
    path: path.map(plain),
  }
}

async function verifiedToken(token: string, audience: string, bundles: Bundles, now: number) {
  const keys = (name: TrustDomain) => bundles.get(name)?.jwt
  const svid = await verifyJwtSvid(token, { keys, audience, now })
  return {
    accepted: true,
    kind: 'jwt',
    spiffeId: svid.id,
    expiresAt: time(svid.expiresAt),
    audience: svid.audience,
    claims: svid.claims,
  }
}

/** Prints what `verify` says: accepted, or refused with the reason. */
async function judge(context: Context, verify: () => Promise<Verified> | Verified) {
  try {
    const verified = await verify()
    const { spiffeId, expiresAt } = verified
    answer(context, verified, () => `accepted: ${spiffeId}, until ${expiresAt}`)
    return 0
  } catch (error) {
    if (!hasCode(error, 'ERR_UNTRUSTED')) throw error
    const reason = explain(error)
    answer(context, { accepted: false, reason }, () => `refused: ${reason}`)
    return 1
  }
}

type Verified = { readonly spiffeId: string; readonly expiresAt: string }

async function verify(
  context: Context,
  chain: string | undefined,
  given: z.infer<typeof options>,
): Promise<ExitCode> {
  const { jwt, audience, at: now = Date.now() } = given
  const read = createInput(context)
  if (jwt === undefined) {
    if (chain === undefined) return misused('what is to be verified? Give CHAIN.pem, or --jwt FILE')
    if (audience !== undefined) misused('--audience belongs to --jwt')
    const bundles = await readBundles(given.bundle, read)
    const certificates = parsePem(await read(chain), 'CERTIFICATE', chain)
    return judge(context, () => verifiedChain(certificates, bundles, now))
  }
  if (chain !== undefined) misused('give either CHAIN.pem or --jwt FILE')
  if (audience === undefined) return misused('--audience is missing: who is the token for?')
  const bundles = await readBundles(given.bundle, read)
  const token = (await read(jwt)).trim()
  return judge(context, () => verifiedToken(token, audience, bundles, now))
}

export function svidVerifyCommand(register: Register): void {
  register({
    noun: 'svid',
    verb: 'verify',
    about:
      'Says whether a chain of certificates or a JWT-SVID proves an identity, and why not; needs no authority. 0 accepted, 1 refused.',
    positional: ['[chain]'],
    options: [
      [
        '--bundle <td=file>',
        'trust domain and its bundle, PEM or SPIFFE JSON; may stand several times',
        [],
      ],
      ['--at <time>', 'as if it were that time, such as 2031-05-17T12:00:00Z; now when left out'],
      ['--jwt <file>', 'a JWT-SVID instead of a chain; - is standard input, here and elsewhere'],
      ['--audience <name>', 'whom the JWT-SVID has to name'],
    ],
    run: (context, given) => verify(context, given.args[0], optionsOf(given, options)),
  })
}
