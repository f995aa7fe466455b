// Our own authority and agent, for the checks of a run without `--socket`.
import { startNode } from '../../support/node.ts'
import { federate } from './foreign.ts'
import { createOperator } from './operator.ts'
import { prepare, type Subject } from './subject.ts'

export async function startOwn(): Promise<Subject> {
  await using starting = new AsyncDisposableStack()
  const node = starting.use(await startNode({ agent: { incubating: true } }))
  const operator = createOperator(node.local, { trustDomain: 'example.org', path: '/node' })
  const foreign = await federate(node.local)
  const backstage = await prepare(node.agent.socket, operator, foreign)
  const started = starting.move()
  return {
    ...{ name: 'castellan', socket: node.agent.socket, backstage },
    [Symbol.asyncDispose]: () => started.disposeAsync(),
  }
}
