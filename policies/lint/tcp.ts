// Rules that ask about HTTP, on ports where there is none (authorization.md §4.9).
import type { Mesh } from '../language/mesh.ts'
import { fieldsOf, httpAttributes } from '../language/rule-fields.ts'
import { type CompiledRule, compileRule, testsOfRule } from '../rules/rule.ts'
import type { Change, Draft, Outcome } from './draft.ts'
import { allowedDrafts, type Ground, rulesBy, strangerAt, whomOf } from './ground.ts'
import { isSameRule, type LintRule, type Suspicion, spotIn } from './rule.ts'
import { samplesOf } from './samples.ts'

/** Ports of protocols that are never HTTP. */
const usual: ReadonlyMap<number, string> = new Map([
  [22, 'that is SSH'],
  [25, 'that is SMTP'],
  [389, 'that is LDAP'],
  [636, 'that is LDAP'],
  [1433, 'that is SQL Server'],
  [1883, 'that is MQTT'],
  [3306, 'that is MySQL'],
  [4222, 'that is NATS'],
  [5432, 'that is PostgreSQL'],
  [5672, 'that is AMQP'],
  [6379, 'that is Redis'],
  [8883, 'that is MQTT'],
  [9042, 'that is Cassandra'],
  [9092, 'that is Kafka'],
  [11211, 'that is memcached'],
  [27017, 'that is MongoDB'],
])

type Decided = Exclude<Outcome, { decision: 'reject' }>

const onTcp =
  (port: number): Change =>
  (draft) => ({ ...draft, isTcp: true, port })

interface PortOfRule {
  readonly port: number
  readonly path: readonly (string | number)[]
  readonly why: string
  /** whether something else is spoken there, whatever the rule says */
  readonly isKnown: boolean
}

/** Ports of a rule that asks about HTTP, where HTTP is not what is spoken. */
function* portsWithoutHttp(ground: Ground, rule: CompiledRule): Generator<PortOfRule> {
  const fields = fieldsOf(rule.document)
  const told = new Set((ground.workloads ?? []).flatMap(({ tcp }) => tcp))
  for (const { attribute, isNegated, part, alternative, path, texts } of fields) {
    if (attribute !== 'ports' || isNegated) continue
    const beside = fields.filter((it) => it.part === part && it.alternative === alternative)
    const isBare = part === 'to' && beside.every((it) => !httpAttributes.has(it.attribute))
    for (const [i, text] of texts.entries()) {
      const port = Number(text)
      const known = told.has(port) ? 'a workload has no HTTP there' : usual.get(port)
      const why = known ?? (isBare ? 'its operation asks for nothing else' : undefined)
      if (why !== undefined) yield { port, path: [...path, i], why, isKnown: known !== undefined }
    }
  }
}

/** The rule without what it asks about HTTP. */
function plainOf({ policy, index, document, mesh }: CompiledRule): CompiledRule {
  const keep = ([name]: [string, unknown]) =>
    !['hosts', 'notHosts', 'methods', 'notMethods', 'paths', 'notPaths'].includes(name) &&
    !/requestprincipals$/i.test(name)
  const rule = {
    from: document.from?.map(({ source }) => ({
      source: Object.fromEntries(Object.entries(source).filter(keep)),
    })),
    to: document.to?.map(({ operation }) => ({
      operation: Object.fromEntries(Object.entries(operation).filter(keep)),
    })),
    when: document.when?.filter(({ key }) => !key.startsWith('request.')),
    exceptFor: document.exceptFor,
  }
  const rules = policy.rules.map((it, i) => (i === index ? rule : it))
  return compileRule({ ...policy, rules }, index, mesh)
}

function* allowsOnTcp(ground: Ground): Generator<Suspicion> {
  for (const rule of rulesBy(ground, 'ALLOW')) {
    if (!testsOfRule(rule).asksHttp) continue
    const plain = plainOf(rule)
    for (const { port, path, why } of portsWithoutHttp(ground, rule)) {
      const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
      const pin = onTcp(port)
      yield {
        at: spotIn(rule, ...path),
        says: `the rule asks about HTTP, and so never allows a TCP connection to port ${port} (${why})`,
        witnesses: () => samplesOf(plain, pin(base), { pin }),
        shows: (outcome) => outcome.decision === 'deny' && outcome.rule === undefined,
      }
    }
  }
}

/** TCP connections that an ALLOW lets in and this DENY does not. */
function* deniedTcp(ground: Ground, rule: CompiledRule, pin: Change): Generator<Draft> {
  for (const base of allowedDrafts(ground, rule.policy, pin)) {
    yield* samplesOf(rule, base, { pin })
  }
}

function asksOnlyHttp(rule: CompiledRule): boolean {
  return fieldsOf(rule.document).every(({ attribute }) => httpAttributes.has(attribute))
}

/** Whether the rule says for all that it asks on which ports that is. */
function namesPorts({ document }: CompiledRule): boolean {
  const ports = fieldsOf(document).filter(
    ({ attribute, isNegated }) => attribute === 'ports' && !isNegated,
  )
  return (
    ports.some(({ part }) => part === 'when') ||
    document.to?.every((_, i) => ports.some(({ alternative }) => alternative === i)) === true
  )
}

function* deniesOnTcp(ground: Ground): Generator<Suspicion> {
  for (const rule of rulesBy(ground, 'DENY')) {
    if (!testsOfRule(rule).asksHttp) continue
    const known = [...portsWithoutHttp(ground, rule)].filter(({ isKnown }) => isKnown)
    const which = asksOnlyHttp(rule) ? 'every TCP connection' : 'TCP connections'
    const anywhere = { path: [], where: '', pin: (draft: Draft) => ({ ...draft, isTcp: true }) }
    const spots = namesPorts(rule)
      ? known.map(({ port, path, why }) => ({
          path,
          where: ` to port ${port} (${why})`,
          pin: onTcp(port),
        }))
      : [anywhere]
    for (const { path, where, pin } of spots) {
      yield {
        at: spotIn(rule, ...path),
        says: `what the rule asks about HTTP does not count on TCP: it denies ${which}${where} that an ALLOW lets in`,
        witnesses: () => deniedTcp(ground, rule, pin),
        shows: (outcome) =>
          outcome.decision === 'deny' &&
          isSameRule(outcome.rule, rule) &&
          isLetIn(outcome, ground.mesh),
      }
    }
  }
}

/** Whether the connection would pass but for a DENY. */
function isLetIn({ request, guard }: Decided, { profile, defaultAction }: Mesh): boolean {
  if (!guard.hasAllow) return profile === 'istio' && defaultAction === 'allow'
  return guard.allow.find(request) !== undefined
}

export const tcpRules: readonly LintRule[] = [
  {
    name: 'allow-of-http-on-tcp',
    severity: 'warning',
    says: 'an ALLOW rule that asks about HTTP anywhere allows no TCP connection',
    mend: 'write a rule of its own for the port, without hosts, methods, paths, headers and tokens',
    suspect: allowsOnTcp,
  },
  {
    name: 'deny-of-http-on-tcp',
    severity: 'warning',
    says: 'a DENY rule leaves out what it asks about HTTP on TCP connections, and so denies more of them',
    mend: 'add ports to the rule: those on which HTTP is spoken',
    suspect: deniesOnTcp,
  },
]
