// `npm run certs-dev`: writes the development certificates and says what each file is good for.
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { explain } from '../spiffe/errors.ts'
import { parseTrustDomain } from '../spiffe/id.ts'
import { type Written, writeDevelopmentCertificates } from './files.ts'

const help = `usage: npm run certs-dev -- [--out DIR] [--trust-domain TD]

Writes a root, an intermediate and one certificate of each kind that a verifier has to accept or
refuse. Keys are for development only. A set that is still good is left as it is.

  --out DIR           where to write (default: certs-dev/out)
  --trust-domain TD   the name in the SPIFFE IDs (default: dev.example)
  --help              this text
`

function linesOf(folder: string, { isNew, manifest }: Written): string {
  const place = relative(process.cwd(), folder) || '.'
  const widest = Math.max(...manifest.certificates.map(({ file }) => file.length))
  const rows = manifest.certificates.map(
    ({ file, expect, reason, use }) => `  ${file.padEnd(widest)}  ${expect}  ${use} (${reason})\n`,
  )
  const head = isNew ? 'wrote' : 'kept, still good until'
  const until = isNew ? `good until ${manifest.renewAt}` : manifest.renewAt
  return [
    `${place}: ${head} ${isNew ? `${rows.length} certificates, ` : ''}${until}\n`,
    ...rows,
    `  each with its key in NAME-key.pem (0600); manifest.json says the same for programs\n`,
  ].join('')
}

function main(): void {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: fileURLToPath(new URL('out', import.meta.url)) },
      'trust-domain': { type: 'string', default: 'dev.example' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(help)
    return
  }
  const trustDomain = parseTrustDomain(values['trust-domain'])
  const written = writeDevelopmentCertificates(values.out, { trustDomain, now: Date.now() })
  process.stdout.write(linesOf(values.out, written))
}

try {
  main()
} catch (error) {
  process.stderr.write(`certs-dev: ${explain(error)}\n`)
  process.exitCode = 2
}
