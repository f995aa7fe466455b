// castellan token create
import { createClient } from '@connectrpc/connect'
import { z } from 'zod'
import { agentIdOfToken } from '../../ca/attestors/join-token.ts'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { Bundle } from '../../proto/gen/spire/api/server/bundle/v1/bundle_pb.js'
import { parseTrustDomain } from '../../spiffe/id.ts'
import { answer } from '../context.ts'
import { idToMessage } from '../messages.ts'
import { optionalText, optionsOf, type Register, whole } from '../register.ts'
import { socketOption, withAuthority } from '../sockets.ts'

const options = z.object({ ttl: whole, spiffeId: optionalText, socket: optionalText })

export function tokenCommands(register: Register): void {
  register({
    noun: 'token',
    verb: 'create',
    about:
      'Makes a one-time join token for an agent. It is printed once and stored as a hash only.',
    options: [
      ['--ttl <seconds>', 'how long it can be used', '600'],
      ['--spiffe-id <id>', 'an additional identity for the agent, to be the parent of entries'],
      socketOption,
    ],
    async run(context, given) {
      const { ttl, spiffeId, socket } = optionsOf(given, options)
      return withAuthority(context, socket, async (transport) => {
        const agentId = spiffeId === undefined ? {} : { agentId: idToMessage(spiffeId) }
        const { value, expiresAt } = await createClient(Agent, transport).createJoinToken({
          ttl: ttl ?? 0,
          ...agentId,
        })
        const { trustDomain } = await createClient(Bundle, transport).getBundle({ outputMask: {} })
        const joined = agentIdOfToken(parseTrustDomain(trustDomain), value)
        const expires = new Date(Number(expiresAt) * 1000).toISOString()
        answer(
          context,
          { token: value, agentId: joined, expiresAt: expires },
          () => `token:    ${value}\nagent ID: ${joined}\nexpires:  ${expires}`,
        )
        return 0
      })
    },
  })
}
