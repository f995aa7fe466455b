// Hosts: what a name leaves out (a port, a final dot) and what it takes in.
import { namesPort } from '../attributes/host.ts'
import { patternOf } from '../rules/pattern.ts'
import type { Change } from './draft.ts'
import { hostExamples } from './examples.ts'
import { fieldTexts } from './field-texts.ts'
import { type Ground, strangerAt, whomOf } from './ground.ts'
import {
  escapesFrom,
  isAllowed,
  isAllowedBy,
  keepsOut,
  type LintRule,
  letsThrough,
  openSuffix,
  quoted,
  type Suspicion,
  spotIn,
} from './rule.ts'
import { samplesOf } from './samples.ts'

const onHost =
  (host: string): Change =>
  (draft) => ({ ...draft, host })

function* portTwins(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, text, index } of fieldTexts(ground, 'hosts', keepsOut)) {
    const { kind } = patternOf(text)
    const [meant] = hostExamples(text)
    if (meant === undefined || namesPort(text) || kind === 'prefix' || kind === 'present') continue
    for (const twin of [`${meant}:8080`, `${meant}.`]) {
      if (twin.endsWith('..')) continue
      const all = twin.endsWith('.') ? `${text}.` : `${text}:*`
      yield {
        at: spotIn(rule, ...field.path, index),
        says: `${quoted(text)} leaves out ${quoted(twin)}, which is the same host`,
        mend:
          kind === 'exact'
            ? `add ${quoted(all)} to the list`
            : 'say which hosts are allowed instead, or use the strict profile',
        witnesses: () => escapesFrom(ground, rule, { at: onHost(meant), away: onHost(twin) }),
        shows: isAllowed,
      }
    }
  }
}

function* openSuffixes(ground: Ground): Generator<Suspicion> {
  for (const { rule, field, text, index } of fieldTexts(ground, 'hosts', letsThrough)) {
    const suffix = openSuffix(text)
    if (suffix === undefined || rule.policy.action !== 'ALLOW') continue
    const other = `other-${suffix}`
    const base = strangerAt(whomOf(ground.mesh, rule.policy), ground.mesh)
    yield {
      at: spotIn(rule, ...field.path, index),
      says: `${quoted(text)} also takes ${quoted(other)}, which is another domain`,
      mend: `write ${quoted(suffix)} and ${quoted(`*.${suffix}`)} instead`,
      witnesses: () => samplesOf(rule, base, { pin: onHost(other) }),
      shows: isAllowedBy(rule),
    }
  }
}

export const hostRules: readonly LintRule[] = [
  {
    name: 'host-without-port-twin',
    severity: 'error',
    says: 'a host that is kept out passes with a port or a final dot (istio; strict compares the name alone)',
    mend: 'name the host, the host with :* and the host with a final dot',
    suspect: portTwins,
  },
  {
    name: 'host-suffix-inside-name',
    severity: 'warning',
    says: 'a suffix of hosts starts inside of a name, and so takes other domains too',
    mend: 'start the suffix with *. and name the domain itself beside it',
    suspect: openSuffixes,
  },
]
