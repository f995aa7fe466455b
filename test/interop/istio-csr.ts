// The CA client of Istio's own agent: a certificate by token, renewed by itself, and refusals.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { startTestCa } from '../support/ca.ts'
import { rootsOf } from '../support/ca-client.ts'
import { testFolder } from '../support/folder.ts'
import { createTestIssuer } from '../support/token-issuer.ts'
import { buildGo, runProgram } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

async function run(surroundings: Surroundings): Promise<Outcome> {
  const program = await buildGo('istio-csr', surroundings, { module: 'istio' })
  if (program.kind === 'skipped') return program
  using folder = testFolder()
  const at = (name: string) => join(folder.path, name)
  const issuer = await createTestIssuer()
  writeFileSync(at('keys.json'), issuer.jwks)
  writeFileSync(at('token'), await issuer.token())
  mkdirSync(at('certs'))
  // the name that Istio's agent expects of whoever it reaches at localhost
  const config = `istio:
  serverNames: [istiod.istio-system.svc]
  tokens:
    - { issuer: '${issuer.issuer}', audiences: [istio-ca], jwks: { file: keys.json } }
`
  await using ca = await startTestCa({ folder: folder.path, config })
  writeFileSync(at('roots.pem'), await rootsOf(ca.running.socket))
  const args = ['-address', `localhost:${ca.running.port}`, '-roots', at('roots.pem')]
  args.push('-token', at('token'), '-folder', at('certs'))
  args.push('-id', 'spiffe://example.org/ns/shop/sa/cart')
  const failures: string[] = []
  await runProgram(program.path, args, (line) => {
    if (/^(not )?ok /.test(line)) surroundings.log(line)
    if (line.startsWith('not ok')) failures.push(line)
  })
  if (failures.length > 0) throw new Error(failures.join('; '))
  return { kind: 'ok' }
}

export const istioCsr: Interop = { name: 'istio-csr', run }
