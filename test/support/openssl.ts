// `openssl verify` as a second opinion on a path.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { toPem } from '../../spiffe/pem.ts'

export interface Question {
  readonly chain: readonly Uint8Array[]
  readonly roots: readonly Uint8Array[]
  readonly now: number
}

export interface Verdict {
  readonly verdict: 'accept' | 'reject'
  readonly output: string
}

const pemOf = (ders: readonly Uint8Array[]) => ders.map((der) => toPem(der, 'CERTIFICATE')).join('')

/** Strict, for a TLS client and for a TLS server: both have to agree, as an SVID serves as both. */
export function opensslVerify({ chain, roots, now }: Question): Verdict {
  const folder = mkdtempSync(join(tmpdir(), 'castellan-openssl-'))
  try {
    writeFileSync(join(folder, 'leaf.pem'), pemOf(chain.slice(0, 1)))
    writeFileSync(join(folder, 'roots.pem'), pemOf(roots))
    writeFileSync(join(folder, 'rest.pem'), pemOf(chain.slice(1)))
    const rest = chain.length > 1 ? ['-untrusted', 'rest.pem'] : []
    const common = ['verify', '-x509_strict', '-no-CApath', '-no-CAstore', '-auth_level', '2']
    const time = ['-attime', String(Math.floor(now / 1000))]
    const answers = ['sslclient', 'sslserver'].map((purpose) =>
      spawnSync(
        'openssl',
        [...common, ...time, '-purpose', purpose, '-CAfile', 'roots.pem', ...rest, 'leaf.pem'],
        { cwd: folder, encoding: 'utf8' },
      ),
    )
    const output = answers.map((answer) => `${answer.stdout}${answer.stderr}`).join('')
    return { verdict: answers.every(({ status }) => status === 0) ? 'accept' : 'reject', output }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export function hasOpenssl(): boolean {
  return spawnSync('openssl', ['version']).status === 0
}
