// kill -9 between any two steps of the procedure: a real process, its real files, and what a restart finds.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { Agent } from '../../proto/gen/spire/api/server/agent/v1/agent_pb.js'
import { parseCertificate } from '../../spiffe/certificate.ts'
import { startTestCa } from '../support/ca.ts'
import { attest, connectLocally, connectTls, denialOf, rootsOf } from '../support/ca-client.ts'
import { testFolder } from '../support/folder.ts'

const program = fileURLToPath(new URL('../support/doomed-authority.ts', import.meta.url))

interface Doomed {
  readonly port: number
  readonly socket: string
  readonly killed: Promise<unknown>
}

async function startDoomed(folder: string, step: string): Promise<Doomed> {
  const child = spawn(process.execPath, [program, folder, step], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const killed = once(child, 'exit')
  const [line] = await once(createInterface(child.stdout), 'line')
  const { port, socket } = JSON.parse(String(line))
  return { port, socket, killed }
}

/** Serials in lower-case hex, as the files say when nobody has them open. */
function serialsIn(folder: string): { reserved: string[]; recorded: string[] } {
  using db = new DatabaseSync(join(folder, 'state', 'castellan.db'))
  const reservations = db.prepare('SELECT intents FROM reservations ORDER BY id').all()
  const reserved = reservations.flatMap(({ intents }) => {
    const parsed: { serial: string }[] = JSON.parse(String(intents))
    return parsed.map(({ serial }) => serial)
  })
  const rows = db.prepare('SELECT lower(hex(serial)) AS serial FROM issued ORDER BY rowid').all()
  return { reserved, recorded: rows.map(({ serial }) => String(serial)) }
}

it.each([
  { step: 'reserved', isRecorded: false },
  { step: 'signed', isRecorded: false },
  { step: 'recorded', isRecorded: true },
])(
  'killed when a certificate is $step, it forgets nothing and repeats no serial',
  async (doom) => {
    using folder = testFolder()
    const doomed = await startDoomed(folder.path, doom.step)
    const roots = await rootsOf(doomed.socket)
    let token: string
    {
      using local = connectLocally(doomed.socket)
      token = (await local.client(Agent).createJoinToken({ ttl: 600 })).value
      using connection = connectTls(doomed.port, roots)
      const lost = await denialOf(attest(connection, token))
      expect(lost, 'nothing was delivered').toMatchObject({ code: expect.any(String) })
      expect(await doomed.killed).toEqual([null, 'SIGKILL'])
    }
    const before = serialsIn(folder.path)
    const victim = before.reserved.at(-1) ?? ''
    expect(before.recorded.includes(victim)).toBe(doom.isRecorded)

    const ca = await startTestCa({ folder: folder.path })
    {
      expect(await rootsOf(ca.running.socket), 'the same authority').toBe(roots)
      using local = connectLocally(ca.running.socket)
      // recorded: the agent is known and its token is gone; else the token is as good as new
      expect((await local.client(Agent).countAgents({})).count).toBe(doom.isRecorded ? 1 : 0)
      using connection = connectTls(ca.running.port, roots)
      const again = attest(connection, token)
      if (doom.isRecorded) expect((await denialOf(again))?.code).toBe('InvalidArgument')
      else {
        const { chain } = await again
        expect(parseCertificate(chain[0] ?? new Uint8Array()).serial).not.toBe(victim)
      }
    }
    await ca[Symbol.asyncDispose]()
    const after = serialsIn(folder.path)
    expect(after.recorded).toEqual(expect.arrayContaining(before.recorded))
    expect(new Set(after.reserved).size).toBe(after.reserved.length)
    expect(after.reserved).toEqual(expect.arrayContaining(after.recorded))
  },
  120_000,
)
