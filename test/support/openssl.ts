// `openssl verify` as a second opinion on paths.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chainToPem } from '../../spiffe/pem.ts'

export interface Question {
  readonly chain: readonly Uint8Array[]
  readonly roots: readonly Uint8Array[]
}

export interface Verdict {
  readonly verdict: 'accept' | 'reject'
  readonly output: string
}

// Strict, for a TLS client and for a TLS server: both have to agree, as an SVID serves as both.
// One shell asks for all questions: starting a process from vitest costs more than the answer.
const script = `for folder in */; do
  for purpose in sslclient sslserver; do
    openssl verify -x509_strict -no-CApath -no-CAstore -auth_level 2 -attime "$1" -purpose $purpose \\
      -CAfile $folder/roots.pem -untrusted $folder/rest.pem $folder/leaf.pem || break
  done > $folder/output 2>&1
done`

/** The verdict on each question, at the time `now` (milliseconds since the epoch). */
export function opensslVerify(questions: readonly Question[], now: number): Verdict[] {
  const place = mkdtempSync(join(tmpdir(), 'castellan-openssl-'))
  try {
    const folders = questions.map(({ chain, roots }, i) => {
      const folder = join(place, String(i))
      mkdirSync(folder)
      writeFileSync(join(folder, 'leaf.pem'), chainToPem(chain.slice(0, 1)))
      writeFileSync(join(folder, 'roots.pem'), chainToPem(roots))
      // the leaf once more, as OpenSSL refuses an empty file; it is no CA and adds nothing
      writeFileSync(join(folder, 'rest.pem'), chainToPem(chain))
      return folder
    })
    const shell = spawnSync('sh', ['-c', script, 'sh', String(Math.floor(now / 1000))], {
      cwd: place,
    })
    if (shell.error !== undefined) throw shell.error
    return folders.map((folder) => {
      const output = readFileSync(join(folder, 'output'), 'utf8')
      const isAccepted = output.match(/leaf\.pem: OK/g)?.length === 2
      return { verdict: isAccepted ? 'accept' : 'reject', output }
    })
  } finally {
    rmSync(place, { recursive: true })
  }
}

export function hasOpenssl(): boolean {
  return spawnSync('openssl', ['version']).status === 0
}
