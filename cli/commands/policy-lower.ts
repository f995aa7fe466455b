// castellan policy lower: what of the policies a workload's Envoy can enforce by itself.
import { z } from 'zod'
import { filterJson, rbacFilters } from '../../agent/proxies/envoy/rbac.ts'
import { type Destination, destinationOf } from '../../policies/attributes/request.ts'
import { compile } from '../../policies/compile.ts'
import { readPolicies } from '../../policies/language/read.ts'
import { lower } from '../../policies/lower/lower.ts'
import { systemClock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { isSpiffeId } from '../../spiffe/id.ts'
import { answer, type ExitCode } from '../context.ts'
import { readMesh, readPolicyTexts } from '../policy/files.ts'
import { givenPolicies } from '../policy/given.ts'
import { loweredText } from '../policy/lowered-view.ts'
import { flag, optionsOf, type Register, text, whole } from '../register.ts'

const options = givenPolicies.extend({
  destination: text,
  labels: z.array(z.string()),
  port: whole.refine((port) => port === undefined || port <= 65_535, 'is no port'),
  tcp: flag,
  plaintext: flag,
})

/** Throws ERR_BAD_REQUEST naming the label. */
function labelOf(written: string): readonly [name: string, value: string] {
  const [, name = '', value = ''] = /^([^=]+)=(.*)$/s.exec(written) ?? []
  if (name !== '') return [name, value]
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `--labels: write NAME=VALUE, not ${JSON.stringify(written)}`,
  )
}

interface Named {
  readonly labels: Readonly<Record<string, string>>
  readonly port: number | undefined
}

/** A SPIFFE ID says its namespace; a namespace alone is of whatever workload. Throws ERR_BAD_REQUEST. */
function destinationFrom(name: string, { labels, port }: Named): Destination {
  if (isSpiffeId(name))
    return destinationOf(name, port === undefined ? { labels } : { labels, port })
  if (/^[a-z0-9.-]+$/.test(name))
    return { id: undefined, namespace: name, labels, port, ip: undefined }
  const problem = `${JSON.stringify(name)} is neither a SPIFFE ID nor a namespace`
  throw new IdentityError('ERR_BAD_REQUEST', `--destination: ${problem}`)
}

export function policyLowerCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'lower',
    about:
      "Shows what of the policies Envoy's own RBAC filters can enforce for a workload, and what only the agent can decide.",
    example:
      'castellan policy lower --policies policies/ --destination spiffe://example.org/ns/shop/sa/web',
    options: [
      ['--policies <path...>', 'files, or folders with *.yaml and *.yml', []],
      ['--profile <profile>', 'strict or istio', 'strict'],
      ['--mesh <file>', 'trust domain, aliases, backend and the like'],
      ['--destination <id>', 'the workload: its SPIFFE ID, or its namespace'],
      ['--labels <name=value>', 'of the workload; may be given several times', []],
      ['--port <n>', "the workload's, where the listener's is another one"],
      ['--tcp', 'for TCP connections instead of HTTP requests'],
      ['--plaintext', 'for a listener without TLS, where nobody has an identity'],
    ],
    async run(context, given): Promise<ExitCode> {
      const it = optionsOf(given, options)
      const labels = Object.fromEntries(it.labels.map(labelOf))
      const destination = destinationFrom(it.destination, { labels, port: it.port })
      const documents = readPolicies(readPolicyTexts(it.policies))
      const mesh = readMesh(it.mesh, it.profile)
      const set = compile(documents, { mesh, now: systemClock.now() })
      const lowered = lower(set, destination, {
        protocol: it.tcp === true ? 'tcp' : 'http',
        connection: it.plaintext === true ? 'plaintext' : 'mutual-tls',
      })
      const { protocol, needsAuthz, changesAt, refused, differences, demands } = lowered
      const filters = rbacFilters(lowered).map(filterJson)
      const shown = { protocol, needsAuthz, changesAt, refused, differences, demands, filters }
      answer(context, shown, () => loweredText(lowered))
      return 0
    },
  })
}
