// A set of files is the old one or the new one, whole: under readers, under kill -9, on a full disk.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { publish, rememberTold, type Step, wasTold } from '../../../agent/files/versions.ts'
import { explain, IdentityError } from '../../../spiffe/errors.ts'
import { setOf } from '../../support/doomed-files.ts'
import { testFolder } from '../../support/folder.ts'

const support = (name: string) => fileURLToPath(new URL(`../../support/${name}`, import.meta.url))
const program = support('doomed-files.ts')
const nobody = { uid: undefined, gid: undefined }

function newPlace() {
  const folder = testFolder()
  onTestFinished(() => folder[Symbol.dispose]())
  return { folder: join(folder.path, 'tls'), owner: nobody }
}

/** What the set says through its link: the content that all its files agree on. */
function contentIn(folder: string): string {
  const at = join(folder, 'current')
  const contents = readdirSync(at).map((name) => {
    const text = readFileSync(join(at, name), 'utf8')
    return text.startsWith(`${name} of `) && text.endsWith('\n') ? text.slice(name.length + 4) : ''
  })
  return new Set(contents).size === 1 && contents.length === 3 ? `${contents[0]}`.trim() : 'mixed'
}

async function refused(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error = await promise.catch((reason: unknown) => reason)
  if (!(error instanceof IdentityError)) throw error
  return { code: error.code, message: explain(error) }
}

const modeOf = (path: string) => statSync(path).mode & 0o7777
const versionsIn = (folder: string) => readdirSync(folder).sort()

describe('a set of files', () => {
  it('is a folder that only its owner can enter, behind a link', async () => {
    const place = newPlace()
    expect(await publish(place, setOf('a'))).toEqual({ version: 'v1', isNew: true })
    expect(versionsIn(place.folder)).toEqual(['current', 'v1'])
    expect(readlinkSync(join(place.folder, 'current'))).toBe('v1')
    expect(modeOf(join(place.folder, 'v1'))).toBe(0o700)
    expect(modeOf(join(place.folder, 'v1', 'key.pem'))).toBe(0o600)
    expect(contentIn(place.folder)).toBe('a')
  })

  it('is as open as the most open of its files', async () => {
    const place = newPlace()
    const withModes = (...modes: number[]) =>
      setOf('a').map((file, i) => ({ ...file, mode: modes[i] ?? 0o600 }))
    await publish(place, withModes(0o640))
    expect(modeOf(join(place.folder, 'current'))).toBe(0o750)
    expect(modeOf(join(place.folder, 'current', 'cert.pem'))).toBe(0o640)
    await publish(place, withModes(0o644))
    expect(modeOf(join(place.folder, 'current'))).toBe(0o755)
    expect(modeOf(join(place.folder, 'current', 'key.pem'))).toBe(0o600)
  })

  it('is as open as that under any umask', async () => {
    const before = process.umask(0o077)
    onTestFinished(() => void process.umask(before))
    const { folder, owner } = newPlace()
    const place = { folder: join(folder, 'deep'), owner }
    await publish(
      place,
      setOf('a').map((file) => ({ ...file, mode: 0o644 })),
    )
    const modes = [folder, place.folder, join(place.folder, 'v1')].map(modeOf)
    expect(modes).toEqual([0o755, 0o755, 0o755])
    expect(modeOf(join(place.folder, 'v1/key.pem'))).toBe(0o644)
  })

  it('is not written when nothing changed', async () => {
    const place = newPlace()
    await publish(place, setOf('a'))
    const { ino, ctimeMs } = statSync(join(place.folder, 'v1'))
    const again = setOf('a').map((file) => ({
      ...file,
      content: () => expect.fail('nobody needs it'),
    }))
    expect(await publish(place, again)).toEqual({ version: 'v1', isNew: false })
    expect(statSync(join(place.folder, 'v1'))).toMatchObject({ ino, ctimeMs })
  })

  it('is made anew when it is not what it should be', async () => {
    const place = newPlace()
    await publish(place, setOf('a'))
    const at = (name: string) => join(place.folder, 'current', name)
    const spoil: (() => void)[] = [
      () => rmSync(at('key.pem')),
      () => writeFileSync(at('key.pem'), 'other'),
      () => writeFileSync(at('more'), ''),
      () => {
        rmSync(at('key.pem'))
        symlinkSync('cert.pem', at('key.pem'))
      },
    ]
    for (const [i, one] of spoil.entries()) {
      one()
      expect(await publish(place, setOf('a'))).toEqual({ version: `v${i + 2}`, isNew: true })
      expect(contentIn(place.folder)).toBe('a')
    }
    const opened = setOf('a').map((file) => ({ ...file, mode: 0o640 }))
    expect((await publish(place, opened)).isNew).toBe(true)
  })

  it('leaves the version before it, and none of those before that one', async () => {
    const place = newPlace()
    for (const content of ['a', 'b', 'c', 'd']) await publish(place, setOf(content))
    expect(versionsIn(place.folder)).toEqual(['current', 'v3', 'v4'])
    expect(readFileSync(join(place.folder, 'v3', 'key.pem'), 'utf8')).toBe('key.pem of c\n')
  })

  it('never replaces what somebody else has made', async () => {
    const place = newPlace()
    mkdirSync(join(place.folder, 'current'), { recursive: true })
    const refusal = await refused(publish(place, setOf('a')))
    expect(refusal.code).toBe('ERR_PRECONDITION')
    expect(refusal.message).toContain('was not made by this program; move it away')
    rmSync(join(place.folder, 'current'), { recursive: true })
    symlinkSync('/etc', join(place.folder, 'current'))
    expect((await refused(publish(place, setOf('a')))).code).toBe('ERR_PRECONDITION')
    expect(lstatSync(join(place.folder, 'current')).isSymbolicLink()).toBe(true)
  })

  it('remembers whether its users were told', async () => {
    const { folder, owner } = newPlace()
    const { version } = await publish({ folder, owner }, setOf('a'))
    expect(await wasTold(folder, version)).toBe(false)
    await rememberTold(folder, version)
    expect(await wasTold(folder, version)).toBe(true)
    const next = await publish({ folder, owner }, setOf('b'))
    expect(await wasTold(folder, next.version)).toBe(false)
  })
})

/** The steps of one change, by running it. */
async function stepsOf(): Promise<Step[]> {
  const steps: Step[] = []
  await publish(newPlace(), setOf('x'), { between: (step) => steps.push(step) })
  return steps
}

describe('whatever goes wrong', () => {
  it('kill -9 between any two steps leaves the old set or the new one, and the next start goes on', async () => {
    const steps = await stepsOf()
    expect(steps).toHaveLength(11)
    const place = newPlace()
    const found: string[] = []
    for (const i of steps.keys()) {
      rmSync(place.folder, { recursive: true, force: true })
      for (const before of ['older', 'old']) await publish(place, setOf(before))
      const child = spawnSync(process.execPath, [program, place.folder, 'new', String(i + 1)])
      expect(child.signal).toBe('SIGKILL')
      found.push(contentIn(place.folder))
      const again = await publish(place, setOf('new'))
      expect(contentIn(place.folder)).toBe('new')
      expect(versionsIn(place.folder)).toEqual(['current', 'v2', 'v3'])
      expect(again.isNew).toBe(found.at(-1) === 'old')
    }
    expect(found.join(' ')).toBe(`${'old '.repeat(9)}new new`)
  }, 120_000)

  it('a step that fails leaves the old set and nothing else, and says why', async () => {
    const steps = await stepsOf()
    const place = newPlace()
    await publish(place, setOf('old'))
    for (const i of steps.slice(0, 9).keys()) {
      let left = i
      const between = () => {
        if (left-- === 0) throw Object.assign(new Error('no space'), { code: 'ENOSPC' })
      }
      const refusal = await refused(publish(place, setOf('new'), { between }))
      expect(refusal.code).toBe('ERR_UNAVAILABLE')
      expect(refusal.message).toBe(
        `${place.folder} could not be brought up to date: the disk is full: no space`,
      )
      expect(versionsIn(place.folder)).toEqual(['current', 'v1'])
      expect(contentIn(place.folder)).toBe('old')
    }
  })

  it('a disk that is really full keeps the old set', ({ skip }) => {
    const { folder } = newPlace()
    mkdirSync(folder, { recursive: true })
    // a disk of 64 KiB, seen by this shell only
    const script = `mount -t tmpfs -o size=64k none "$1" || exit 77
      "$2" "$3" "$1" old never 8000; "$2" "$3" "$1" new never 16000
      cat "$1"/current/*; ls "$1"`
    const shell = ['--mount', 'sh', '-c', script, 'sh', folder, process.execPath, program]
    const { status, stdout, error } = spawnSync('unshare', shell, { encoding: 'utf8' })
    if (error !== undefined || status === 77) {
      const reason = 'a small disk cannot be mounted here'
      if (process.env.CI === 'true') throw new Error(reason)
      return skip(reason)
    }
    expect(stdout).toContain(`${folder} could not be brought up to date: the disk is full: ENOSPC`)
    expect(stdout).toMatch(/both\.pem of old\s+cert\.pem of old\s+key\.pem of old\s+current\nv1\n$/)
  })
})

it('a reader through the link never sees a key with another certificate', async () => {
  const place = newPlace()
  await publish(place, setOf('0'))
  const reader = spawn(process.execPath, [support('watchful-reader.ts'), place.folder], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void reader.kill('SIGKILL'))
  let output = ''
  reader.stdout.on('data', (chunk) => {
    output += chunk
  })
  await once(reader.stdout, 'data')
  // as many as a slow disk takes in half a minute, and some in any case
  const until = performance.now() + 30_000
  for (let i = 1; i <= 10 || (i <= 60 && performance.now() < until); i++)
    await publish(place, setOf(String(i)))
  reader.stdin.end()
  await once(reader, 'close')
  const { seen, wrong } = JSON.parse(output.split('\n')[1] ?? '{}')
  expect(wrong).toEqual([])
  expect(seen).toBeGreaterThan(5)
}, 300_000)
