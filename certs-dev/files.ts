// The development certificates as files: chains, keys (0600), and a manifest that says what to expect.
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { IdentityError } from '../spiffe/errors.ts'
import { chainToPem, toPem } from '../spiffe/pem.ts'
import {
  type DevCertificate,
  type DevelopmentOptions,
  leafLifetime,
  makeDevelopmentCertificates,
} from './development.ts'

const manifestForm = z.strictObject({
  trustDomain: z.string(),
  /** trust domain to file, as `castellan svid verify --bundle TD=FILE` takes them */
  bundles: z.record(z.string(), z.string()),
  /** ISO 8601; from then on the set is made anew */
  renewAt: z.iso.datetime(),
  certificates: z.array(
    z.strictObject({
      name: z.string(),
      file: z.string(),
      key: z.string(),
      expect: z.enum(['accept', 'reject']),
      reason: z.string(),
      use: z.string(),
    }),
  ),
})

export type Manifest = z.infer<typeof manifestForm>

export interface Written {
  /** false when a set that is still good was found */
  readonly isNew: boolean
  readonly manifest: Manifest
}

/** Only a whole file ever stands under its name, and a key is never readable by others. */
function put(folder: string, name: string, content: string, mode: number): void {
  const temporary = join(folder, `.${name}.${process.pid}`)
  writeFileSync(temporary, content, { mode })
  chmodSync(temporary, mode)
  renameSync(temporary, join(folder, name))
}

function readManifest(folder: string): Manifest | undefined {
  const file = join(folder, 'manifest.json')
  if (!existsSync(file)) return undefined
  try {
    // a manifest of an older shape counts as none: the set is made anew
    return manifestForm.safeParse(JSON.parse(readFileSync(file, 'utf8'))).data
  } catch (cause) {
    throw new IdentityError('ERR_CONFIG', `${file} is unreadable; delete it`, { cause })
  }
}

function isGood(manifest: Manifest, folder: string, options: DevelopmentOptions): boolean {
  return (
    manifest.trustDomain === options.trustDomain &&
    Date.parse(manifest.renewAt) > options.now &&
    manifest.certificates.every(({ file, key }) =>
      [file, key].every((name) => existsSync(join(folder, name))),
    )
  )
}

const entryOf = ({ name, expect, reason, use }: DevCertificate) => ({
  name,
  file: `${name}.pem`,
  key: `${name}-key.pem`,
  expect,
  reason,
  use,
})

/** Writes the set into `folder`, unless a good one of the same trust domain is there already. */
export function writeDevelopmentCertificates(folder: string, options: DevelopmentOptions): Written {
  const found = readManifest(folder)
  if (found !== undefined && isGood(found, folder, options))
    return { isNew: false, manifest: found }
  const certificates = makeDevelopmentCertificates(options)
  const [root] = certificates
  const manifest: Manifest = {
    trustDomain: options.trustDomain,
    bundles: { [options.trustDomain]: `${root.name}.pem` },
    renewAt: new Date(options.now + leafLifetime / 2).toISOString(),
    certificates: certificates.map(entryOf),
  }
  mkdirSync(folder, { recursive: true })
  for (const { name, chain, privateKey } of certificates) {
    const key = privateKey.export({ type: 'pkcs8', format: 'der' })
    put(folder, `${name}-key.pem`, toPem(key, 'PRIVATE KEY'), 0o600)
    put(folder, `${name}.pem`, chainToPem(chain), 0o644)
  }
  // last, so that a manifest never speaks of files that are not there yet
  put(folder, 'manifest.json', `${JSON.stringify(manifest, null, 2)}\n`, 0o644)
  return { isNew: true, manifest }
}
