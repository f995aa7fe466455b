// castellan policy eval: decisions in batches, offline (design.md §12).

import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { addAbortSignal } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { type Answer, answerLine, type Evaluator } from '../../policies/cases/evaluate.ts'
import { errnoOf } from '../../runtime/errno.ts'
import { IdentityError } from '../../spiffe/errors.ts'
import type { Context, ExitCode } from '../context.ts'
import { createEvaluator } from '../policy/evaluator.ts'
import { compileGiven, givenPolicies, policyOptions } from '../policy/given.ts'
import { optionsOf, type Register, text } from '../register.ts'

const options = givenPolicies.extend({
  requests: text,
})

const wanted = 64 * 1024
const chunkSize = 256 * 1024
/** raw requests that are read at a time */
const together = 32

/** The lines of a file, as many at a time as were read of it: what waits for each one costs more than deciding it. */
async function* linesOf(
  { process: { stdin }, signal }: Context,
  file: string,
): AsyncGenerator<readonly string[]> {
  const input = file === '-' ? stdin : createReadStream(file, { highWaterMark: chunkSize })
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of addAbortSignal(signal, input)) {
    const lines = (rest + decoder.write(chunk)).split('\n')
    rest = lines.pop() ?? ''
    yield lines
  }
  yield [rest + decoder.end()]
}

function textFor({ isJson }: Context, answer: Answer): string {
  if (isJson) return JSON.stringify(answer)
  const { id, decision, status, reason } = answer
  return `${id ?? '-'}  ${decision}${status === undefined ? '' : ` ${status}`}  ${reason}`
}

/** Writes answers in their order: what has gathered when it is enough, and waits while nobody reads. */
function createOutput(context: Context) {
  const { stdout } = context.process
  let gathered: string[] = []
  let size = 0
  const waiting: (Answer | Promise<Answer>)[] = []

  async function settle(): Promise<void> {
    for (const answer of waiting.splice(0)) write(await answer)
  }

  function write(answer: Answer): void {
    const text = textFor(context, answer)
    gathered.push(text)
    size += text.length
  }

  async function flush(): Promise<void> {
    await settle()
    if (size === 0) return
    const ready = `${gathered.join('\n')}\n`
    gathered = []
    size = 0
    if (!stdout.write(ready)) await once(stdout, 'drain')
  }

  return {
    flush,
    /** Undefined where nothing has to be waited for. */
    put(answer: Answer | Promise<Answer>): Promise<void> | undefined {
      if (answer instanceof Promise || waiting.length > 0) waiting.push(answer)
      else write(answer)
      if (waiting.length >= together) return settle()
      return size >= wanted ? flush() : undefined
    },
  }
}

async function evaluateAll(context: Context, file: string, evaluator: Evaluator): Promise<void> {
  const output = createOutput(context)
  const known = new Map()
  try {
    for await (const lines of linesOf(context, file)) {
      for (const line of lines) {
        if (line.trim() === '') continue
        const full = output.put(answerLine(line, evaluator, known))
        if (full !== undefined) await full
      }
      // whoever asks line by line waits for these
      await output.flush()
    }
  } catch (cause) {
    if (context.signal.aborted) throw new IdentityError('ERR_CANCELLED', 'stopped', { cause })
    throw new IdentityError('ERR_BAD_REQUEST', `cannot read ${file} (${errnoOf(cause)})`, { cause })
  }
}

export function policyEvalCommand(register: Register): void {
  register({
    noun: 'policy',
    verb: 'eval',
    about: 'Decides requests by policies in files, one JSON object per line in and out, offline.',
    options: [
      ...policyOptions,
      ['--requests <file>', 'one request per line; - is standard input', '-'],
    ],
    async run(context, given): Promise<ExitCode> {
      const { requests, ...files } = optionsOf(given, options)
      using evaluator = createEvaluator(await compileGiven(files, context))
      await evaluateAll(context, requests, evaluator)
      return 0
    },
  })
}
