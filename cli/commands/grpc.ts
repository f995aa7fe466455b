// castellan grpc bootstrap
import { join } from 'node:path'
import { z } from 'zod'
import { grpcBootstrap } from '../../agent/proxies/grpc/bootstrap.ts'
import { answer } from '../context.ts'
import { optionsOf, type Register, text } from '../register.ts'

const path = (option: string) =>
  text.refine((it) => it.startsWith('/'), `${option} is an absolute path`)

const options = z.object({
  socket: path('--socket'),
  files: path('--files'),
  chain: text,
  key: text,
  roots: text,
  refresh: z.coerce.number().int().min(1).max(3600),
  nodeId: text,
})

export function grpcCommands(register: Register): void {
  register({
    noun: 'grpc',
    verb: 'bootstrap',
    about:
      'Prints the bootstrap of a gRPC program that the agent configures, for GRPC_XDS_BOOTSTRAP.',
    example: 'castellan grpc bootstrap --files /var/lib/castellan-files/web > bootstrap.json',
    options: [
      ['--socket <path>', "the agent's public socket", '/run/castellan/agent.sock'],
      ['--files <folder>', '`folder` of its set in `files:` of agent.yaml'],
      ['--chain <name>', 'file of the set that `holds: chain`', 'svid.pem'],
      ['--key <name>', 'file of the set that `holds: key`', 'key.pem'],
      ['--roots <name>', 'file of the set that `holds: bundle`', 'bundle.pem'],
      ['--refresh <seconds>', 'how often the program looks at its files', '10'],
      ['--node-id <id>', 'for people: the agent knows a program by its process', 'castellan'],
    ],
    run(context, given) {
      const { files, chain, key, roots, ...rest } = optionsOf(given, options)
      const current = (name: string) => join(files, 'current', name)
      const bootstrap = grpcBootstrap({
        ...rest,
        ...{ chain: current(chain), key: current(key), roots: current(roots) },
      })
      answer(context, bootstrap, () => JSON.stringify(bootstrap, undefined, 2))
      return Promise.resolve(0)
    },
  })
}
