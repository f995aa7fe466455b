// Durations as Kubernetes' documents write them.
import { z } from 'zod'

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** `5s`, `1.5s`, `100ms`, `1h`; the value is in milliseconds. */
export const duration = z.string().transform((text, context) => {
  const [, amount, unit = ''] = /^(\d{1,6}(?:\.\d{1,3})?)(ms|[smh])$/.exec(text) ?? []
  const size = units[unit]
  if (amount !== undefined && size !== undefined) return Math.round(Number(amount) * size)
  context.addIssue({ code: 'custom', message: 'a duration is a number and a unit, such as 5s' })
  return z.NEVER
})
