// How material is written into files: PEM, PKCS#12, tokens and JWK Sets.
import { readFileSync, statSync } from 'node:fs'
import { errnoOf } from '../../runtime/errno.ts'
import { bundleToPem, type X509Bundle } from '../../spiffe/bundle.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { TrustDomain } from '../../spiffe/id.ts'
import { chainToPem, toPem } from '../../spiffe/pem.ts'
import type { FileSet, FileSpec } from './config.ts'
import { audienceKey, type Material } from './material.ts'
import type { Pkcs12 } from './pkcs12.ts'
import type { WantedFile } from './versions.ts'

type Content = Pick<WantedFile, 'content' | 'isAsGood'>

const keyPem = ({ key }: Material) => toPem(key, 'PRIVATE KEY')

function bundleOf(
  { bundles: [own, ...federated] }: Material,
  trustDomain: TrustDomain | undefined,
): X509Bundle | undefined {
  if (trustDomain === undefined) return own
  return [own, ...federated].find((bundle) => bundle.trustDomain === trustDomain)
}

/** Throws ERR_CONFIG. Passwords are ASCII: of others Java and OpenSSL think differently. */
function passwordIn(file: string): string {
  const refuse = (why: string): never => {
    throw new IdentityError('ERR_CONFIG', `the password file ${file} ${why}`)
  }
  let text: string
  try {
    if ((statSync(file).mode & 0o007) !== 0) refuse('can be read by everybody; chmod o= it')
    text = readFileSync(file, 'utf8').replace(/\r?\n$/, '')
  } catch (error) {
    if (error instanceof IdentityError) throw error
    return refuse(`cannot be read (${errnoOf(error)})`)
  }
  return /^[ -~]{1,1024}$/.test(text) ? text : refuse('is not one line of printable ASCII')
}

function ofText(text: string): Content {
  const bytes = Buffer.from(text)
  return { content: () => bytes, isAsGood: (existing) => existing.equals(bytes) }
}

const ofPkcs12 = ({ make, isMadeOfTheSame }: Pkcs12): Content => ({
  content: make,
  isAsGood: isMadeOfTheSame,
})

type Spec<Holds extends FileSpec['holds']> = Extract<FileSpec, { readonly holds: Holds }>

// node-forge is loaded where somebody wants such a file, and nowhere else
const pkcs12 = () => import('./pkcs12.ts')

async function ofKeyStore({ passwordFile, alias }: Spec<'pkcs12'>, { chain, key }: Material) {
  const password = passwordIn(passwordFile)
  return ofPkcs12((await pkcs12()).keyStore({ chain, key, alias }, password))
}

async function ofTrustStore({ passwordFile, trustDomain }: Spec<'pkcs12-bundle'>, it: Material) {
  const bundle = bundleOf(it, trustDomain)
  if (bundle === undefined) return undefined
  const password = passwordIn(passwordFile)
  const roots = bundle.authorities.map(({ der }, i) => ({
    der,
    alias: `${bundle.trustDomain} ${i}`,
  }))
  return ofPkcs12((await pkcs12()).trustStore(roots, password))
}

/** Nothing when there is nothing to be written. */
const orNothing = (text: string | undefined) =>
  text === undefined || text === '' ? undefined : ofText(text)

function contentOf(
  file: FileSpec,
  it: Material,
): Promise<Content | undefined> | Content | undefined {
  switch (file.holds) {
    case 'chain':
      return ofText(chainToPem(it.chain))
    case 'key':
      return ofText(keyPem(it))
    case 'key+chain':
      return ofText(keyPem(it) + chainToPem(it.chain))
    case 'chain+bundle':
      return ofText(chainToPem(it.chain) + bundleToPem(it.bundles[0]))
    case 'bundle': {
      const bundle = bundleOf(it, file.trustDomain)
      return orNothing(bundle && bundleToPem(bundle))
    }
    case 'federated-bundles':
      return orNothing(it.bundles.slice(1).map(bundleToPem).join(''))
    case 'pkcs12':
      return ofKeyStore(file, it)
    case 'pkcs12-bundle':
      return ofTrustStore(file, it)
    case 'jwt':
      return orNothing(it.tokens.get(audienceKey(file.audience)))
    case 'jwt-bundle':
      return orNothing(it.jwks.get(file.trustDomain ?? it.bundles[0].trustDomain))
  }
}

/**
 * The files of a set. One whose content is not there is left out and named: another trust domain that goes
 * away does not keep this one from renewing. Throws ERR_CONFIG for a password file that is of no use.
 */
export async function filesOf(
  set: FileSet,
  material: Material,
): Promise<{ readonly files: readonly WantedFile[]; readonly missing: readonly string[] }> {
  const files: WantedFile[] = []
  const missing: string[] = []
  for (const spec of set.files) {
    const content = await contentOf(spec, material)
    if (content === undefined) missing.push(spec.name)
    else files.push({ name: spec.name, mode: spec.mode ?? set.mode ?? 0o600, ...content })
  }
  return { files, missing }
}
