// A listener where Envoy decides alone: its agent is killed under load, and nobody sees it.
import {
  counted,
  demand,
  demandDenied,
  followsPolicies,
  hearsMore,
  ofAllowed,
  type Scene,
  startTraffic,
} from './envoy-killed-scene.ts'

const rounds = 3
const firstPath = '/round-0'

async function killed(it: Scene, traffic: ReturnType<typeof startTraffic>): Promise<number[]> {
  const times: number[] = []
  for (let round = 1; round <= rounds; round++) {
    await it.node.killAgent()
    await hearsMore(traffic, 100)
    await it.node.startAgent()
    if (round % 2 === 0) {
      // while it tells Envoy everything
      await it.node.killAgent()
      await it.node.startAgent()
    }
    times.push(await followsPolicies(it, `/round-${round}`, `/round-${round - 1}`))
  }
  return times
}

/** What policies said at the end is in force still. */
export async function withoutFailures(it: Scene): Promise<string> {
  await followsPolicies(it, firstPath, '/none')
  const traffic = startTraffic(it)
  let times: readonly number[] = []
  {
    await using _ = traffic
    times = await killed(it, traffic)
  }
  const { answers } = traffic
  const failed = ofAllowed(answers).filter(({ status }) => status !== 200)
  demand(failed.length === 0, `failed: ${counted(failed)}`)
  demandDenied(it, answers, [403])
  return `${answers.length} requests, none failed, none passed that is denied; policies reached Envoy ${times.join(', ')} ms after each start`
}
