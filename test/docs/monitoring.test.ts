// docs/monitoring against an authority and an agent that run: what dashboard, alerts and table speak of has to be
// there, and what is there has to be spoken of.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { openTransport } from '../../client/transport.ts'
import { Authorization } from '../../proto/gen/envoy/service/auth/v3/external_auth_pb.js'
import { SVID } from '../../proto/gen/spire/api/server/svid/v1/svid_pb.js'
import { rpc } from '../agent/authz/asking.ts'
import { newKeys } from '../support/ca-client.ts'
import { castellan } from '../support/command.ts'
import { makeCsr, requestedNames } from '../support/csr.ts'
import { startNode, type TestNode } from '../support/node.ts'
import { freePort } from '../support/ports.ts'
import { speaksOf } from '../support/promql.ts'

const patience = { timeout: 60_000 }
const folder = join(import.meta.dirname, '../../docs/monitoring')
const read = (name: string) => readFileSync(join(folder, name), 'utf8')

/** Values of each label of each metric, as they were scraped. */
type Exposed = ReadonlyMap<string, ReadonlyMap<string, ReadonlySet<string>>>

let node: TestNode
let port: number
let exposed: Exposed
/** names as they are declared: a histogram is one */
let declared: ReadonlySet<string>

async function scrape(at: number): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${at}/metrics`)).text()
}

function exposedIn(page: string): Exposed {
  const metrics = new Map<string, Map<string, Set<string>>>()
  for (const line of page.split('\n')) {
    const [, name, labels = ''] = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$/.exec(line) ?? []
    if (name === undefined) continue
    const known = metrics.get(name) ?? new Map<string, Set<string>>()
    metrics.set(name, known)
    for (const [, label = '', value = ''] of labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      known.set(label, (known.get(label) ?? new Set()).add(value))
  }
  return metrics
}

const declaredIn = (page: string) =>
  new Set([...page.matchAll(/^# TYPE (\S+)/gm)].map(([, name = '']) => name))

/** Makes happen what has no labels before it has happened: a decision, a refusal. */
async function live(): Promise<void> {
  using local = openTransport({ kind: 'unix', path: `${node.folder}/run/authz.sock` })
  const check = createClient(Authorization, local.transport)
  await vi.waitFor(async () => {
    await check.check(rpc('/'))
    expect(await scrape(port)).toContain('castellan_decisions_total{')
  }, patience)
  const csr = makeCsr(newKeys(), {
    attributes: [requestedNames([0x86, 'spiffe://elsewhere.test/thief'])],
  })
  await createClient(SVID, node.local)
    .mintX509SVID({ csr })
    .catch(() => {})
}

beforeAll(async () => {
  port = await freePort()
  node = await startNode({
    agent: {
      operations: `127.0.0.1:${port}`,
      decisions: { socket: 'run/authz.sock' },
      files: [
        {
          ...{ id: 'spiffe://example.org/ns/shop/sa/payments', folder: 'files' },
          files: [{ name: 'tls.crt', holds: 'chain' }],
        },
      ],
    },
  })
  await node.register('/ns/shop/sa/payments', [`unix:uid:${process.getuid?.()}`])
  await live()
  const page = `${await scrape(node.authority.operationsPort)}\n${await scrape(port)}`
  exposed = exposedIn(page)
  declared = declaredIn(page)
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

interface Expression {
  readonly where: string
  readonly expression: string
  /** texts that may name labels of its result */
  readonly texts: readonly string[]
}

const target = z.object({ expr: z.string(), legendFormat: z.string() })
const dashboardShape = z.object({
  panels: z.array(
    z.object({ type: z.string(), title: z.string(), targets: z.array(target).optional() }),
  ),
  templating: z.object({ list: z.array(z.object({ name: z.string(), query: z.unknown() })) }),
})
const alertsShape = z.strictObject({
  groups: z.array(
    z.strictObject({
      name: z.string(),
      rules: z.array(
        z.strictObject({
          alert: z.string().regex(/^Castellan[A-Z]/),
          expr: z.string(),
          for: z.string().optional(),
          labels: z.strictObject({ severity: z.enum(['warning', 'critical']) }),
          annotations: z.strictObject({ summary: z.string(), runbook: z.string().min(40) }),
        }),
      ),
    }),
  ),
})

const dashboard = dashboardShape.parse(JSON.parse(read('dashboard.json')))
const rules = alertsShape.parse(parse(read('alerts.yaml'))).groups.flatMap((it) => it.rules)

const ofDashboard: readonly Expression[] = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr, legendFormat }) => ({
    where: `panel ${title}`,
    expression: expr,
    texts: [legendFormat],
  })),
)
const ofAlerts: readonly Expression[] = rules.map(({ alert, expr, annotations }) => ({
  where: `alert ${alert}`,
  expression: expr,
  texts: Object.values(annotations),
}))

/** what Prometheus adds to whatever it scrapes */
const added = ['instance', 'job']
/** values that come up in time, not in this test */
const open = new Set(['castellan_decisions_total', 'castellan_ca_refused_total'])

/** What is wrong with an expression; nothing when all that it names is exposed. */
function problemsOf({ where, expression, texts }: Expression): string[] {
  const { metrics, groupings } = speaksOf(expression)
  const problems: string[] = []
  const labels = new Set(added)
  if (metrics.length === 0) problems.push(`${where}: no metric in ${expression}`)
  for (const { name, matchers } of metrics) {
    const known = exposed.get(name)
    if (known === undefined) problems.push(`${where}: no metric ${name}`)
    for (const label of known?.keys() ?? []) labels.add(label)
    for (const { label, operator, value } of matchers) {
      if (added.includes(label)) continue
      const values = known?.get(label)
      if (values === undefined) problems.push(`${where}: ${name} has no label ${label}`)
      else if (operator === '=' && !open.has(name) && !values.has(value))
        problems.push(`${where}: ${name} has no ${label} ${value}`)
      else if (operator === '=~' && !open.has(name))
        for (const one of value.split('|'))
          if (!values.has(one)) problems.push(`${where}: ${name} has no ${label} ${one}`)
    }
  }
  const named = texts.flatMap((text) =>
    [...text.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)].map(([, label = '']) => label),
  )
  for (const label of [...groupings, ...named])
    if (!labels.has(label)) problems.push(`${where}: nothing has a label ${label}`)
  return problems
}

describe('the finder of names', () => {
  it('finds metrics, matchers and groupings', () => {
    const { metrics, groupings } = speaksOf(
      'sum by (a, b) (rate(x_total{c="d",e=~"f|g}"}[5m] offset 1h)) / on (a) y_seconds > 3 and absent(z)',
    )
    expect(metrics.map(({ name }) => name)).toEqual(['x_total', 'y_seconds', 'z'])
    expect(metrics[0]?.matchers).toEqual([
      { label: 'c', operator: '=', value: 'd' },
      { label: 'e', operator: '=~', value: 'f|g}' },
    ])
    expect(groupings).toEqual(['a', 'b', 'a'])
  })

  it('lets nothing pass that is not there', () => {
    const expression = 'sum by (nobody) (rate(castellan_ca_isued_total{kid="x"}[5m]))'
    expect(problemsOf({ where: 'here', expression, texts: ['{{nothing}}'] })).toEqual([
      'here: no metric castellan_ca_isued_total',
      'here: castellan_ca_isued_total has no label kid',
      'here: nothing has a label nobody',
      'here: nothing has a label nothing',
    ])
    const renamed = 'castellan_ca_authorities{phase="rotten"}'
    expect(problemsOf({ where: 'here', expression: renamed, texts: [] })).toEqual([
      'here: castellan_ca_authorities has no phase rotten',
    ])
  })
})

describe('docs/monitoring', () => {
  it('has a dashboard of metrics and labels that there are', () => {
    expect(ofDashboard.length).toBeGreaterThan(40)
    expect(ofDashboard.flatMap(problemsOf)).toEqual([])
  })

  it('lets the dashboard choose by metrics that there are', () => {
    const queries = dashboard.templating.list.flatMap(({ query }) =>
      [...JSON.stringify(query).matchAll(/label_values\((\w+), (\w+)\)/g)].map(([, name]) => name),
    )
    expect(queries).toHaveLength(2)
    for (const name of queries) expect(exposed.has(name ?? '')).toBe(true)
  })

  it('has alerts about metrics and labels that there are, each with what to do', () => {
    expect(ofAlerts.length).toBeGreaterThan(15)
    expect(ofAlerts.flatMap(problemsOf)).toEqual([])
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  })

  it('names in its table each metric that there is, with its labels, and no other', () => {
    const rows = [...read('README.md').matchAll(/^\| `(castellan_\w+)` \|([^|]*)\|/gm)]
    const table = new Map(
      rows.map(([, name = '', labels = '']) => [
        name,
        [...labels.matchAll(/`(\w+)`/g)].map(([, label = '']) => label).sort(),
      ]),
    )
    const ours = [...declared].filter((name) => name.startsWith('castellan_'))
    expect([...table.keys()].sort()).toEqual(ours.sort())
    for (const [name, labels] of table) {
      const known = exposed.get(name) ?? exposed.get(`${name}_count`)
      expect([name, ...labels]).toEqual([name, ...[...(known?.keys() ?? [])].sort()])
    }
  })

  it('names no metric in any text that there is not', () => {
    const texts = ['README.md', '../operations.md', '../policies.md', '../files.md'].map(read)
    const names = texts.flatMap((text) => text.match(/castellan_[a-z0-9_]+(?:_\w+)*/g) ?? [])
    const known = (name: string) => exposed.has(name) || declared.has(name)
    expect(names.length).toBeGreaterThan(50)
    expect(names.filter((name) => !known(name))).toEqual([])
  })

  it('names commands that there are', async () => {
    const text = read('README.md') + read('alerts.yaml')
    const commands = new Set(
      [...text.matchAll(/\bcastellan ((?:agent|authority|policy|proxy) [a-z]+)/g)].map(
        ([, command = '']) => command,
      ),
    )
    expect(commands.size).toBeGreaterThan(5)
    for (const command of commands) {
      const { code } = await castellan([...command.split(' '), '--help'])
      expect([command, code]).toEqual([command, 0])
    }
  })
})
