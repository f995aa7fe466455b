// policy eval, explain and test with keys of a token issuer in a file.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { castellan } from '../support/command.ts'
import { testFolder } from '../support/folder.ts'
import { policyText } from '../support/policy-text.ts'
import { createTestIssuer } from '../support/token-issuer.ts'

const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())
const put = (name: string, text: string) => {
  writeFileSync(join(folder.path, name), text)
  return join(folder.path, name)
}

const name = 'https://issuer.example'
let request = ''
let keys = ''
beforeAll(async () => {
  const issuer = await createTestIssuer(name)
  keys = put('jwks.json', issuer.jwks)
  const headers = [['authorization', `Bearer ${await issuer.token()}`]]
  const http = { method: 'GET', path: '/', host: 'shop', headers }
  request = JSON.stringify({ destination: { namespace: 'shop' }, http })
})

const policiesWith = (uri: string, version = 'castellan.dev/v1') =>
  put(
    'p.yaml',
    `apiVersion: ${version}
kind: RequestAuthentication
metadata: { name: tokens, namespace: shop }
spec: { jwtRules: [{ issuer: "${name}", jwksUri: "${uri}" }] }
---
${policyText('[{ from: [{ source: { requestPrincipals: ["*"] } }] }]')}`,
  )
const evaluate = (policies: string) =>
  castellan(['policy', 'eval', '-o', 'json', '--policies', policies], request)

it('a token that the keys of the file vouch for is one', async () => {
  const policies = policiesWith(pathToFileURL(keys).href)
  const { stdout, stderr } = await evaluate(policies)
  expect(stderr).toBe('')
  expect(JSON.parse(stdout)).toMatchObject({ decision: 'allow', policy: 'shop/test' })
  const explained = await castellan([
    'policy',
    'explain',
    '--policies',
    policies,
    '--request',
    request,
  ])
  expect(explained).toMatchObject({ code: 0, stderr: '' })
  expect(explained.stdout).toMatch(/^allow: /)
  const expected = { request: JSON.parse(request), expect: { strict: { decision: 'allow' } } }
  const cases = put('p.cases.jsonl', `${JSON.stringify(expected)}\n`)
  expect(await castellan(['policy', 'test', cases])).toMatchObject({ code: 0, stderr: '' })
})

it('of a file that cannot be used no token holds, and which and why is said', async () => {
  const missing = join(folder.path, 'missing.json')
  const broken = put('broken.json', '{"correct horse":')
  const refused = { decision: 'reject', status: 401 }
  const about = 'no keys of an issuer, whose tokens are refused: '
  const first = await evaluate(policiesWith(pathToFileURL(missing).href))
  expect(JSON.parse(first.stdout)).toMatchObject(refused)
  expect(first.stderr).toBe(`${about}cannot read ${missing} (ENOENT)\n`)
  const second = await evaluate(policiesWith(pathToFileURL(broken).href))
  expect(JSON.parse(second.stdout)).toMatchObject(refused)
  expect(second.stderr).toBe(`${about}${broken}: no JSON\n`)
})

it('a relative path, and a file in a document of Istio, are refused with file, line and field', async () => {
  const relative = await evaluate(policiesWith('file:jwks.json'))
  expect(relative.code).not.toBe(0)
  expect(relative.stderr).toContain('p.yaml:4 spec.jwtRules[0].jwksUri: a file of keys is named by')
  const istio = await evaluate(policiesWith(pathToFileURL(keys).href, 'security.istio.io/v1'))
  expect(istio.code).not.toBe(0)
  expect(istio.stderr).toContain('p.yaml:4 spec.jwtRules[0].jwksUri: keys from a file only with')
})
