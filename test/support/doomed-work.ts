// `node doomed-work.ts FOLDER N`: an authority at work that is killed before its Nth statement. It prints
// each step once it is done, and at the end how many statements there were.
import { writeSync } from 'node:fs'
import { vouch } from '../../ca/attestors/attestor.ts'
import { openAuthority } from '../../ca/open.ts'
import { bareCsr } from '../../spiffe/csr.ts'
import { parseSpiffeId } from '../../spiffe/id.ts'
import { memoryLog, testConfig } from './ca.ts'
import { newKeys } from './ca-client.ts'
import { testAgent, testEntry } from './rows.ts'

const [folder = '', last = ''] = process.argv.slice(2)
let statements = 0
const authority = await openAuthority(testConfig(folder), {
  log: memoryLog().log,
  database: {
    beforeStatement() {
      statements++
      if (String(statements) === last) process.kill(process.pid, 'SIGKILL')
    },
  },
})
const { authorities, store } = authority
// not by a stream: what was printed has to be out when the process dies
const done = (step: string) => writeSync(1, `${step}\n`)
const permit = async () => undefined
const id = parseSpiffeId('spiffe://example.org/work')
const administrator = () => vouch({ kind: 'administrator', name: 'local' })
const hash = new Uint8Array(32).fill(7)
const agent = testAgent('a')
const node = () =>
  vouch({
    kind: 'node',
    agentId: agent.id,
    attestationType: 'join_token',
    selectors: [],
    canReattest: false,
    token: { hash, now: Date.now() },
  })

const steps: Readonly<Record<string, () => Promise<unknown>>> = {
  entry: () => store.entries.create(testEntry('e')),
  certificate: () =>
    authority.issue(bareCsr(newKeys()), administrator(), {
      kind: 'mint',
      id,
      dnsNames: [],
      lifetime: 0,
    }),
  token: () => store.issuance.createToken({ hash, expiresAt: Date.now() + 600_000 }),
  agent: () => authority.issue(bareCsr(newKeys()), node(), { kind: 'agent' }),
  jwt: () =>
    authority.issueToken({ kind: 'jwt', audience: ['x'] }, administrator(), {
      ...{ kind: 'mint', id, token: 'jwt', lifetime: 0 },
    }),
  prepare: () => authorities.prepare(),
  activate: () => authorities.activate(authorities.all()[1]?.id ?? '', permit),
  taint: () => authorities.taint(authorities.all()[0]?.id ?? ''),
  revoke: () => authorities.revoke(authorities.all()[0]?.id ?? '', permit),
  'prepare jwt': () => authorities.jwt.prepare(),
  'activate jwt': () => authorities.jwt.activate(authorities.jwt.all()[1]?.id ?? '', permit),
  deny: () =>
    store.denyRules.add({
      ...{ id: 'r', target: { kind: 'id', id }, reason: '', createdAt: 1, expiresAt: 0 },
    }),
  ban: () => store.agents.ban(agent.id),
  policies: () =>
    store.policies.set([{ name: 'p.yaml', text: '' }], { at: Date.now(), caller: '', message: '' }),
}
done(`first ${authorities.active().id}`)
for (const [name, step] of Object.entries(steps)) {
  await step()
  done(name)
}
done(`statements ${statements}`)
await authority[Symbol.asyncDispose]()
