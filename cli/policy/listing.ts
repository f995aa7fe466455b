// The documents of a policy set, each in one line for people.
import { type Placed, type PolicyText, readPolicies } from '../../policies/language/read.ts'
import { policiesIn } from '../../policies/language/set-files.ts'

export interface Listed {
  readonly kind: string
  readonly namespace: string
  readonly name: string
  /** of authorization policies; empty for others */
  readonly action: string
  /** never enforced */
  readonly shadow: boolean
  readonly rules: number
  readonly file: string
  readonly line: number
}

/** In the order of files and lines. `files` were read before they came into force. */
export function listDocuments(files: readonly PolicyText[]): Listed[] {
  const read = readPolicies(policiesIn(files))
  const of = (
    kind: string,
    { namespace, name, file, line }: Placed,
    rest: Pick<Listed, 'rules'> & Partial<Listed>,
  ): Listed => ({ kind, namespace, name, action: '', shadow: false, ...rest, file, line })
  const all = [
    ...read.policies.map((it) => {
      const { action, isShadow: shadow, rules } = it
      return of('AuthorizationPolicy', it, { action, shadow, rules: rules.length })
    }),
    ...read.authentications.map((it) =>
      of('RequestAuthentication', it, { rules: it.rules.length }),
    ),
    ...read.peers.map((it) => of('PeerAuthentication', it, { rules: 0 })),
    ...read.limits.map((it) => of('RateLimit', it, { rules: it.spec.limits.length })),
  ]
  const order = new Map(files.map(({ name }, i) => [name, i]))
  const at = ({ file }: Listed) => order.get(file) ?? 0
  return all.sort((a, b) => at(a) - at(b) || a.line - b.line)
}
