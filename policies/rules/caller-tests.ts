// Tests of who asks and from where: identities, tokens, addresses, and what is known of the connection.
import { type IpAddress, ipSet, parseBlock, unmappedBlock } from '../attributes/address.ts'
import { claimValues, requestPrincipalOf, requestPrincipalTest } from './claims.ts'
import {
  accountsTest,
  hasScheme,
  type IdTest,
  isOwn,
  namespacesTest,
  pathOf,
  principalOf,
  principalPatterns,
  trustDomainOf,
  trustDomainPatterns,
} from './identity.ts'
import { stringTest } from './pattern.ts'
import { quantifyOne, quantifySet } from './quantify.ts'
import { type Made, patterns, type Setting, single } from './test.ts'

function blocksTest(texts: readonly string[], { mesh }: Setting): (address: IpAddress) => boolean {
  const blocks = texts.flatMap((text) => parseBlock(text) ?? [])
  return ipSet(mesh.profile === 'istio' ? blocks : blocks.map(unmappedBlock))
}

/** A name that is no SPIFFE ID, which only Istio takes, is somebody, but nobody that a rule can name. */
export const principals: Made = single(
  ({ source }) => source,
  (texts, { mesh }) => {
    const test = stringTest(principalPatterns(texts, mesh))
    const isAnybody = texts.includes('*')
    return (id) => (isAnybody && id !== '') || (hasScheme(id) && test(principalOf(id)))
  },
)

/**
 * A test of namespace or account. Istio looks for it anywhere in the ID, of any trust domain. In strict a
 * DENY does so too; an ALLOW speaks of the own trust domain alone, and of IDs of the usual form.
 */
function ofIdentity(testOf: (texts: readonly string[], setting: Setting) => IdTest): Made {
  return {
    asksHttp: false,
    make(texts, negated, setting) {
      const { mesh, quantifier } = setting
      const test = testOf(texts, setting)
      if (quantifier === 'some') return ({ source }) => negated !== (!!source && test(source))
      const own = isOwn(mesh)
      const named: IdTest = (id) => own(id) && test(id)
      if (quantifier === 'narrowest') {
        return ({ source }) => source !== undefined && own(source) && negated !== test(source)
      }
      return negated
        ? ({ source }) => source === undefined || !named(source)
        : ({ source }) => source !== undefined && test(source)
    },
  }
}

export const namespaces = ofIdentity(namespacesTest)
export const serviceAccounts = ofIdentity((texts, { namespace }) => accountsTest(texts, namespace))
export const trustDomains: Made = single(
  ({ source }, mesh) => {
    if (source === undefined || !hasScheme(source)) return undefined
    // Istio asks whether an ID begins with the trust domain and a slash
    return mesh.profile === 'istio' && pathOf(source) === '' ? undefined : trustDomainOf(source)
  },
  (texts, { mesh }) => stringTest(trustDomainPatterns(texts, mesh)),
)
export const sourceIp: Made = single(({ sourceIp: ip }) => ip, blocksTest)
export const remoteIp: Made = single(({ remoteIp: ip }) => ip, blocksTest)
export const destinationPort: Made = single(
  ({ destination: { port } }) => port,
  (texts) => {
    const ports = new Set(texts.map(Number))
    return (port) => ports.has(port)
  },
)

/** Names of hosts have no case; Istio compares as given. */
export const serverName: Made = {
  asksHttp: false,
  make(texts, negated, { mesh, quantifier }) {
    const form = (text: string) => (mesh.profile === 'istio' ? text : text.toLowerCase())
    const test = quantifyOne(patterns(texts.map(form)), negated, quantifier)
    return ({ sni }) => test(sni === undefined ? undefined : form(sni))
  },
}

export const requestPrincipals: Made = {
  asksHttp: true,
  make(texts, negated, { quantifier }) {
    const isOf = requestPrincipalTest(texts, quantifier === 'widest')
    const test = quantifySet(isOf, negated, quantifier)
    const needsBoth = negated && quantifier === 'narrowest'
    return ({ claims }) =>
      test(
        requestPrincipalOf(claims).filter(
          ({ issuer, subject }) => !needsBoth || (issuer !== undefined && subject !== undefined),
        ),
      )
  },
}

export function claim(names: readonly string[]): Made {
  return {
    asksHttp: true,
    make(texts, negated, { mesh, quantifier }) {
      const test = quantifySet(patterns(texts), negated, quantifier)
      return ({ claims }) => test(claimValues(claims, names, mesh.profile))
    },
  }
}

export const destinationIp: Made = single(({ destination: { ip } }) => ip, blocksTest)

/** Istio's proxies have what filters left behind; we have not, and decide for the safe side. */
export const metadata: Made = {
  asksHttp: false,
  make(_, negated, { quantifier }) {
    if (quantifier === 'some') return () => negated
    return () => quantifier === 'widest'
  },
}
