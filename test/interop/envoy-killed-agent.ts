// A real Envoy whose agent is a process that is killed under load: with `kill -9`, and started again.
import { driveEnvoy } from '../support/driven-envoy.ts'
import { findEnvoy } from '../support/envoy.ts'
import { startKillableNode } from '../support/killable-node.ts'
import { goesOnAlone } from './envoy-killed-alone.ts'
import { failsClosed } from './envoy-killed-asked.ts'
import { withoutFailures } from './envoy-killed-native.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

async function run({ log }: Surroundings): Promise<Outcome> {
  const envoy = await findEnvoy(log)
  if (envoy.kind === 'missing') return { kind: 'skipped', reason: envoy.reason }
  for (const delta of [true, false]) {
    const name = delta ? 'delta' : 'state of the world'
    await using it = await driveEnvoy({ envoy: envoy.path, delta }, startKillableNode)
    const tell = (line: string) => log(`${name}: ${line}`)
    tell(`ok Envoy decides, its agent is killed: ${await withoutFailures(it)}`)
    if (delta) await goesOnAlone(it, tell)
  }
  const agent = { decisions: { socket: 'run/authz.sock' } }
  await using it = await driveEnvoy(
    { envoy: envoy.path, delta: true, agent, decides: 'agent' },
    startKillableNode,
  )
  const tell = (line: string) => log(`asking: ${line}`)
  await failsClosed(it, tell)
  await goesOnAlone(it, tell)
  return { kind: 'ok' }
}

export const envoyKilledAgent: Interop = { name: 'envoy-killed-agent', run }
