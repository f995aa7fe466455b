// `npm run conformance`: every line of the SPIFFE standards against our tests and our own agent.
// `-- --socket PATH`: only what can be seen at that agent's socket. `-- --stock`: at that of a stock spire-agent.
// `-- --results FILE`: our tests are not run again, a JSON report of vitest says how they went.
// `-- --markdown`: our own run and the stock one, written into docs/conformance.md.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Code, ConnectError } from '@connectrpc/connect'
import { explain } from '../../spiffe/errors.ts'
import { readChecklist } from './checklist.ts'
import { judge, type Verdict } from './judge.ts'
import { startOwn } from './live/own.ts'
import { liveEvidence } from './live/run.ts'
import type { Backstage } from './live/scene.ts'
import { startStock } from './live/stock.ts'
import type { Subject } from './live/subject.ts'
import { toMarkdown, toText, totalLine } from './report.ts'
import { testEvidence } from './unit-tests.ts'

const lines = readChecklist()
const unseen = 'not to be seen at a socket'
const record = join(import.meta.dirname, '../../docs/conformance.md')
const marker = '<!-- what follows is written by npm run conformance -- --markdown -->'

/** An agent that somebody else runs. */
const stranger: Backstage = {
  entries: [],
  operator: { kind: 'missing', reason: 'needs the authority behind the agent' },
  foreign: { kind: 'missing', reason: 'needs a federated trust domain whose keys the suite has' },
}

const howToRegister = `nothing is registered for this process. Ask the agent's authority for an entry, better two with hints, such as
  spire-server entry create -parentID AGENT-ID -spiffeID spiffe://TRUST-DOMAIN/conformance/one -hint one -selector unix:uid:${process.getuid?.()}
  castellan entry create --parent-id AGENT-ID --spiffe-id spiffe://TRUST-DOMAIN/conformance/one --hint one --selector unix:uid:${process.getuid?.()}`

async function judgeOwn(results?: string): Promise<readonly Verdict[]> {
  await using own = await startOwn()
  const seen = await liveEvidence(own.socket, own.backstage)
  return judge(lines, [...seen, ...(await testEvidence(results))])
}

async function judgeStarted(subject: Subject): Promise<readonly Verdict[]> {
  return judge(lines, await liveEvidence(subject.socket, subject.backstage), unseen)
}

/** Prints the verdicts; the exit code. */
function show(verdicts: readonly Verdict[]): number {
  for (const verdict of verdicts) console.log(toText(verdict))
  console.log(totalLine(verdicts))
  return verdicts.some(({ kind }) => kind === 'failed') ? 1 : 0
}

async function showSocket(socket: string): Promise<number> {
  try {
    return show(judge(lines, await liveEvidence(socket, stranger), unseen))
  } catch (error) {
    const isUnknown = ConnectError.from(error).code === Code.PermissionDenied
    console.error(`conformance: ${socket}: ${isUnknown ? howToRegister : explain(error)}`)
    return isUnknown ? 1 : 3
  }
}

async function showStock(): Promise<number> {
  await using subject = await startStock(console.error)
  return show(await judgeStarted(subject))
}

async function writeRecord(results?: string): Promise<number> {
  const own = await judgeOwn(results)
  await using subject = await startStock(console.error)
  const stock = await judgeStarted(subject)
  const columns = [
    { name: 'castellan', verdicts: own },
    { name: subject.name, verdicts: stock },
  ]
  const [prose = ''] = readFileSync(record, 'utf8').split(marker)
  const date = new Date().toISOString().slice(0, 10)
  writeFileSync(record, `${prose}${marker}\n\n${toMarkdown(columns, date)}\n`)
  for (const { name, verdicts } of columns) console.error(`${name}: ${totalLine(verdicts)}`)
  return show(own)
}

async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      socket: { type: 'string' },
      results: { type: 'string' },
      stock: { type: 'boolean', default: false },
      markdown: { type: 'boolean', default: false },
    },
  })
  if (values.markdown) return writeRecord(values.results)
  if (values.stock) return showStock()
  if (values.socket !== undefined) return showSocket(values.socket)
  return show(await judgeOwn(values.results))
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`conformance: ${explain(error)}`)
  return 2
})
