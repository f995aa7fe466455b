// Which authority and which agent a command speaks to: the one named, else the demonstration that runs.
import type { Transport } from '@connectrpc/connect'
import { z } from 'zod'
import { openTransport } from '../client/transport.ts'
import { IdentityError } from '../spiffe/errors.ts'
import type { Context, ExitCode } from './context.ts'
import { readDevAddress } from './dev/address.ts'
import { optionalText } from './register.ts'

/** The options of a command that needs nothing but the authority. */
export const atAuthority = z.object({ socket: optionalText })
export const socketOption = [
  '--socket <path>',
  "the authority's local socket (CASTELLAN_CA_SOCKET, else that of a running castellan dev)",
] as const
export const adminSocketOption = [
  '--admin-socket <path>',
  "the agent's admin socket (CASTELLAN_AGENT_SOCKET, else that of a running castellan dev)",
] as const

function fromDev(
  context: Context,
  which: 'caSocket' | 'adminSocket',
  variable: string,
  flag: string,
): string {
  const { env } = context.process
  const path = env[variable] ?? readDevAddress(env)?.[which]
  if (path !== undefined) return path
  throw new IdentityError(
    'ERR_BAD_REQUEST',
    `which socket? Give ${flag}, set ${variable}, or start castellan dev`,
  )
}

/** Runs `work` over the authority's local socket. */
export async function withAuthority<T extends ExitCode | object | undefined>(
  context: Context,
  socket: string | undefined,
  work: (transport: Transport) => Promise<T>,
): Promise<T> {
  const path = socket ?? fromDev(context, 'caSocket', 'CASTELLAN_CA_SOCKET', '--socket')
  using local = openTransport({ kind: 'unix', path })
  return await work(local.transport)
}

/** Runs `work` over the agent's admin socket. */
export async function withAgent<T extends ExitCode | object | undefined>(
  context: Context,
  socket: string | undefined,
  work: (transport: Transport) => Promise<T>,
): Promise<T> {
  const path = socket ?? fromDev(context, 'adminSocket', 'CASTELLAN_AGENT_SOCKET', '--admin-socket')
  using local = openTransport({ kind: 'unix', path })
  return await work(local.transport)
}
