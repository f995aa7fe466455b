// `--wait`: until every connected enforcement point has put a policy version to use, with the laggards named.
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect'
import type { EnforcementPoint } from '../../proto/gen/castellan/policy/v1/enforcement_pb.js'
import {
  type EnforcementStatus,
  Policies,
} from '../../proto/gen/castellan/policy/v1/policies_pb.js'
import { duration } from '../../runtime/config.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context, type ExitCode } from '../context.ts'
import { flag } from '../register.ts'

export const waitOptions = [
  ['--wait', 'until every connected agent and sidecar decides with it; 3 when some do not in time'],
  ['--timeout <duration>', 'how long to wait, such as 90s', '30s'],
] as const

/** The fields of `waitOptions`, for the schema of a command. */
export const waiting = { wait: flag, timeout: duration }

export interface Waiting {
  readonly wait?: boolean | undefined
  /** milliseconds */
  readonly timeout: number
}

const shownLaggards = 3

function nameOf({ agentId, spiffeId, pid, version, refusal }: EnforcementPoint): string {
  const who = spiffeId === '' ? agentId : `${spiffeId} (process ${pid} at ${agentId})`
  const has = version === 0n ? 'has no version yet' : `has version ${version}`
  return refusal === '' ? `${who} ${has}` : `${who} ${has}; it refused: ${refusal}`
}

function progressText({ version, points, acknowledged, laggards }: EnforcementStatus): string {
  const counted = `${acknowledged} of ${points} enforcement points decide with version ${version}`
  if (laggards.length === 0) return counted
  const named = laggards.slice(0, shownLaggards).map(({ agentId, spiffeId }) => spiffeId || agentId)
  const more = points - acknowledged - named.length
  return `${counted}; waiting for ${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

const isDone = ({ points, acknowledged }: EnforcementStatus) => acknowledged === points

/** The last status before it was done or time was up. Throws what is wrong with the authority. */
async function follow(
  { process: { stderr }, isJson, signal }: Context,
  transport: Transport,
  { version, timeout }: { readonly version: bigint; readonly timeout: number },
): Promise<EnforcementStatus | undefined> {
  let last: EnforcementStatus | undefined
  try {
    const client = createClient(Policies, transport)
    const statuses = client.watchEnforcement({ version }, { signal, timeoutMs: timeout })
    for await (const status of statuses) {
      last = status
      if (isDone(status)) break
      if (!isJson) stderr.write(`${progressText(status)}\n`)
    }
  } catch (error) {
    if (ConnectError.from(error).code !== Code.DeadlineExceeded) throw error
  }
  return last
}

const plain = ({ agentId, spiffeId, pid, version, refusal }: EnforcementPoint) => ({
  ...{ agentId, spiffeId, pid, version, refusal },
})

export interface Done {
  readonly version: bigint
  /** for `-o json`, the version apart */
  readonly fields: object
  /** for people */
  readonly text: string
}

/**
 * Answers with `done`, after waiting where that was asked for. Throws ERR_UNAVAILABLE with the laggards when
 * time is up.
 */
export async function answerOnceEnforced(
  context: Context,
  transport: Transport,
  done: Done,
  { wait = false, timeout }: Waiting,
): Promise<ExitCode> {
  const { version, fields, text } = done
  if (!wait) {
    answer(context, { version, ...fields }, () => text)
    return 0
  }
  const status = await follow(context, transport, { version, timeout })
  const { points = 0, acknowledged = 0, laggards = [] } = status ?? {}
  const counted = { points, acknowledged, laggards: laggards.map(plain) }
  const isEnforced = status !== undefined && isDone(status)
  answer(context, { version, ...fields, ...counted }, () =>
    !isEnforced
      ? text
      : points === 0
        ? `${text}; no agent is connected that could decide with it`
        : `${text}; ${points} of ${points} enforcement points decide with it`,
  )
  if (isEnforced) return 0
  const problem = `version ${version} is in force, but after ${timeout / 1000} s only ${acknowledged} of ${points} enforcement points decide with it`
  throw new IdentityError('ERR_UNAVAILABLE', [problem, ...laggards.map(nameOf)].join('\n  '))
}
