// A small mesh for tests: authorities, SVIDs, an identity source that a test moves, policies as text.
import { issueDev, type LeafChoices, makeDevCa } from '../../certs-dev/authority.ts'
import type { OwnSvid, X509Context, X509Source } from '../../client/x509-source.ts'
import type { MeshState } from '../../decisions/mesh.ts'
import { createTopic } from '../../runtime/lifecycle.ts'
import { bundleOf, bundleSourceOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { denyNothing } from '../../spiffe/deny-list.ts'
import { parseSpiffeId, parseTrustDomain } from '../../spiffe/id.ts'
import { policySet, policyText } from './policy-text.ts'

const hour = 3_600_000

export interface TestAuthority {
  readonly bundle: X509Bundle
  /** under an intermediate, valid for an hour when nothing else is said */
  issue(id: string, choices?: Partial<LeafChoices>): OwnSvid
}

export function makeTestAuthority(name: string): TestAuthority {
  const trustDomain = parseTrustDomain(name)
  const times = { notBefore: Date.now() - hour, notAfter: Date.now() + 240 * hour }
  const root = makeDevCa({ name: `root of ${name}`, ...times })
  const parent = makeDevCa({ name: `intermediate of ${name}`, parent: root, ...times })
  return {
    bundle: bundleOf(trustDomain, [root.certificate]),
    issue(id, choices = {}) {
      const life = { notBefore: Date.now() - 60_000, notAfter: Date.now() + hour }
      const { chain, privateKey } = issueDev(parent, { id, ...life, ...choices })
      const [leaf] = chain
      if (leaf === undefined) throw new Error('no leaf')
      const { serial, notAfter } = parseCertificate(leaf)
      return { id: parseSpiffeId(id), chain, key: privateKey, serial, notAfter, hint: '' }
    },
  }
}

export function contextFor(svid: OwnSvid, ...bundles: readonly X509Bundle[]): X509Context {
  return { svids: [svid], bundles: bundleSourceOf(...bundles) }
}

export interface TestSource extends Pick<X509Source, 'current' | 'subscribe'> {
  put(context: X509Context | undefined): void
}

export function createTestSource(first: X509Context): TestSource {
  const topic = createTopic<X509Context | undefined>()
  let current: X509Context | undefined = first
  return {
    current: () => current,
    subscribe: (listener) => topic.subscribe(listener),
    put(context) {
      current = context
      topic.publish(context)
    },
  }
}

/** These documents and nothing else. */
export function stateUnder(...documents: readonly string[]): MeshState {
  const policies = policySet(...documents)
  return { policies, endpoints: new Map(), denyList: denyNothing, labels: new Map() }
}

/** One ALLOW policy in namespace `shop`; `rules` is YAML in flow style. */
export function stateOf(rules: string, endpoints: MeshState['endpoints'] = new Map()): MeshState {
  return { ...stateUnder(policyText(rules)), endpoints }
}
