// envoy.service.auth.v3.Authorization: what Envoy's ext_authz filters ask, for HTTP requests and for connections.

import { undetermined } from '../../decisions/flows.ts'
import { Authorization } from '../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { type Prepared, type Service, service } from '../../runtime/grpc/service.ts'
import { explain, hasCode } from '../../spiffe/errors.ts'
import { questionOf } from './check-request.ts'
import { createResponses } from './check-response.ts'
import { type Judging, judge, type Stopped } from './judge.ts'
import type { Question } from './question.ts'
import type { Standing } from './standing.ts'
import type { Visitor } from './visitor.ts'

const misunderstood: Stopped = {
  ...{ kind: 'stopped', status: 400, outcome: 'rejected', text: 'bad request' },
  ...{ source: undefined, by: undetermined },
}

export function authorizationService(judging: Judging): Service<Visitor> {
  const { log, once } = judging
  const respond = createResponses()

  function answer(standing: Standing, question: Question): Prepared {
    return respond(judge(judging, standing, question))
  }

  /** A proxy may be told to let pass what cannot be asked: so this is an answer, and no error of the call. */
  function refuse(error: unknown, { process: { pid, uid } }: Visitor): Prepared {
    if (!hasCode(error, 'ERR_BAD_REQUEST')) throw error
    const reason = explain(error)
    once(`question ${reason}`, () =>
      log.warn({ pid, uid, reason }, 'a proxy asks what nobody understands'),
    )
    return respond(misunderstood)
  }

  return service<typeof Authorization, Visitor>(Authorization, {
    check(request, { peer }) {
      try {
        const question = questionOf(request)
        const standing = peer.standing()
        if (!(standing instanceof Promise)) return answer(standing, question)
        return standing.then((it) => answer(it, question))
      } catch (error) {
        return refuse(error, peer)
      }
    },
  })
}
