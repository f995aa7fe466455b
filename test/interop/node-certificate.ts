// What a node has before it joins by x509pop.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { makeDevelopmentCertificates } from '../../certs-dev/development.ts'
import { systemClock } from '../../runtime/clock.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { toPem } from '../../spiffe/pem.ts'

/** A certificate of the node, and the authority of such certificates where ca.yaml looks for it. */
export function writeNodeCertificate(folder: string): void {
  const domain = parseTrustDomain('nodes.test')
  const all = makeDevelopmentCertificates({ trustDomain: domain, now: systemClock.now() })
  const pem = (name: string) =>
    all
      .filter((it) => it.name === name)
      .flatMap(({ chain }) => chain.map((der) => toPem(der, 'CERTIFICATE')))
      .join('')
  const key = all.find(({ name }) => name === 'good')?.privateKey
  writeFileSync(join(folder, 'nodes.pem'), pem('root'))
  writeFileSync(join(folder, 'node.pem'), pem('good'))
  writeFileSync(join(folder, 'node.key'), key?.export({ format: 'pem', type: 'pkcs8' }) ?? '')
}
