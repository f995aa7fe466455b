// All that an agent says on one control stream: who it is, what it has put to use, which policies its node
// decides with.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { AgentMessageSchema, Hello } from '../proto/gen/castellan/control/v1/control_pb.js'
import { createLatest } from '../runtime/lifecycle.ts'
import type { Services } from './services.ts'
import type { InUse } from './sidecar/in-use.ts'

export type Outgoing = MessageInitShape<typeof AgentMessageSchema>

export interface Words {
  readonly hello: Pick<Hello, 'cursor' | 'epoch' | 'version'>
  /** cursors, each to be told once `told` resolves */
  readonly acknowledgements: AsyncIterable<bigint>
  readonly told: (signal: AbortSignal) => Promise<void>
  readonly inUse: InUse
  readonly services: Pick<Services, 'said' | 'onChange'>
}

const textOf = (value: unknown) =>
  JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part))

export async function* saying(words: Words, signal: AbortSignal): AsyncGenerator<Outgoing> {
  const { hello, acknowledgements, told, inUse, services } = words
  using wake = createLatest<true>(signal)
  let ready: bigint | undefined
  let failure: { readonly error: unknown } | undefined
  let said = ''
  let served = ''

  // beside the rest: workloads that do not read hold up nothing else
  async function acknowledge(): Promise<void> {
    for await (const cursor of acknowledgements) {
      await told(signal)
      ready = cursor
      wake.push(true)
    }
  }
  acknowledge().catch((error: unknown) => {
    failure = { error }
    wake.push(true)
  })

  using _ = inUse.onChange(() => wake.push(true))
  using _services = services.onChange(() => wake.push(true))
  yield { message: { case: 'hello', value: hello } }
  wake.push(true)
  for await (const __ of wake) {
    if (failure !== undefined) throw failure.error
    const cursor = ready
    ready = undefined
    if (cursor !== undefined) yield { message: { case: 'acknowledged', value: { cursor } } }
    const points = [...inUse.points()]
    const text = textOf(points)
    if (text !== said) yield { message: { case: 'policies', value: { points } } }
    said = text
    const value = services.said()
    const now = textOf(value)
    if (now !== served) yield { message: { case: 'services', value } }
    served = now
  }
}
