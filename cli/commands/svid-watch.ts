// castellan svid watch: each change of what the agent gives to a process like this one.

import { Code, ConnectError } from '@connectrpc/connect'
import { z } from 'zod'
import { followStream } from '../../client/stream.ts'
import type { X509SVIDResponse } from '../../proto/gen/spiffe/workload/workloadapi_pb.js'
import { errnoOf } from '../../runtime/errno.ts'
import { explain } from '../../spiffe/errors.ts'
import { answer, type Context, type ExitCode } from '../context.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'
import { untilStopped } from '../run.ts'
import {
  endpointOf,
  selectorsOfThis,
  withoutIdentity,
  workloadApiOptions,
} from '../workload-api.ts'
import { plainX509, x509Text } from '../x509-view.ts'

const options = z.object({ socket: optionalText })
const lost = 'the agent gives no identity to this process any more'

function show(context: Context, response: X509SVIDResponse | undefined): void {
  const now = Date.now()
  const at = new Date(now).toISOString()
  if (response === undefined) {
    answer(context, { event: 'lost', at, reason: lost }, () => `${at} lost: ${lost}\n`)
    return
  }
  const plain = plainX509(response)
  answer(context, { event: 'update', at, ...plain }, () => `${at}\n${x509Text(plain, now)}\n`)
}

/** Says what is wrong on standard error, each thing once until something is heard. */
function createComplaints({ process }: Context) {
  let last = ''
  return {
    reset() {
      last = ''
    },
    add(error: unknown) {
      const isNone = error instanceof ConnectError && error.code === Code.PermissionDenied
      const text = explain(isNone ? withoutIdentity(error.rawMessage, selectorsOfThis()) : error)
      if (text !== last) process.stderr.write(`castellan: ${text}\n`)
      last = text
    },
  }
}

async function watch(context: Context, socket: string | undefined): Promise<ExitCode> {
  const complaints = createComplaints(context)
  const unreachable = Promise.withResolvers<never>()
  let hasHeard = false
  await using source = followStream<X509SVIDResponse, X509SVIDResponse>(
    endpointOf(context, socket),
    { open: (client, signal) => client.fetchX509SVID({}, signal), read: (message) => message },
    {
      onTrouble(error) {
        // a socket where nobody listens is a mistake at the start, and a restart of the agent later
        if (!hasHeard && errnoOf(error) !== 'unknown') return unreachable.reject(error)
        hasHeard = true
        complaints.add(error)
      },
    },
  )
  using _ = source.subscribe((response) => {
    hasHeard = true
    complaints.reset()
    show(context, response)
  })
  // the source gives up where trying again is of no use
  const final = source.ready(new AbortController().signal).then(() => never)
  const failed = Promise.race([unreachable.promise, final])
  await untilStopped(context, { withStdin: false, failed })
  return 0
}

const never = new Promise<never>(() => {})

export function svidWatchCommand(register: Register): void {
  register({
    noun: 'svid',
    verb: 'watch',
    about:
      'Shows what the agent gives to a process like this one, and each change of it, until it is stopped.',
    options: [workloadApiOptions[0]],
    run: (context, given) => watch(context, optionsOf(given, options).socket),
  })
}
