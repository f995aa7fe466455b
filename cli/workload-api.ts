// The Workload API as a command speaks to it: as the process that it is itself.
import { statSync } from 'node:fs'
import { userInfo } from 'node:os'
import { resolve } from 'node:path'
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { type Endpoint, endpointFrom } from '../client/endpoint.ts'
import { openTransport, securityHeader } from '../client/transport.ts'
import { AgentAdmin } from '../proto/gen/castellan/workload/v1/admin_pb.js'
import { SpiffeWorkloadAPI } from '../proto/gen/spiffe/workload/workloadapi_pb.js'
import { duration } from '../runtime/config.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Context } from './context.ts'
import { optionalText } from './register.ts'
import { withAgent } from './sockets.ts'

export const atWorkloadApi = z.object({ socket: optionalText, timeout: duration })
export const workloadApiOptions = [
  ['--socket <path>', "the agent's public socket; SPIFFE_ENDPOINT_SOCKET when left out"],
  ['--timeout <duration>', 'how long to wait for the answer', '5s'],
] as const

/** A URI as the standard has it, or the plain path of a socket. Throws ERR_CONFIG. */
export function endpointOf({ process }: Context, socket: string | undefined): Endpoint {
  const isPath = socket !== undefined && !/^[a-z]+:/.test(socket)
  return isPath ? { kind: 'unix', path: resolve(socket) } : endpointFrom(socket, process.env)
}

/** What can be seen from here of what the agent sees. */
export function selectorsOfThis(): string[] {
  try {
    const { uid, gid } = statSync('/proc/self')
    return [`unix:uid:${uid}`, `unix:gid:${gid}`, `unix:user:${userInfo().username}`, 'and others']
  } catch {
    // no /proc, or a user without name: then nothing is said rather than something wrong
    return []
  }
}

/** What the agent sees, where this process may ask its administration socket; else what can be seen from here. */
async function selectorsToldOf(context: Context): Promise<string[]> {
  const { pid, env } = context.process
  if (env.CASTELLAN_AGENT_SOCKET === undefined) return selectorsOfThis()
  try {
    return await withAgent(context, env.CASTELLAN_AGENT_SOCKET, async (transport) => {
      const told = createClient(AgentAdmin, transport).explainProcess(
        { pid },
        { timeoutMs: 10_000 },
      )
      return (await told).selectors
    })
  } catch {
    // most processes may not ask, which is as it should be
    return selectorsOfThis()
  }
}

/** Why there is no identity, and what to do. */
export function withoutIdentity(why: string, selectors: readonly string[]): IdentityError {
  const selector = selectors.find((it) => it.startsWith('unix:uid:')) ?? 'unix:uid:1000'
  const seen = selectors.length === 0 ? [] : [`this process has ${selectors.join(' ')}`]
  const register = `castellan entry create --spiffe-id spiffe://TRUST-DOMAIN/NAME --parent-id AGENT-ID --selector ${selector}`
  const lines = [
    `${why}: no registration entry fits this process`,
    ...seen,
    `register it at the authority: ${register}`,
  ]
  return new IdentityError('ERR_NO_IDENTITY', lines.join('\n  '))
}

async function explained(error: unknown, context: Context): Promise<unknown> {
  if (!(error instanceof ConnectError)) return error
  if (error.code === Code.PermissionDenied && /no identity/.test(error.rawMessage))
    return withoutIdentity(error.rawMessage, await selectorsToldOf(context))
  if (error.code === Code.Unimplemented)
    return new IdentityError(
      'ERR_UNAVAILABLE',
      'the agent does not give this kind of SVID; WIT-SVIDs need `incubating: true` in agent.yaml',
    )
  return error
}

export type WorkloadApi = Client<typeof SpiffeWorkloadAPI>

/** Runs `work` within the time that was given. Throws ERR_NO_IDENTITY, ERR_DEADLINE, or what the call throws. */
export async function withWorkloadApi<T>(
  context: Context,
  { socket, timeout }: z.infer<typeof atWorkloadApi>,
  work: (client: WorkloadApi, options: { readonly signal: AbortSignal }) => Promise<T>,
): Promise<T> {
  using local = openTransport(endpointOf(context, socket), { interceptors: [securityHeader] })
  const late = AbortSignal.timeout(timeout)
  const signal = AbortSignal.any([context.signal, late])
  try {
    return await work(createClient(SpiffeWorkloadAPI, local.transport), { signal })
  } catch (error) {
    if (!late.aborted) throw await explained(error, context)
    const message = `no answer within ${timeout / 1000} s; --timeout is how long to wait`
    throw new IdentityError('ERR_DEADLINE', message)
  }
}

/** The first message of a stream. Throws ERR_UNAVAILABLE when there is none. */
export async function firstOf<T>(stream: AsyncIterable<T>): Promise<T> {
  for await (const message of stream) return message
  throw new IdentityError('ERR_UNAVAILABLE', 'the agent ended the call without an answer')
}
