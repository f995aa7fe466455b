// castellan dev
import { z } from 'zod'
import { checkTour } from '../dev/check.ts'
import { demonstrate } from '../dev/demonstrate.ts'
import { flag, optionsOf, type Register } from '../register.ts'

export function devCommands(register: Register): void {
  register({
    verb: 'dev',
    about:
      'Starts everything on this machine, without root: authority, agent, two services behind sidecars, and a live view.',
    options: [['--check', 'the tour by itself: one line per step, exit 0 when all held']],
    async run(context, given) {
      const { check = false } = optionsOf(given, z.object({ check: flag }))
      return check ? checkTour(context) : demonstrate(context)
    },
  })
}
