// castellan doctor: what is wrong with a node or an authority, each with its remedy.
import { existsSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { type AgentConfig, loadAgentConfig } from '../../agent/config.ts'
import { type CaConfig, loadCaConfig } from '../../ca/config.ts'
import { openTransport } from '../../client/transport.ts'
import { Authorities } from '../../proto/gen/castellan/authority/v1/authorities_pb.js'
import { AgentAdmin } from '../../proto/gen/castellan/workload/v1/admin_pb.js'
import { type Address, addressText } from '../../runtime/config.ts'
import { selfTest } from '../../runtime/self-test.ts'
import { explain, IdentityError } from '../../spiffe/errors.ts'
import { answer, type Context, table } from '../context.ts'
import { optionalText, optionsOf, type Register } from '../register.ts'

interface Finding {
  readonly check: string
  readonly result: 'ok' | 'wrong'
  /** what was found */
  readonly found: string
  /** what to do; empty when nothing is */
  readonly remedy: string
}

interface Check {
  readonly name: string
  readonly remedy: string
  /** Says what it found; throws what is wrong. */
  readonly look: () => Promise<string> | string
}

const patience = 5000

async function judge({ name, remedy, look }: Check): Promise<Finding> {
  try {
    return { check: name, result: 'ok', found: await look(), remedy: '' }
  } catch (error) {
    return { check: name, result: 'wrong', found: explain(error), remedy }
  }
}

function reach(to: Address | { readonly path: string }): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connect({ ...to, timeout: patience })
  socket.once('connect', resolve)
  socket.once('error', reject)
  socket.once('timeout', () => reject(new Error(`no answer in ${patience / 1000} s`)))
  return promise.finally(() => socket.destroy())
}

function privateState(folder: string): string {
  if (!existsSync(folder)) throw new Error(`${folder} does not exist`)
  const mode = statSync(folder).mode & 0o777
  if ((mode & 0o077) !== 0)
    throw new Error(`${folder} can be entered by others (${mode.toString(8)})`)
  return folder
}

const everywhere: readonly Check[] = [
  {
    name: 'Node',
    remedy: 'start castellan by bin/castellan, which finds the Node that it was tested with',
    async look() {
      await selfTest()
      return process.version
    },
  },
]

/** A certificate that is not valid yet, or a life that is over, is mostly a clock. */
function clockOf(notAfter: bigint, now: number): string {
  const left = Number(notAfter) - now
  if (notAfter === 0n) throw new Error('this node has not joined yet')
  if (left <= 0) throw new Error(`the agent's certificate ended ${Math.round(-left / 1000)} s ago`)
  return `the agent's certificate is good for ${Math.round(left / 1000)} s`
}

function ofAgent(config: AgentConfig): readonly Check[] {
  const ask = async () => {
    using admin = openTransport({ kind: 'unix', path: config.adminSocket })
    return await createClient(AgentAdmin, admin.transport).getStatus({}, { timeoutMs: patience })
  }
  const { address } = config.authority
  return [
    {
      name: 'state folder',
      remedy: `chmod 700 ${config.state}; the agent makes it at its first start`,
      look: () => privateState(config.state),
    },
    ...address.map((one) => ({
      name: `authority ${addressText(one)}`,
      remedy: 'is the authority running, and does a firewall stand between? castellan doctor there',
      look: async () => {
        await reach(one)
        return 'reachable'
      },
    })),
    {
      name: 'Workload API',
      remedy: 'start the agent: castellan agent run --config FILE',
      async look() {
        await reach({ path: config.socket })
        return config.socket
      },
    },
    {
      name: 'connection',
      remedy: "the agent's log says why; it tries again by itself",
      async look() {
        const { connected, trouble } = await ask()
        if (!connected) throw new Error(trouble)
        return 'the agent follows its authority'
      },
    },
    {
      name: 'clock and certificate',
      remedy:
        'compare the clocks of this node and of the authority; then join again with a new token',
      look: async () => clockOf((await ask()).agentNotAfter, Date.now()),
    },
    {
      name: 'disk',
      remedy:
        'make room: until then the agent serves from memory, and a restart without authority serves nobody',
      async look() {
        const { diskTrouble } = await ask()
        if (diskTrouble !== '') throw new Error(diskTrouble)
        return 'what the agent knows is on it'
      },
    },
    {
      name: 'identities',
      remedy:
        'castellan agent explain --pid PID says what a process is and what nearly applies to it',
      async look() {
        const { identities } = await ask()
        if (identities.length === 0) throw new Error('no entry of this node has an SVID yet')
        return `${identities.length} held`
      },
    },
  ]
}

function ofAuthority(config: CaConfig): readonly Check[] {
  const path = config.socket ?? join(config.state, 'ca.sock')
  return [
    {
      name: 'state folder',
      remedy: `chmod 700 ${config.state}; castellan ca init makes it`,
      look: () => privateState(config.state),
    },
    {
      name: `agents' port ${addressText(config.listen)}`,
      remedy: 'start the authority: castellan ca run --config FILE',
      async look() {
        await reach(config.listen)
        return 'reachable'
      },
    },
    {
      name: 'readiness',
      remedy: 'docs/operations.md says what to do when it cannot sign or store',
      async look() {
        const url = `http://${addressText(config.operations)}/readyz`
        const response = await fetch(url, { signal: AbortSignal.timeout(patience) })
        if (response.status !== 200) throw new Error((await response.text()).trim())
        return 'it can sign and store'
      },
    },
    {
      name: 'authorities',
      remedy:
        'castellan authority status shows who lags; castellan authority activate --force does not wait',
      async look() {
        using local = openTransport({ kind: 'unix', path })
        const client = createClient(Authorities, local.transport)
        const { authorities } = await client.getStatus({}, { timeoutMs: patience })
        const active = authorities.filter(({ phase }) => phase === 'active').map(({ kind }) => kind)
        if (!active.includes('x509')) throw new Error('no X.509 authority is active')
        return `active: ${[...new Set(active)].join(', ')}`
      },
    },
  ]
}

const files = z.object({ agent: optionalText, ca: optionalText })

async function findings(context: Context, given: z.infer<typeof files>) {
  const checks = [
    ...everywhere,
    ...(given.agent === undefined ? [] : ofAgent(loadAgentConfig(given.agent))),
    ...(given.ca === undefined ? [] : ofAuthority(loadCaConfig(given.ca))),
  ]
  const found: Finding[] = []
  for (const check of checks) {
    context.signal.throwIfAborted()
    found.push(await judge(check))
  }
  return found
}

function text(found: readonly Finding[]): string {
  const rows = found.map(({ check, result, found: what }) => [result.toUpperCase(), check, what])
  const remedies = found
    .filter(({ remedy }) => remedy !== '')
    .map(({ check, remedy }) => `${check}: ${remedy}`)
  return [table([['', 'CHECK', 'FOUND'], ...rows]), ...remedies].join('\n')
}

export function doctorCommands(register: Register): void {
  register({
    verb: 'doctor',
    about: 'Looks for what is wrong on a node or at an authority; says what to do about it.',
    options: [
      ['--agent <file>', "this node's agent.yaml"],
      ['--ca <file>', "this authority's ca.yaml"],
    ],
    async run(context, given) {
      const wanted = optionsOf(given, files)
      if (wanted.agent === undefined && wanted.ca === undefined)
        throw new IdentityError('ERR_BAD_REQUEST', 'which one? Give --agent FILE or --ca FILE')
      const found = await findings(context, wanted)
      answer(context, found, () => text(found))
      return found.every(({ result }) => result === 'ok') ? 0 : 1
    },
  })
}
