// `npm run soak -- NAME [--minutes N]`: the long runs. Each prints how far it is, and at the end one line.
import { parseArgs } from 'node:util'
import { testFolder } from '../support/ca.ts'
import { killedAt, problemsOf } from '../support/killed-at.ts'

interface Soak {
  readonly about: string
  /** The number of tries, and what went wrong. */
  run(until: number): Promise<{ tries: number; problems: string[] }>
}

/** Each statement once, then again until the time is over. */
async function kill(until: number): Promise<{ tries: number; problems: string[] }> {
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

const soaks: Readonly<Record<string, Soak>> = {
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
