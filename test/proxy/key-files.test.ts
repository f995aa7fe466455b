// Keys of token issuers from a file of the node: a sidecar whose file comes late, is replaced, broken and removed.
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'
import { startProxy } from '../../proxy/main.ts'
import { proxySpec } from '../../proxy-spec/spec.ts'
import { createLog } from '../../runtime/log.ts'
import { startTestAgent } from '../support/agent.ts'
import { testFolder } from '../support/folder.ts'
import { contextFor } from '../support/mesh.ts'
import { policyText } from '../support/policy-text.ts'
import { askPayments, authority, inboundTo, payments } from '../support/shop.ts'
import { startApp } from '../support/sidecar.ts'
import { createTestIssuer } from '../support/token-issuer.ts'

const name = 'https://issuer.example'
const patience = { timeout: 30_000 }

async function startTokenSidecar(file: string) {
  await using starting = new AsyncDisposableStack()
  const folder = testFolder()
  starting.defer(() => folder[Symbol.dispose]())
  const app = starting.use(await startApp((_, response) => response.end('from the workload')))
  const agent = starting.use(await startTestAgent(folder.path))
  agent.putContext(contextFor(authority.issue(payments), authority.bundle))
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const proxy = starting.use(
    await startProxy({
      spec: proxySpec.parse({ workloadApi: agent.endpoint, inbound: [inboundTo(app.port)] }),
      log: createLog({ name: 'proxy', destination }),
    }),
  )
  const text = `apiVersion: castellan.dev/v1
kind: RequestAuthentication
metadata: { name: tokens, namespace: shop }
spec: { jwtRules: [{ issuer: "${name}", jwksUri: "${pathToFileURL(file)}" }] }
---
${policyText('[{ from: [{ source: { requestPrincipals: ["*"] } }] }]')}`
  agent.putState({ version: 1n, policies: { version: 1n, files: [{ name: 'f.yaml', text }] } })
  await agent.report(({ report }) => report.case === 'ack' && report.value.version === 1n)
  const started = starting.move()
  return {
    lines,
    async statusWith(token: string) {
      const port = proxy.listeners[0]?.port ?? 0
      const head = 'GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n'
      const answer = await askPayments(port, `${head}Authorization: Bearer ${token}\r\n\r\n`)
      return answer.slice(9, 12)
    },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}

it('a sidecar follows the file, keeps the last good keys, and says what is wrong with it', async () => {
  using folder = testFolder()
  const file = join(folder.path, 'jwks.json')
  const [first, second] = [await createTestIssuer(name), await createTestIssuer(name)]
  const [token, next] = [await first.token(), await second.token()]
  await using sidecar = await startTokenSidecar(file)
  const told = () =>
    sidecar.lines
      .map((line) => JSON.parse(line))
      .filter(({ msg }) => msg === 'no keys of an issuer')
      .map(({ uri, reason }) => [uri, reason])

  await expect.poll(told, patience).toEqual([[`file://${file}`, `cannot read ${file} (ENOENT)`]])
  expect(await sidecar.statusWith(token)).toBe('401')

  writeFileSync(file, first.jwks)
  await expect.poll(() => sidecar.statusWith(token), patience).toBe('200')
  expect(await sidecar.statusWith(next)).toBe('401')

  const aside = join(folder.path, 'next.json')
  writeFileSync(aside, second.jwks)
  renameSync(aside, file)
  await expect.poll(() => sidecar.statusWith(next), patience).toBe('200')
  expect(await sidecar.statusWith(token)).toBe('401')

  const secret = 'correct horse'
  writeFileSync(file, `{ "${secret}": "${secret}", "${secret}": "", "keys": [] }`)
  await expect.poll(() => told().length, patience).toBe(2)
  expect(told()[1]).toEqual([`file://${file}`, 'no usable JWKS: a member of an object twice'])
  expect(await sidecar.statusWith(next)).toBe('200')

  rmSync(file)
  await expect.poll(() => told().length, patience).toBe(3)
  expect(told()[2]?.[1]).toBe(`cannot read ${file} (ENOENT)`)
  expect(await sidecar.statusWith(next)).toBe('200')
  expect(sidecar.lines.join('')).not.toContain(secret)
})
