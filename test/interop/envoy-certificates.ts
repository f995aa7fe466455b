// Which client certificates are somebody to a real Envoy that our agent drives: where it decides alone, and where it
// asks the agent because it believes another trust domain as well (proxies.md §7.2).
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DevCa, makeDevCa } from '../../certs-dev/authority.ts'
import { bundleOf, type X509Bundle } from '../../spiffe/bundle.ts'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { corpusCertificates } from '../support/corpus-certificates.ts'
import { clientId, type DrivenEnvoy, startDrivenEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { show } from '../support/odd-certificates.ts'
import { deniesListed } from './envoy-certificates-denied.ts'
import { refusesSessions } from './envoy-certificates-resumed.ts'
import {
  ask,
  everybody,
  outcomeOf,
  partnerId,
  walkCorpus,
  walkTable,
  walkTcp,
} from './envoy-certificates-walk.ts'
import { eventually } from './eventually.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

const hour = 3_600_000

const partnerOf = (name: string) =>
  makeDevCa({ name, notBefore: Date.now() - hour, notAfter: Date.now() + 24 * hour })
const bundleWith = ({ certificate }: DevCa): X509Bundle =>
  bundleOf(parseTrustDomain('partner.test'), [certificate])

/** Nobody to ask about the certificates of another trust domain: nobody gets in. */
async function closes(it: DrivenEnvoy): Promise<void> {
  await it.apply(everybody)
  await eventually('it says so', async () => {
    const { proxies } = await it.status()
    if (proxies[0]?.remarks.some((one) => one.includes('nobody gets in')) !== true)
      throw new Error('it does not')
  })
  for (const svid of [show(it.node.signer, { id: clientId }), it.svid()]) {
    const outcome = outcomeOf(await ask(it, svid, '/ok'))
    if (outcome !== 403) throw new Error(`somebody got in: ${outcome}`)
  }
}

type Log = Surroundings['log']

async function alone(it: DrivenEnvoy, partner: DevCa, log: Log): Promise<void> {
  await it.apply(everybody)
  log(`ok ${JSON.stringify(await walkTable(it, partner, 'native'))}`)
  await deniesListed(it, { log })
}

async function asking(it: DrivenEnvoy, partner: DevCa, log: Log): Promise<void> {
  await it.apply(everybody)
  log(`ok ${JSON.stringify(await walkTable(it, partner, 'asked'))}`)
  await walkCorpus(it)
  log('ok the certificates of the corpus')
  await walkTcp(it, partner)
  log('ok the same over TCP')
  const successor = bundleWith(partnerOf('the next one of the partner'))
  await refusesSessions(it, { partner, partnerId, successor })
  log('ok no session is resumed, and a connection of before is refused once its CA is gone')
  await deniesListed(it, { log })
}

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  using stack = new DisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'castellan-certificates-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const partner = partnerOf('the partner')
  const federated = [bundleWith(partner), ...(corpusCertificates[0]?.bundles ?? [])]
  const agent = { decisions: { socket: join(folder, 'authz.sock') } }
  const common = { envoy: envoy.path, delta: true, inbound: { healthPath: '/healthz' } }
  {
    await using it = await startDrivenEnvoy(common)
    await alone(it, partner, (line) => log(`Envoy alone: ${line}`))
  }
  {
    await using it = await startDrivenEnvoy({ ...common, federated, agent })
    await asking(it, partner, (line) => log(`the agent decides: ${line}`))
  }
  await using it = await startDrivenEnvoy({ ...common, federated })
  await closes(it)
  log('ok federated and nobody to ask: nobody gets in')
  return { kind: 'ok' }
}

export const envoyCertificates: Interop = { name: 'envoy-certificates', run }
