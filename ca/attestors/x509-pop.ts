// Proof of possession of a certificate that the node already has (SPIRE's `x509pop`): the chain leads to a
// configured CA, and the node signs a nonce of ours together with one of its own.
import {
  constants,
  createHash,
  createPublicKey,
  type KeyObject,
  randomBytes,
  verify,
  X509Certificate,
} from 'node:crypto'
import { z } from 'zod'
import type { Clock } from '../../runtime/clock.ts'
import { type Certificate, parseCertificate } from '../../spiffe/certificate.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { isSpiffeId, type SpiffeId, spiffeIdOf, type TrustDomain } from '../../spiffe/id.ts'
import { validatePath } from '../../spiffe/path.ts'
import type { SelectorRow } from '../store/model.ts'
import { type NodeAttestor, vouch } from './attestor.ts'

const limits = { payload: 64 * 1024, certificates: 8, certificate: 16 * 1024 } as const
const nonceBytes = 32

const base64 = z.base64().transform((text) => new Uint8Array(Buffer.from(text, 'base64')))
const nonce = base64.refine(({ length }) => length === nonceBytes, 'is not 32 bytes')

const evidence = z.strictObject({
  certificates: z.array(base64).min(1).max(limits.certificates),
})
const response = z.object({
  rsa_signature: z.object({ nonce, signature: base64 }).nullish(),
  ecdsa_signature: z.object({ nonce, r: base64, s: base64 }).nullish(),
})

function refuse(problem: string): never {
  throw new IdentityError('ERR_BAD_REQUEST', `x509pop: ${problem}`, {
    fields: [{ field: 'params.data.payload', problem }],
  })
}

function unconvinced(why: string): never {
  throw new IdentityError('ERR_DENIED', `x509pop: ${why}`)
}

function parse<T>(bytes: Uint8Array, schema: z.ZodType<T>): T {
  if (bytes.length > limits.payload) return refuse(`longer than ${limits.payload} bytes`)
  try {
    return schema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')))
  } catch {
    return refuse('is not the JSON of this attestor')
  }
}

function certificateOf(der: Uint8Array): Certificate {
  if (der.length > limits.certificate) return refuse('has a certificate of more than 16 KiB')
  try {
    return parseCertificate(der)
  } catch (error) {
    return refuse(`has a certificate that cannot be read: ${explain(error)}`)
  }
}

/** Key sizes in bytes of the curves that are accepted. */
const curves: Readonly<Record<string, number>> = { prime256v1: 32, secp384r1: 48, secp521r1: 66 }

type Proof = z.infer<typeof response>

interface Method {
  readonly name: 'rsa_signature' | 'ecdsa_signature'
  /** Whether the answer signs both nonces. */
  holds(key: KeyObject, challenge: Uint8Array, proof: Proof): boolean
}

const rsa: Method = {
  name: 'rsa_signature',
  holds(key, challenge, { rsa_signature: it }) {
    if (it === undefined || it === null) return false
    const padding = constants.RSA_PKCS1_PSS_PADDING
    const saltLength = constants.RSA_PSS_SALTLEN_AUTO
    const signed = Buffer.concat([challenge, it.nonce])
    return verify('sha256', signed, { key, padding, saltLength }, it.signature)
  },
}

/** Left-padded to the size of the curve; undefined when it is longer. */
function padded(number: Uint8Array, size: number): Buffer | undefined {
  if (number.length > size) return undefined
  return Buffer.concat([Buffer.alloc(size - number.length), number])
}

const ecdsa: Method = {
  name: 'ecdsa_signature',
  holds(key, challenge, { ecdsa_signature: it }) {
    const size = curves[key.asymmetricKeyDetails?.namedCurve ?? '']
    if (it === undefined || it === null || size === undefined) return false
    const [r, s] = [padded(it.r, size), padded(it.s, size)]
    if (r === undefined || s === undefined) return false
    const signed = Buffer.concat([challenge, it.nonce])
    const signature = Buffer.concat([r, s])
    return verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
  },
}

function methodFor(key: KeyObject): Method {
  const { modulusLength = 0, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa' && modulusLength >= 2048 && modulusLength <= 4096) return rsa
  if (key.asymmetricKeyType === 'ec' && curves[namedCurve] !== undefined) return ecdsa
  return unconvinced('the key is neither RSA of 2048 to 4096 bits nor P-256, P-384 or P-521')
}

const sha1 = (der: Uint8Array) => createHash('sha1').update(der).digest('hex')

function selectorsOf(leaf: Certificate, authorities: readonly Certificate[]): SelectorRow[] {
  const { subject } = new X509Certificate(leaf.der).toLegacyObject()
  const names = [subject?.CN ?? []].flat()
  const values = [
    ...names.map((name) => `subject:cn:${name}`),
    ...authorities.map(({ der }) => `ca:fingerprint:${sha1(der)}`),
    `serialnumber:${leaf.serial}`,
  ]
  return [...new Set(values)].map((value) => ({ type: 'x509pop', value }))
}

export interface X509PopOptions {
  readonly trustDomain: TrustDomain
  readonly clock: Clock
  /** the authorities of the nodes' certificates */
  readonly roots: readonly Certificate[]
  /** of the agent ID below /spire/agent, with {fingerprint}, {serial} and {cn} */
  readonly agentPath: string
}

/** by default the SHA-1 of the leaf, as SPIRE has it */
export const usualAgentPath = '/x509pop/{fingerprint}'

const placeholder = /\{(\w+)\}/g

/** Why `template` cannot name agents; undefined when it can. */
export function agentPathProblem(template: string): string | undefined {
  const names = [...template.matchAll(placeholder)].map(([, name]) => name)
  const unknown = names.find((name) => !['fingerprint', 'serial', 'cn'].includes(name ?? ''))
  if (unknown !== undefined) return `{${unknown}} is none of {fingerprint}, {serial} and {cn}`
  if (names.length === 0) return 'has none of {fingerprint}, {serial} and {cn}: all agents were one'
  const sample = template.replace(placeholder, 'x')
  const isPath = sample.startsWith('/') && isSpiffeId(`spiffe://td${sample}`)
  return isPath ? undefined : 'makes no path of a SPIFFE ID'
}

/** Each value is one segment: a name with a slash in it would choose another agent's place. */
function agentIdOf(leaf: Certificate, { trustDomain, agentPath }: X509PopOptions): SpiffeId {
  const { subject } = new X509Certificate(leaf.der).toLegacyObject()
  const values: Readonly<Record<string, unknown>> = {
    fingerprint: sha1(leaf.der),
    serial: leaf.serial,
    cn: subject?.CN,
  }
  const path = agentPath.replace(placeholder, (_, name: string) => {
    const value = values[name]
    if (typeof value === 'string' && /^[\w.-]{1,255}$/.test(value) && !/^\.{1,2}$/.test(value))
      return value
    return unconvinced(`its certificate has no ${name} that can be part of an agent ID`)
  })
  return spiffeIdOf(trustDomain, `/spire/agent${path}`)
}

/** Such an agent attests again to renew; whose certificate names the same agent is the same agent. */
export function x509PopAttestor(options: X509PopOptions): NodeAttestor {
  const { clock, roots } = options
  return {
    async attest(payload, _csr, challenge) {
      const [leaf, ...intermediates] = parse(payload, evidence).certificates.map(certificateOf)
      if (leaf === undefined) return refuse('has no certificate')
      const path = validatePath(leaf, intermediates, roots, { now: clock.now() })
      if (!path.ok)
        return unconvinced(`its certificate does not lead to a known CA: ${path.reason}`)
      const key = createPublicKey({
        key: Buffer.from(leaf.publicKey),
        format: 'der',
        type: 'spki',
      })
      const method = methodFor(key)
      const own = randomBytes(nonceBytes)
      const question = { rsa_signature: null, ecdsa_signature: null }
      const asked = { ...question, [method.name]: { nonce: own.toString('base64') } }
      const proof = parse(await challenge(Buffer.from(JSON.stringify(asked))), response)
      if (!method.holds(key, own, proof)) {
        return unconvinced('the answer is not signed by the key of the certificate')
      }
      return vouch({
        kind: 'node',
        agentId: agentIdOf(leaf, options),
        attestationType: 'x509pop',
        selectors: selectorsOf(leaf, path.path.slice(1)),
        canReattest: true,
      })
    },
  }
}
