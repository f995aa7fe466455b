// go-spiffe, as a workload of our agent: fetches, watches, follows two rotations.
import { startNode, trustDomain } from '../support/node.ts'
import { buildGo, runProgram } from './go.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'

async function run(surroundings: Surroundings): Promise<Outcome> {
  const program = await buildGo('go-spiffe', surroundings)
  if (program.kind === 'skipped') return program
  await using node = await startNode({ svidLifetime: '30s' })
  await node.register('/go', [`unix:path:${program.path}`])
  const failures: string[] = []
  const args = ['-socket', `unix://${node.agent.socket}`, '-id', `spiffe://${trustDomain}/go`]
  await runProgram(program.path, args, (line) => {
    surroundings.log(line)
    if (line.startsWith('not ok')) failures.push(line)
  })
  if (failures.length > 0) throw new Error(failures.join('; '))
  return { kind: 'ok' }
}

export const goSpiffe: Interop = { name: 'go-spiffe', run }
