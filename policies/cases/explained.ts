// One decision explained in full, as programs and as people read it.

import { fieldName } from '../../documents/yaml.ts'
import type { PolicySet } from '../compile.ts'
import { auditOf, decideShadow } from '../decide.ts'
import { type Account, accountOf } from '../explain/account.ts'
import { type Edit, editText, placeOf } from '../explain/edit.ts'
import { documentOf } from '../explain/exact.ts'
import { type Input, inputOf } from '../explain/input.ts'
import type { NearMiss } from '../explain/near.ts'
import { askedOf, explainDecision, nearestOf } from '../explain.ts'
import { policyName } from '../language/policy.ts'
import type { CompiledRule } from '../rules/rule.ts'
import { type Answer, answerOf, type Evaluated } from './evaluate.ts'

interface PlacedRule {
  readonly policy: string
  readonly action: string
  readonly rule: number
  /** FILE:LINE */
  readonly at: string
}

/** Members that say nothing are absent. */
export interface Explained extends Omit<Answer, 'id'> {
  /** absent for a request that was refused before anything was decided */
  readonly input?: Input
  /** what the rule that determined it asks, field by field */
  readonly why?: readonly Account[]
  readonly near?: readonly (PlacedRule & { readonly failing: NearMiss['failing'] })[]
  /** what the policies in shadow mode alone would say */
  readonly shadow?: { readonly decision: 'allow' | 'deny' } & Partial<PlacedRule>
  /** the AUDIT rule that wants it logged */
  readonly audit?: PlacedRule
  /** the smallest change that turns the decision round; empty when none was found */
  readonly remedy?: string
  readonly edits?: readonly object[]
}

const placed = ({ policy, index }: CompiledRule): PlacedRule => ({
  policy: policyName(policy),
  action: policy.action,
  rule: index,
  at: placeOf(policy, index),
})

function plainEdit(edit: Edit): object {
  const { policy } = edit
  const text = editText(edit)
  if (edit.do === 'create') return { do: edit.do, document: documentOf(policy), text }
  const { path } = edit
  return {
    do: edit.do,
    policy: policyName(policy),
    file: policy.file,
    field: fieldName(path),
    path,
    ...('values' in edit ? { values: edit.values } : {}),
    text,
  }
}

export function explainEvaluated(set: PolicySet, evaluated: Evaluated): Explained {
  const { id: _, ...answer } = answerOf(null, evaluated)
  if (evaluated.kind === 'rejected') return answer
  const { decision, request, guard, raw } = evaluated
  const { reason, remedy, edits } = explainDecision(set, request, decision)
  const near = decision.allow ? [] : nearestOf(askedOf(set, request))
  const shadow = decideShadow(guard, request)
  const audit = auditOf(guard, request)
  return {
    ...answer,
    reason,
    input: inputOf(request, raw, set.mesh),
    ...(decision.rule === undefined ? {} : { why: accountOf(decision.rule, request) }),
    near: near.map(({ rule, failing }) => ({ ...placed(rule), failing })),
    ...(shadow === undefined
      ? {}
      : {
          shadow: {
            decision: shadow.allow ? 'allow' : 'deny',
            ...(shadow.rule === undefined ? {} : placed(shadow.rule)),
          },
        }),
    ...(audit === undefined ? {} : { audit: placed(audit) }),
    remedy,
    edits: edits.map(plainEdit),
  }
}

const quoted = (texts: readonly string[]) => texts.map((it) => JSON.stringify(it)).join(', ')
const has = (value: string | undefined) => (value === undefined ? 'nothing' : JSON.stringify(value))

function callerText({ principal, ip, remoteIp }: Input['caller']): string {
  const from = [ip, remoteIp === ip ? undefined : `for ${remoteIp ?? '-'}`]
  const known = from.filter((it) => it !== undefined).join(' ')
  return `${principal ?? 'no identity'}${known === '' ? '' : ` (${known})`}`
}

function destinationText({
  principal,
  namespace,
  labels,
  port,
  sni,
}: Input['destination']): string {
  const all = Object.entries(labels).map(([name, value]) => `${name}=${value}`)
  return [
    principal ?? '',
    `namespace ${namespace}`,
    all.length === 0 ? '' : `{${all.join(', ')}}`,
    port === undefined ? '' : `port ${port}`,
    sni === undefined ? '' : `sni ${sni}`,
  ]
    .filter((it) => it !== '')
    .join(' ')
}

function httpLines({ method, path, host, headers }: NonNullable<Input['http']>): string[] {
  const { sent, forwarded, readings, certain } = path
  const all = [...new Set([...readings, ...certain])]
  return [
    `method       ${method}`,
    `path         ${sent === forwarded ? sent : `${sent}, forwarded as ${forwarded}`}`,
    ...(all.length > 1 ? [`  read as    ${all.join(', ')}`] : []),
    ...(host === undefined
      ? []
      : [
          `host         ${host.sent === host.name ? host.name : `${host.sent}, compared as ${host.name}`}`,
        ]),
    ...headers.map(([name, value]) => `header       ${name}: ${value}`),
  ]
}

function inputLines({ caller, destination, http }: Input): string[] {
  return [
    `caller       ${callerText(caller)}`,
    ...(caller.namespace === undefined
      ? []
      : [`             namespace ${caller.namespace}, service account ${caller.serviceAccount}`]),
    ...(caller.claims === undefined ? [] : [`token        ${JSON.stringify(caller.claims)}`]),
    `destination  ${destinationText(destination)}`,
    ...(http === undefined ? ['TCP'] : httpLines(http)),
  ]
}

const accountLine = ({ place, wanted, value, holds }: Account) =>
  `${holds ? 'holds' : '-    '}  ${place}: has ${has(value)}, the rule says ${quoted(wanted)}`

function nearLines({
  policy,
  rule,
  at,
  failing,
}: NonNullable<Explained['near']>[number]): string[] {
  return [
    `${policy}, rule ${rule} (${at})`,
    ...failing.map(({ place, name, wanted, value }) => {
      const where = place === '' ? name : place
      return `  ${where}: has ${has(value)}${wanted.length === 0 ? '' : `, the rule says ${quoted(wanted)}`}`
    }),
  ]
}

const section = (title: string, lines: readonly string[]) =>
  lines.length === 0 ? [] : [`${title}:`, ...lines.map((line) => `  ${line}`)]

/** Several lines for people. */
export function explanationText(it: Explained): string {
  const { decision, status, reason, input, why = [], near = [], shadow, audit, remedy = '' } = it
  const other = decision === 'allow' ? 'deny' : 'allow'
  return [
    `${decision}${status === undefined ? '' : ` ${status}`}: ${reason}`,
    ...section('input', input === undefined ? [] : inputLines(input)),
    ...section('why', why.map(accountLine)),
    ...section('nearest ALLOW rules', near.flatMap(nearLines)),
    ...section(
      'in shadow mode',
      shadow === undefined
        ? []
        : [
            `${shadow.decision}${shadow.policy === undefined ? '' : ` by ${shadow.policy}, rule ${shadow.rule} (${shadow.at})`}`,
          ],
    ),
    ...section(
      'logged by',
      audit === undefined ? [] : [`${audit.policy}, rule ${audit.rule} (${audit.at})`],
    ),
    ...section(
      `what would ${other} it`,
      remedy === ''
        ? input === undefined
          ? []
          : ['no change of policies was found']
        : remedy.split('; then '),
    ),
  ].join('\n')
}
