// castellan envoy bootstrap
import { stringify } from 'yaml'
import { z } from 'zod'
import { envoyBootstrap } from '../../agent/proxies/envoy/bootstrap.ts'
import { drainArguments } from '../../agent/proxies/envoy/drain.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import { answer } from '../context.ts'
import { flag, optionsOf, type Register, text } from '../register.ts'

const path = text.refine((it) => it.startsWith('/'), 'is no absolute path')

const options = z.object({
  socket: path,
  admin: path,
  nodeId: text,
  stateOfTheWorld: flag,
})

export function envoyCommands(register: Register): void {
  register({
    noun: 'envoy',
    verb: 'bootstrap',
    about: 'Prints the bootstrap of an Envoy that the agent drives by ADS.',
    example:
      'castellan envoy bootstrap --socket /run/castellan/agent.sock > envoy.yaml && envoy -c envoy.yaml --drain-time-s 1',
    options: [
      ['--socket <path>', "the agent's public socket", '/run/castellan/agent.sock'],
      ['--admin <path>', "where Envoy's administration listens", '/run/castellan/envoy-admin.sock'],
      ['--node-id <id>', 'for people: the agent knows an Envoy by its process', 'castellan'],
      ['--state-of-the-world', 'the older variant of xDS instead of delta'],
    ],
    run(context, given) {
      const { socket, admin, nodeId, stateOfTheWorld = false } = optionsOf(given, options)
      if (socket === admin) throw new IdentityError('ERR_BAD_REQUEST', '--admin: is the --socket')
      const bootstrap = envoyBootstrap({ socket, admin, nodeId, delta: !stateOfTheWorld })
      const start = `# envoy -c FILE ${drainArguments.join(' ')}: so soon ends what a denied caller has open`
      answer(context, bootstrap, () => `${start}\n${stringify(bootstrap).trimEnd()}`)
      return Promise.resolve(0)
    },
  })
}
