// An agent's Control stream: hears everything, acknowledges it, and says which entries a message held.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import {
  AgentMessageSchema,
  AuthorityMessageSchema,
} from '../../proto/gen/castellan/control/v1/control_pb.js'
import { encodeFrame } from '../../runtime/grpc/frame.ts'
import type { AgentConnection } from './connection.ts'

export interface Heard {
  readonly agent: number
  /** of `performance.now()` */
  readonly at: number
  /** ids of what is new or has changed */
  readonly entries: readonly string[]
}

type Outgoing = Parameters<typeof create<typeof AgentMessageSchema>>[1]

const frameOf = (message: NonNullable<Outgoing>) =>
  encodeFrame(toBinary(AgentMessageSchema, create(AgentMessageSchema, message)))

/** Resolves once the first message, which is the whole state, is there; `onHeard` gets all that follow. */
export function followControl(
  connection: AgentConnection,
  agent: number,
  onHeard: (heard: Heard) => void,
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let isFirst = true
  const stream = connection.open('castellan.control.v1.Control/Subscribe', (bytes) => {
    const at = performance.now()
    const { cursor, entries } = fromBinary(AuthorityMessageSchema, bytes)
    stream.write(frameOf({ message: { case: 'acknowledged', value: { cursor } } }))
    if (!isFirst) return onHeard({ agent, at, entries: entries.map(({ id }) => id) })
    isFirst = false
    resolve()
  })
  const hello = { cursor: 0n, epoch: '', version: 'bench' }
  stream.write(frameOf({ message: { case: 'hello', value: hello } }))
  stream.on('error', reject)
  stream.on('close', () => reject(new Error('the authority ended the stream')))
  return promise
}
