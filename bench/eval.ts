// bench eval: requests decided by `castellan policy eval`, as a process of its own: those that are given in parts
// and those that are given as bytes. Its start is measured apart and taken off. The physical limit is JSON alone:
// each line parsed, and its answer written.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { testFolder } from '../test/support/folder.ts'
import { type Bench, type BenchResult, fact, interleave, judge } from './measure.ts'

const root = join(import.meta.dirname, '..')
const policies = join(root, 'policies/examples/payments.yaml')
const [parsed, raw] = [100_000, 5000]
const rounds = 5
const goals = { parsed: 50_000, raw: 3000 } as const

const callers = ['shop/sa/checkout', 'operations/sa/probe', 'payments/sa/ledger', 'shop/sa/web']
const paths = ['/payments', '/payments/17?lines=all', '/internal/health', '/refunds/../payments/3']

function partiesOf(i: number) {
  const principal = `spiffe://example.org/ns/${callers[i % callers.length]}`
  return {
    id: i,
    source: { principal, ip: `198.51.${(i >> 8) % 256}.${i % 256}` },
    destination: { principal: 'spiffe://example.org/ns/payments/sa/api', port: 8443 },
  }
}

const pathOf = (i: number) => paths[(i >> 2) % paths.length] ?? '/'

function parsedLine(i: number): string {
  const headers = [
    ['user-agent', 'bench'],
    ['x-request-id', String(i)],
  ]
  const http = { method: i % 5 === 0 ? 'POST' : 'GET', host: 'payments', path: pathOf(i), headers }
  return JSON.stringify({ ...partiesOf(i), http })
}

function rawLine(i: number): string {
  const text = `GET ${pathOf(i)} HTTP/1.1\r\nHost: payments\r\nUser-Agent: bench\r\nX-Request-Id: ${i}\r\n\r\n`
  return JSON.stringify({ ...partiesOf(i), raw: Buffer.from(text).toString('base64') })
}

const linesOf = (count: number, line: (i: number) => string) =>
  Array.from({ length: count }, (_, i) => `${line(i)}\n`).join('')

/** Milliseconds until the program has answered all of `file` and ended. */
async function evaluate(file: string, answers: number): Promise<number> {
  const args = ['policy', 'eval', '--policies', policies, '--requests', file, '-o', 'json']
  const began = performance.now()
  const child = spawn(join(root, 'bin/castellan'), args, { stdio: ['ignore', 'pipe', 'inherit'] })
  let lines = 0
  child.stdout.on('data', (chunk: Buffer) => {
    for (const byte of chunk) if (byte === 10) lines++
  })
  const [code] = await once(child, 'close')
  if (code !== 0 || lines !== answers) throw new Error(`exit ${code} after ${lines} answers`)
  return performance.now() - began
}

/** Milliseconds for the lines of `file` read and as many answers written, undecided. */
function jsonAlone(file: string): number {
  const began = performance.now()
  const answers = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const { id } = JSON.parse(line)
      return JSON.stringify({ id, decision: 'deny', status: 403, reason: 'no ALLOW rule matches' })
    })
  if (answers.join('\n').length === 0) throw new Error('no answers')
  return performance.now() - began
}

async function run(): Promise<BenchResult> {
  using folder = testFolder()
  const put = (name: string, text: string) => {
    const file = join(folder.path, name)
    writeFileSync(file, text)
    return file
  }
  const none = put('none.jsonl', '')
  const inParts = put('parsed.jsonl', linesOf(parsed, parsedLine))
  const inBytes = put('raw.jsonl', linesOf(raw, rawLine))
  const [start = 0, parts = 0, bytes = 0, json = 0] = await interleave(
    [
      { name: 'start', run: () => evaluate(none, 0) },
      { name: 'parsed', run: () => evaluate(inParts, parsed) },
      { name: 'raw', run: () => evaluate(inBytes, raw) },
      { name: 'json', run: async () => jsonAlone(inParts) },
    ],
    rounds,
  )
  const rate = (count: number, took: number) => Math.round((count / (took - start)) * 1000)
  const [ofParts, ofBytes] = [rate(parsed, parts), rate(raw, bytes)]
  const { rows, ok } = judge([
    { what: 'parsed', measured: ofParts, unit: 'cases/s', limit: { least: goals.parsed } },
    { what: 'raw', measured: ofBytes, unit: 'cases/s', limit: { least: goals.raw } },
  ])
  const limit = Math.round((parsed / json) * 1000)
  return {
    rows: [
      ...rows,
      fact('JSON alone, parsed', limit, 'cases/s'),
      fact('start and end of the program', start, 'ms'),
    ],
    figure: ofParts,
    unit: `parsed cases a second, ${ofBytes} raw ones`,
    goal: goals.parsed,
    peer: { name: 'JSON alone, cases/s', figure: limit },
    ok,
  }
}

export const evalBench: Bench = { name: 'eval', run }
