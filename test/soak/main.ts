// `npm run soak -- NAME [--minutes N]`: the long runs. Each prints how far it is, and at the end one line.
import { parseArgs } from 'node:util'
import { compareRandomly } from '../support/differential.ts'
import { testFolder } from '../support/folder.ts'
import { killedAt, problemsOf } from '../support/killed-at.ts'
import { agentStreams } from './agent-streams.ts'

interface Tried {
  readonly tries: number
  readonly problems: readonly string[]
}

interface Soak {
  readonly about: string
  /** The number of tries, and what went wrong. */
  run(until: number): Tried | Promise<Tried>
}

/** Each statement once, then again until the time is over. */
async function kill(until: number): Promise<Tried> {
  using folder = testFolder()
  const whole = await killedAt(folder.path, 0)
  const statements = whole.statements ?? 0
  const problems = problemsOf(whole)
  let tries = 1
  do {
    for (let at = 1; at <= statements && (tries <= statements || Date.now() < until); at++) {
      const found = problemsOf(await killedAt(folder.path, at))
      problems.push(...found.map((problem) => `killed before statement ${at}: ${problem}`))
      tries++
      if (at % 10 === 0) console.log(`  statement ${at} of ${statements}`)
    }
  } while (Date.now() < until)
  return { tries, problems }
}

/** Both profiles in turn, each time with another seed. */
function policies(until: number): Tried {
  const problems: string[] = []
  let tries = 0
  let seed = Date.now() % 1_000_000_000
  do {
    for (const profile of ['strict', 'istio'] as const) {
      const { pairs, failure } = compareRandomly(profile, 10_000, seed)
      tries += pairs
      if (failure !== undefined) {
        problems.push(`${profile}: ${failure}`)
        console.log(`  ${profile}: ${failure}`)
      }
      console.log(`  ${tries} decisions compared, ${problems.length} differences, seed ${seed}`)
    }
    seed += 1_000
  } while (Date.now() < until)
  return { tries, problems }
}

const soaks: Readonly<Record<string, Soak>> = {
  policies: {
    about: 'random policies and requests, decided by the engine and by the reference interpreter',
    run: policies,
  },
  'agent-streams': { about: 'what 10 000 streams take of an agent', run: agentStreams },
  kill: { about: 'kill -9 before every statement that an authority at work writes', run: kill },
}

const { values, positionals } = parseArgs({
  options: { minutes: { type: 'string', default: '0' }, list: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const [name = ''] = positionals
const minutes = Number(values.minutes)
const soak = Object.hasOwn(soaks, name) ? soaks[name] : undefined
if (soak === undefined || !(minutes >= 0)) {
  for (const [each, { about }] of Object.entries(soaks)) console.log(`${each}  ${about}`)
  process.exitCode = values.list ? 0 : 2
} else {
  const { tries, problems } = await soak.run(Date.now() + minutes * 60_000)
  for (const problem of problems) console.log(`  ${problem}`)
  console.log(`soak ${name}: ${tries} tries, ${problems.length} problems`)
  process.exitCode = problems.length === 0 ? 0 : 1
}
