// What is on the disk when everything is killed: an agent that starts without its authority, and an Envoy that starts
// with nothing, are what they were.
import { readdirSync } from 'node:fs'
import { toBinary } from '@bufbuild/protobuf'
import { openDiskCache } from '../../agent/disk-cache.ts'
import { secretIn } from '../../agent/state.ts'
import { AuthorityMessageSchema } from '../../proto/gen/castellan/control/v1/control_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { run } from '../../runtime/lifecycle.ts'
import { memoryLog } from '../support/ca.ts'
import {
  answers,
  demand,
  demandDenied,
  doorsOf,
  followsPolicies,
  policies,
  type Scene,
  startTraffic,
  status,
  timed,
} from './envoy-killed-scene.ts'
import { eventually } from './eventually.ts'

const kills = 4
const last = '/last'
/** milliseconds, on a machine that is busy; Envoy's own choice is up to half a minute */
const soon = 15_000

/** What an agent that started now would find. */
function onDisk({ node: { state: folder } }: Scene) {
  const { log, lines } = memoryLog()
  const disk = openDiskCache({ folder, secret: secretIn(folder), clock: systemClock, log })
  const [knowledge, { svids }] = [disk.knowledge(), disk.identities()]
  demand(lines.length === 0, lines.join())
  const bytes = Buffer.from(
    knowledge === undefined ? '' : toBinary(AuthorityMessageSchema, knowledge),
  )
  return { svids: svids.length, says: (text: string) => bytes.includes(text) }
}

/** Killed at whatever it does while policies change without end: what it has written is whole. */
async function killedWhileWriting(it: Scene): Promise<void> {
  let count = 0
  for (let i = 1; i <= kills; i++) {
    await using _ = run(async (signal) => {
      while (!signal.aborted) await it.apply(policies(`/written-${++count}`))
    })
    const enough = count + 3 * i
    await eventually('policies change', async () => {
      onDisk(it)
      demand(count > enough, `${count}`)
    })
    await it.node.killAgent()
    const { svids, says } = onDisk(it)
    demand(svids > 0 && says('/ok/secret'), `kill ${i}: ${svids} SVIDs`)
    await it.node.startAgent()
  }
}

/** It serves, and decides by the newest policies. */
async function isRight(it: Scene): Promise<void> {
  const { direct, outbound } = doorsOf(it)
  for (const path of ['/ok', last]) await answers(direct, path, 200)
  for (const path of ['/admin', '/ok/secret', '/written-1']) await answers(direct, path, 403)
  await answers(outbound, '/ok', 200)
  await answers(outbound, '/admin', 403)
}

async function lookedAt(it: Scene, walk: () => Promise<string>): Promise<string> {
  const traffic = startTraffic(it)
  let said = ''
  {
    await using _ = traffic
    said = await walk()
  }
  // 0: nobody listens, 503: nobody decides
  demandDenied(it, traffic.answers, [0, 403, 503])
  return said
}

async function killEnvoy(it: Scene): Promise<void> {
  process.kill(it.envoy.pid, 'SIGKILL')
  await it.envoy[Symbol.asyncDispose]()
}

async function killAll(it: Scene): Promise<void> {
  await it.node.killAuthority()
  await it.node.killAgent()
  await killEnvoy(it)
}

async function agentFirst(it: Scene): Promise<string> {
  await killAll(it)
  await it.node.startAgent()
  const { connected } = await it.status()
  demand(!connected, 'the agent has an authority')
  await it.startEnvoy()
  return `${await timed('what was in force is so again', () => isRight(it))} ms`
}

/** Envoy has nothing and asks in vain, until it opens what it was told of: nothing. */
async function envoyFirst(it: Scene): Promise<string> {
  await killAll(it)
  await it.startEnvoy()
  for (const door of Object.values(doorsOf(it)))
    demand((await status(door, '/ok')) === 0, 'somebody serves')
  await it.node.startAgent()
  const took = await timed('what was in force is so again', () => isRight(it))
  // Envoy has waited longer each time it asked
  demand(took < soon, `Envoy asked again after ${took} ms only`)
  return `${took} ms`
}

export async function goesOnAlone(it: Scene, log: (line: string) => void): Promise<void> {
  await killedWhileWriting(it)
  log(`ok killed ${kills} times while it writes, what is on the disk is whole`)
  await eventually('nothing half-written is left', async () => {
    const half = readdirSync(it.node.state).filter((name) => name.startsWith('.'))
    demand(half.length === 0, half.join())
  })
  await followsPolicies(it, last, '/written-1')
  await eventually('it is on the disk', async () => demand(onDisk(it).says(last), 'it is not'))
  log(`ok all are killed, the agent and Envoy start: ${await lookedAt(it, () => agentFirst(it))}`)
  log(`ok all are killed, Envoy and the agent start: ${await lookedAt(it, () => envoyFirst(it))}`)
  await it.node.startAuthority()
  log(`ok the authority is back, policies after ${await followsPolicies(it, '/back', last)} ms`)
  const unread = it.node.lines.filter((line) => line.includes('cannot be read'))
  demand(unread.length === 0, unread.join())
}
