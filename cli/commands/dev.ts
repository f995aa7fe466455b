// castellan dev
import { z } from 'zod'
import { checkTour } from '../dev/check.ts'
import { demonstrate } from '../dev/demonstrate.ts'
import { proxiesOf, proxyKinds } from '../dev/proxies.ts'
import { flag, optionsOf, type Register } from '../register.ts'

const options = z.object({
  check: flag,
  proxy: z.enum(proxyKinds, `is one of ${proxyKinds.join(', ')}`),
})

export function devCommands(register: Register): void {
  register({
    verb: 'dev',
    about:
      'Starts everything on this machine, without root: authority, agent, two services behind sidecars, and a live view.',
    options: [
      ['--check', 'the tour by itself: one line per step, exit 0 when all held'],
      [
        '--proxy <kind>',
        'what stands in front of the services: embedded, the sidecar of this program, or envoy, which the agent drives',
        'embedded',
      ],
    ],
    async run(context, given) {
      const { check = false, proxy } = optionsOf(given, options)
      const { env, stderr } = context.process
      const tell = (line: string) => void stderr.write(`${line}\n`)
      const proxies = await proxiesOf(proxy, { env, tell, signal: context.signal })
      return check ? checkTour(context, proxies) : demonstrate(context, proxies)
    },
  })
}
