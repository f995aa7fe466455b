// castellan agent list, show, ban, delete: at the authority; what is run and asked at the node is beside this
import { type Client, createClient } from '@connectrpc/connect'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import type { Agent as AgentMessage } from '../../proto/gen/spire/api/types/agent_pb.js'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer, table } from '../context.ts'
import { allPages, idText, idToMessage, timeText } from '../messages.ts'
import { type Given, optionsOf, type Register } from '../register.ts'
import { atAuthority, socketOption, withAuthority } from '../sockets.ts'
import { agentFlowsCommand } from './agent-flows.ts'
import { agentNodeCommands } from './agent-node.ts'
import { agentRunCommand } from './agent-run.ts'

function plain(agent: AgentMessage) {
  return {
    id: idText(agent.id),
    attestation: agent.attestationType,
    serial: agent.x509svidSerialNumber,
    expiresAt: timeText(agent.x509svidExpiresAt),
    banned: agent.banned,
    canReattest: agent.canReattest,
    version: agent.agentVersion,
  }
}

function listAgents(client: Client<typeof Agent>): Promise<AgentMessage[]> {
  return allPages(
    (pageToken) => client.listAgents({ pageSize: 1000, pageToken }),
    ({ agents }) => agents,
  )
}

function idArgument({ args }: Given) {
  const [id] = args
  if (id === undefined)
    throw new IdentityError(
      'ERR_BAD_REQUEST',
      'which agent? Give its SPIFFE ID; castellan agent list shows them',
    )
  return idToMessage(id)
}

export function agentCommands(register: Register): void {
  agentRunCommand(register)
  agentNodeCommands(register)
  agentFlowsCommand(register)
  writeVerbs(register)
  register({
    noun: 'agent',
    verb: 'list',
    about: 'Lists attested agents.',
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const agents = (await listAgents(createClient(Agent, transport))).map(plain)
        answer(context, agents, () =>
          agents.length === 0
            ? 'no agents; make a token with: castellan token create'
            : table([
                ['ID', 'ATTESTED BY', 'EXPIRES', 'STATE'],
                ...agents.map((it) => [
                  it.id,
                  it.attestation,
                  it.expiresAt,
                  it.banned ? 'banned' : 'active',
                ]),
              ]),
        )
        return 0
      }),
  })
  register({
    noun: 'agent',
    verb: 'show',
    about: 'Shows one agent.',
    positional: ['<spiffe-id>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const agent = plain(
          await createClient(Agent, transport).getAgent({ id: idArgument(given) }),
        )
        answer(context, agent, () =>
          Object.entries(agent)
            .map(([name, value]) => `${name.padEnd(14)}${value}`)
            .join('\n'),
        )
        return 0
      }),
  })
}

function writeVerbs(register: Register): void {
  register({
    noun: 'agent',
    verb: 'ban',
    about: 'Bans an agent: its certificate is refused at once and it cannot join again.',
    positional: ['<spiffe-id>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const id = idArgument(given)
        await createClient(Agent, transport).banAgent({ id })
        answer(context, { banned: idText(id) }, () => `banned ${idText(id)}`)
        return 0
      }),
  })
  register({
    noun: 'agent',
    verb: 'delete',
    about: 'Forgets an agent: it has to join again.',
    positional: ['<spiffe-id>'],
    options: [socketOption],
    run: (context, given) =>
      withAuthority(context, optionsOf(given, atAuthority).socket, async (transport) => {
        const id = idArgument(given)
        await createClient(Agent, transport).deleteAgent({ id })
        answer(context, { deleted: idText(id) }, () => `deleted ${idText(id)}`)
        return 0
      }),
  })
}
