// The command line: nouns and verbs, and the one place where errors become exit codes.
import { Command, CommanderError } from 'commander'
import { IdentityError } from '../spiffe/errors.ts'
import type { CliProcess, Context, ExitCode } from './context.ts'
import type { Register } from './register.ts'

/** Each noun and what loads its commands: only the one that is asked for is loaded. */
export type Groups = Readonly<Record<string, () => Promise<(register: Register) => void>>>

function contextOf(process: CliProcess, isJson: boolean): Context {
  const stop = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stop.abort(new IdentityError('ERR_CANCELLED', `stopped by ${name}`)))
  }
  return { process, signal: stop.signal, isJson }
}

function createProgram({ stdout, stderr }: CliProcess): Command {
  return new Command('castellan')
    .description(
      'Short-lived SPIFFE identities for every workload, and a decision for every request.',
    )
    .version('0.1.0')
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: (text) => void stderr.write(text),
    })
    .exitOverride()
    .showHelpAfterError('(add --help for what is possible)')
}

/** What an option that may stand several times collects. */
const andMore = (value: string, before: readonly string[]) => [...before, value]

/** Adds commands to `program`; `done` is told the exit code of the one that ran. */
function registerOn(
  program: Command,
  process: CliProcess,
  done: (code: ExitCode) => void,
): Register {
  const nouns = new Map<string, Command>()

  function nounOf(name: string): Command {
    const known = nouns.get(name)
    if (known !== undefined) return known
    const made = program
      .command(name)
      .description(descriptions[name] ?? '')
      .exitOverride()
    nouns.set(name, made)
    return made
  }

  return ({ noun, verb, about, example, options = [], positional = [], run }) => {
    const parent = noun === undefined ? program : nounOf(noun)
    const command = parent.command(verb).description(about).exitOverride()
    if (example !== undefined) command.addHelpText('after', `\nExample:\n  ${example}`)
    command.option('-o, --output <format>', 'text or json', 'text')
    for (const name of positional) command.argument(name)
    for (const [flags, description, fallback] of options) {
      if (Array.isArray(fallback)) command.option(flags, description, andMore, fallback)
      else command.option(flags, description, fallback)
    }
    command.action(async (...given: unknown[]) => {
      const values: Record<string, unknown> = command.opts()
      const { output } = values
      if (output !== 'text' && output !== 'json')
        command.error("error: --output is 'text' or 'json'")
      const args = given
        .slice(0, positional.length)
        .flat() // <name...> comes as a list
        .map((it) => (it === undefined ? undefined : String(it)))
      done(await run(contextOf(process, output === 'json'), { values, args }))
    })
  }
}

/** Parses the arguments, runs the command, and returns the exit code of design.md §12. */
export async function runProgram(process: CliProcess, groups: Groups): Promise<ExitCode> {
  let exitCode: ExitCode = 0
  const program = createProgram(process)
  const register = registerOn(program, process, (code) => {
    exitCode = code
  })
  try {
    const wanted = process.argv[2] ?? ''
    const load = Object.hasOwn(groups, wanted) ? groups[wanted] : undefined
    if (load !== undefined) (await load())(register)
    else
      for (const [name, about] of Object.entries(descriptions))
        program.command(name).description(about)
    await program.parseAsync([...process.argv])
    return exitCode
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    const { failureOf } = await import('./failure.ts')
    const failure = failureOf(error)
    process.stderr.write(`castellan: ${failure.message}\n`)
    return failure.exitCode
  }
}

const descriptions: Readonly<Record<string, string>> = {
  dev: 'everything on this machine, with a live view; --check for the tour',
  call: 'a request between two services of the running demonstration',
  ca: 'the authority: prepare it, run it',
  agent: 'the node agent: run it, ask it; at the authority: list, show, ban, delete agents',
  proxy: 'the embedded mTLS sidecar, and what each proxy would make of a spec',
  envoy: 'an Envoy that the agent drives',
  token: 'join tokens for agents',
  entry: 'registration entries: which workloads get which identity',
  authority: 'the signing keys: which sign, which come next, which are no longer trusted',
  bundle: 'the trust bundle, and those of other trust domains',
  federation: 'other trust domains: where their bundles come from',
  deny: 'what is believed no more: identities, certificates, authorities',
  issued: 'the certificates that were issued',
  doctor: 'what is wrong on a node or at an authority, and what to do about it',
  inspect: 'what a SPIFFE ID, certificate, bundle, token or request is, and which rules it breaks',
  svid: 'certificates and tokens that prove an identity: fetch, watch, write to files, verify',
  policy: 'authorization policies and the denials they led to',
  config: 'configuration files',
}
