// Callers: real processes that connect, become something else, and end, while time is moved by the test.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { type Caller, createCallers } from '../../../agent/attest/caller.ts'
import { createExplainProcess } from '../../../agent/attest/explain.ts'
import type { Proc } from '../../../agent/attest/proc.ts'
import { openAttestation } from '../../../agent/attest/workload-attestor.ts'
import { createTopic } from '../../../runtime/lifecycle.ts'
import { createLog } from '../../../runtime/log.ts'
import { createFakeClock } from '../../support/fake-clock.ts'
import { never, temporaryFolder } from './recorded.ts'

/** Entries that ask for these selectors, and for more later. */
function asking(...selectors: string[]) {
  const topic = createTopic<void>()
  const entries = new Map([['first', { selectors }]])
  return {
    entries,
    onChange: topic.subscribe,
    ask(...more: string[]) {
      entries.set(`more ${entries.size}`, { selectors: more })
      topic.publish()
    },
  }
}

interface Machine {
  readonly caller: Caller
  readonly child: ChildProcess
  readonly clock: ReturnType<typeof createFakeClock>
  readonly log: readonly string[]
  readonly knowledge: ReturnType<typeof asking>
  /** What the child does when it is told to: it runs another program, or becomes another user. */
  tell(deed: 'run' | 'become'): Promise<void>
  readonly proc: Proc
}

/** Connects, stays, and does what it is told on its standard input. */
const script = `
  require('net').connect(process.argv[1]).on('close', () => {})
  process.stdin.once('data', (deed) => {
    if (String(deed) === 'become') { process.setgid(20001); process.setuid(20001); console.log('done') }
    else process.execve('/bin/sleep', ['sleep', '60'])
  })
`

async function withCaller(
  run: (machine: Machine) => Promise<void>,
  config = { unix: { hashLimit: 2 ** 30 } },
) {
  using folder = temporaryFolder()
  const path = join(folder.path, 'agent.sock')
  const server = createServer().listen(path)
  await once(server, 'listening')
  const child = spawn(process.execPath, ['-e', script, path], { stdio: ['pipe', 'pipe', 'ignore'] })
  const [socket]: Socket[] = await once(server, 'connection')
  if (socket === undefined) throw new Error('no connection')
  const clock = createFakeClock(Date.now())
  const log: string[] = []
  const destination = new Writable({
    write(line, _, done) {
      log.push(String(line))
      done()
    },
  })
  const knowledge = asking('unix:uid:1')
  const attestation = openAttestation(config, clock)
  const callers = createCallers({
    ...attestation,
    knowledge,
    clock,
    log: createLog({ name: 'test', destination }),
  })
  const { proc } = attestation
  try {
    using caller = callers(socket)
    await run({
      ...{ caller, child, clock, log, knowledge, proc },
      async tell(deed) {
        const before = proc.look(caller.process.pid)
        child.stdin?.write(deed)
        while (proc.look(caller.process.pid) === before)
          await new Promise((resolve) => setImmediate(resolve))
        // every identity of a user is changed, one after the other
        if (deed === 'become' && child.stdout !== null) await once(child.stdout, 'data')
      },
    })
  } finally {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    socket.destroy()
    server.close()
  }
}

/** Counts the calls of one listener. */
function listening(caller: Caller) {
  let calls = 0
  const subscription = caller.onChange(() => {
    calls++
  })
  return { calls: () => calls, [Symbol.dispose]: () => subscription[Symbol.dispose]() }
}

describe('a caller', () => {
  it('that ends is noticed within a second, and denied from then on', () =>
    withCaller(async ({ caller, child, clock }) => {
      using heard = listening(caller)
      await caller.attest()
      child.kill('SIGKILL')
      await once(child, 'exit')
      await clock.advance(1000)
      expect(heard.calls()).toBe(1)
      await clock.advance(10_000)
      expect(heard.calls()).toBe(1)
      await expect(caller.attest()).rejects.toMatchObject({ code: 'ERR_DENIED' })
    }))

  it('that runs another program is noticed in less than 5 s, and is that program from then on', () =>
    withCaller(async ({ caller, clock, tell, proc }) => {
      using heard = listening(caller)
      const before = await caller.attest()
      expect([...before.selectors]).toContain(`unix:path:${process.execPath}`)
      await tell('run')
      await clock.advance(3200)
      expect(heard.calls()).toBe(1)
      const { selectors } = await caller.attest()
      expect([...selectors]).toContain(`unix:path:${proc.link(caller.process.pid, 'exe')}`)
      expect([...selectors]).not.toContain(`unix:path:${process.execPath}`)
      await clock.advance(10_000)
      expect(heard.calls()).toBe(1)
    }))

  it.skipIf(process.getuid?.() !== 0)(
    'that was root and gave it up is noticed, and is that user from then on',
    () =>
      withCaller(async ({ caller, clock, tell }) => {
        using heard = listening(caller)
        await caller.attest()
        await tell('become')
        await clock.advance(3200)
        expect(heard.calls()).toBe(1)
        expect([...(await caller.attest()).selectors]).toContain('unix:uid:20001')
        expect(caller.process.uid).toBe(0)
      }),
  )

  it('that stays what it is is left alone', () =>
    withCaller(async ({ caller, clock }) => {
      using heard = listening(caller)
      await caller.attest()
      await clock.advance(30_000)
      expect(heard.calls()).toBe(0)
    }))

  it('with two streams: one hears of what the other one noticed', () =>
    withCaller(async ({ caller, tell }) => {
      using first = listening(caller)
      await caller.attest()
      await tell('run')
      // attested before the loop came by
      using second = listening(caller)
      await caller.attest()
      expect(first.calls()).toBe(1)
      expect(second.calls()).toBe(1)
    }))

  it('is followed while somebody listens, and no longer', () =>
    withCaller(async ({ caller, clock }) => {
      await caller.attest()
      expect(clock.sleepers).toBe(0)
      const subscriptions = [listening(caller), listening(caller)]
      expect(clock.sleepers).toBe(1)
      for (const it of subscriptions) it[Symbol.dispose]()
      await clock.advance(0)
      expect(clock.sleepers).toBe(0)
      listening(caller)
      // its connection has gone: nobody has to unsubscribe
      caller[Symbol.dispose]()
      await clock.advance(0)
      expect(clock.sleepers).toBe(0)
    }))

  it('is hashed once an entry asks for it', () =>
    withCaller(async ({ caller, knowledge }) => {
      const hashes = async () =>
        [...(await caller.attest()).selectors].filter((it) => it.startsWith('unix:sha256:'))
      expect(await hashes()).toEqual([])
      knowledge.ask('unix:sha256:00')
      expect(await hashes()).toHaveLength(1)
    }))

  it('R16 what is absent is logged once, and no selector ever is', () =>
    withCaller(
      async ({ caller, knowledge, log }) => {
        knowledge.ask('unix:sha256:00')
        const { selectors } = await caller.attest()
        await caller.attest()
        expect(log).toHaveLength(1)
        expect(log.join()).toContain('unix:sha256 (the program is over 1000 bytes (hashLimit))')
        for (const selector of selectors) expect(log.join()).not.toContain(selector)
      },
      { unix: { hashLimit: 1000 } },
    ))
})

it('a process is explained by its pid, with all that can be told, asked for or not', async () => {
  const child = spawn('sleep', ['60'])
  const pid = child.pid ?? 0
  const attestation = openAttestation({ unix: { hashLimit: 2 ** 30 } }, createFakeClock(Date.now()))
  const explain = createExplainProcess({ ...attestation, knowledge: asking() })
  const explanation = await explain(pid, { signal: never })
  expect(explanation).toMatchObject({
    pid,
    uid: process.getuid?.(),
    gid: process.getgid?.(),
    missing: [],
  })
  const kinds = [...explanation.selectors].map((it) => it.split(':', 2).join(':'))
  expect(kinds).toContain('unix:sha256')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await expect(explain(pid, { signal: never })).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
})
