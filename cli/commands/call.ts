// castellan call
import { createClient } from '@connectrpc/connect'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import type { Denial } from '../../proto/gen/castellan/workload/v1/sidecar_pb.js'
import { systemClock } from '../../runtime/clock.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context } from '../context.ts'
import { readDevAddress } from '../dev/address.ts'
import { call } from '../dev/traffic.ts'
import type { Register } from '../register.ts'
import { withAgent } from '../sockets.ts'
import { denialText } from './policy.ts'

const patience = 2000

/** The denial of this request, once the sidecar has reported it. */
async function denialAfter(
  context: Context,
  socket: string,
  since: number,
  destination: string,
  method: string,
): Promise<Denial | undefined> {
  return withAgent(context, socket, async (transport) => {
    const client = createClient(AgentAdmin, transport)
    while (systemClock.now() < since + patience) {
      const { denials } = await client.listDenials({ limit: 20, destination })
      const found = denials.find((it) => Number(it.at) >= since - 50 && it.method === method)
      if (found !== undefined) return found
      await systemClock.sleep(50, { signal: context.signal })
    }
    return undefined
  })
}

export function callCommands(register: Register): void {
  register({
    verb: 'call',
    about:
      "A request from one service of the running demonstration to another, through the caller's sidecar.",
    positional: ['<from>', '<to>', '<method>', '<path>'],
    async run(context, given) {
      const [from = '', to = '', method = '', path = ''] = given.args
      const dev = readDevAddress(context.process.env)
      if (dev === undefined)
        throw new IdentityError(
          'ERR_UNAVAILABLE',
          'no demonstration is running; start one with: castellan dev',
        )
      const url = dev.calls[from]?.[to]
      if (url === undefined) {
        const known = Object.entries(dev.calls).flatMap(([a, others]) =>
          Object.keys(others).map((b) => `${a} ${b}`),
        )
        throw new IdentityError(
          'ERR_BAD_REQUEST',
          `no way from ${JSON.stringify(from)} to ${JSON.stringify(to)}; there is: ${known.join(', ')}`,
        )
      }
      if (!path.startsWith('/'))
        throw new IdentityError(
          'ERR_BAD_REQUEST',
          `path ${JSON.stringify(path)} does not start with a slash`,
        )
      const since = systemClock.now()
      const reply = await call(url, method.toUpperCase(), path, { signal: context.signal })
      const isDenied = reply.status === 403
      const denial = isDenied
        ? await denialAfter(
            context,
            dev.adminSocket,
            since,
            dev.identities[to] ?? '',
            method.toUpperCase(),
          )
        : undefined
      const why =
        denial === undefined
          ? {}
          : {
              policy: denial.policy,
              rule: denial.rule,
              reason: denial.reason,
              remedy: denial.remedy,
            }
      answer(
        context,
        { status: reply.status, peer: reply.peer ?? null, body: reply.body, ...why },
        () =>
          [
            `${reply.status}  from ${reply.peer ?? 'nobody'}`,
            reply.body.trimEnd(),
            ...(denial === undefined
              ? []
              : ['', `why (from the agent's admin socket): ${denialText(denial)}`]),
          ].join('\n'),
      )
      return reply.status < 400 ? 0 : 1
    },
  })
}
