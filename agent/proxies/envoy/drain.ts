// How long an Envoy lets go on what it was told to close: its command line alone says so.

/** seconds */
const usual = 600
const most = 1

/** The start of Envoy that `castellan agent status` has nothing to say about. */
export const drainArguments = ['--drain-time-s', String(most)] as const

function secondsIn(args: readonly string[]): number {
  const [name] = drainArguments
  const at = args.findIndex((it) => it === name || it.startsWith(`${name}=`))
  if (at < 0) return usual
  return Number(args[at] === name ? args[at + 1] : args[at]?.slice(name.length + 1))
}

/** What a person should know of an Envoy that was started with these arguments; they are its own claim. */
export function drainRemarks(args: readonly string[]): readonly string[] {
  const seconds = secondsIn(args)
  if (args.length === 0 || seconds <= most) return []
  return [
    `what is open of a caller who is denied ends after ${seconds} s: start Envoy with ${drainArguments.join(' ')}`,
  ]
}
