// Questions over HTTP/2: Envoy's ext_authz filters, about requests and about connections.
import type { Socket } from 'node:net'
import { undetermined } from '../../decisions/flows.ts'
import { explain } from '../../spiffe/errors.ts'
import { questionIn } from './check-question.ts'
import { createResponses } from './check-response.ts'
import { failure, isMeaningless, isResponse, messageOf } from './grpc.ts'
import type { Asked } from './http2/requests.ts'
import type { Response } from './http2/responses.ts'
import { type Session, serveHttp2 } from './http2/session.ts'
import { createIntern } from './intern.ts'
import { type Judging, judge, type Stopped } from './judge.ts'
import { createOpenSockets } from './open-sockets.ts'
import type { Question } from './question.ts'
import type { Tongue } from './tongues.ts'
import type { Visitor } from './visitor.ts'

const misunderstood: Stopped = {
  ...{ kind: 'stopped', status: 400, outcome: 'rejected', text: 'bad request' },
  ...{ source: undefined, by: undetermined },
}

const limits = { bodyBytes: 1024 * 1024, headerBytes: 16 * 1024, streams: 1000 } as const
/** milliseconds without a question after which a connection is asked to end */
const idle = 600_000

/** Answers what one visitor asks. */
function answering(judging: Judging, respond: ReturnType<typeof createResponses>) {
  const { log, once } = judging
  const intern = createIntern()

  /** A proxy may be told to let pass what cannot be asked: so this is an answer, and no error of the call. */
  function refuse(error: unknown, { process: { pid, uid } }: Visitor): Response {
    if (!isMeaningless(error)) return failure(error)
    const reason = explain(error)
    once(`question ${reason}`, () =>
      log.warn({ pid, uid, reason }, 'a proxy asks what nobody understands'),
    )
    return respond(misunderstood)
  }

  async function answerLate(question: Question, standing: ReturnType<Visitor['standing']>) {
    try {
      return respond(judge(judging, await standing, question))
    } catch (error) {
      return failure(error)
    }
  }

  return (asked: Asked, visitor: Visitor): Response | Promise<Response> => {
    const message = messageOf(asked)
    if (isResponse(message)) return message
    try {
      const question = questionIn(message, intern)
      const standing = visitor.standing()
      if (standing instanceof Promise) return answerLate(question, standing)
      return respond(judge(judging, standing, question))
    } catch (error) {
      return refuse(error, visitor)
    }
  }
}

export function createHttp2(judging: Judging): Tongue {
  const { clock } = judging
  const open = createOpenSockets<Session>(clock)
  const answer = answering(judging, createResponses())
  return {
    serve(socket: Socket, visitor) {
      const session = serveHttp2(socket, {
        ...limits,
        now: () => clock.monotonic(),
        answer: (asked) => answer(asked, visitor),
      })
      socket.setTimeout(idle, session.drain)
      open.add(socket, session)
    },
    get connections() {
      return open.all.size
    },
    async drain() {
      for (const session of open.all.values()) session.drain()
      await open.empty()
    },
  }
}
