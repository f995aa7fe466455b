// Tests of what only HTTP requests have: paths, hosts, methods and header fields.
import { namesPort } from '../attributes/host.ts'
import { withUpperEscapes } from '../attributes/path.ts'
import type { HttpAttributes } from '../attributes/request.ts'
import type { StringTest } from './pattern.ts'
import type { Quantifier } from './quantify.ts'
import { isTemplate, templateExpression } from './template.ts'
import { listOfHttp, type Made, patterns, type Setting, singleOfHttp } from './test.ts'

// what Envoy does not escape before it compares, which it does from BASE on
const bareSegment = "[A-Za-z0-9._~%!$&'()*+,;=:@-]"
const anySegment = '[^/]'

const asIs = (text: string) => text
const lower = (text: string) => text.toLowerCase()

/** What is done to paths of rules, and where it changes them of requests, before they are compared. */
function pathForm({ mesh, quantifier }: Setting, negated: boolean): (text: string) => string {
  if (mesh.profile === 'istio') return asIs
  // a backend that ignores case is shown what a DENY names in any case
  const ignoresCase = mesh.backend === 'caseless' && quantifier === 'widest' && !negated
  return ignoresCase ? lower : withUpperEscapes
}

function pathTest(texts: readonly string[], setting: Setting, negated: boolean): StringTest {
  const { mesh } = setting
  const form = pathForm(setting, negated)
  const written = texts.map(form)
  const isBare = mesh.profile === 'istio' && mesh.pathNormalization === 'none'
  const segment = isBare ? bareSegment : anySegment
  const templates = written.filter(isTemplate).map((it) => templateExpression(it, segment))
  const plain = patterns(written.filter((text) => !isTemplate(text)))
  const test: StringTest =
    templates.length === 0
      ? plain
      : (value) => plain(value) || templates.some((template) => template.test(value))
  return form === lower ? (value) => test(lower(value)) : test
}

function pathsOf(http: HttpAttributes, quantifier: Quantifier): readonly string[] {
  return quantifier === 'narrowest' ? http.certain : http.readings
}

function hostTest(texts: readonly string[], { quantifier }: Setting) {
  const written = texts.map(lower)
  const whole = patterns(written.filter(namesPort))
  const name = patterns(written.filter((text) => !namesPort(text)))
  const sent = quantifier === 'widest' ? patterns(written) : () => false
  return (host: NonNullable<HttpAttributes['host']>) =>
    whole(host.whole) || name(host.name) || sent(host.sent)
}

function istioHostTest(texts: readonly string[]) {
  const test = patterns(texts.map(lower))
  return (host: NonNullable<HttpAttributes['host']>) => test(host.sent)
}

export const hosts: Made = singleOfHttp(
  ({ host }) => host,
  (texts, setting) =>
    setting.mesh.profile === 'istio' ? istioHostTest(texts) : hostTest(texts, setting),
)

/** `*` asks whether there is a field, even an empty one. */
function headerTest(texts: readonly string[]): StringTest {
  return texts.includes('*') ? () => true : patterns(texts)
}

function targetTest(texts: readonly string[], setting: Setting, negated: boolean): StringTest {
  const form = pathForm(setting, negated)
  const test = patterns(texts.map(form))
  return form === asIs ? test : (value) => test(form(value))
}

const path: Made = listOfHttp(
  (http, quantifier) => pathsOf(http, quantifier).map((it) => it + http.query),
  targetTest,
)
export const method: Made = singleOfHttp(({ method: it }) => it, patterns)

const istioAuthority: Made = singleOfHttp(({ host }) => host?.raw, headerTest)

/** In strict a host is compared as one, whatever it is called; for Istio it is a header like others. */
const authority: Made = {
  asksHttp: true,
  make(texts, negated, setting) {
    const { make } = setting.mesh.profile === 'istio' ? istioAuthority : hosts
    return make(texts, negated, setting)
  },
}

/** What HTTP/2 and HTTP/1.1 write differently, and what is compared by other rules than a header. */
const special: ReadonlyMap<string, Made> = new Map([
  [':method', method],
  [':path', path],
  [':authority', authority],
  ['host', authority],
])

export const header = (name: string): Made =>
  special.get(name) ?? listOfHttp(({ headers }) => headers.values(name), headerTest)

export const paths: Made = listOfHttp(pathsOf, pathTest)
