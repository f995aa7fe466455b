// The container of a process, by its cgroup: what runtimes make, and what a process may make up.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { cgroupMounts, parseCgroups } from '../../../agent/attest/cgroup.ts'
import {
  createLocateContainer,
  placeAmong,
  placeIn,
} from '../../../agent/attest/container-place.ts'
import { containerId, recordedProc, vector } from './recorded.ts'

const place = z.strictObject({
  id: z.string(),
  pod: z.string().optional(),
  runtime: z.string(),
  owner: z.number().optional(),
  claimedBy: z.string().optional(),
})
const vectors = z
  .array(
    z.strictObject({
      name: z.string(),
      cgroup: z.array(z.string()),
      own: z.array(z.string()).default(['0::/']),
      place: place.nullable().optional(),
      problem: z.string().optional(),
    }),
  )
  .parse(JSON.parse(vector('cgroups.json')))

const cgroups = (lines: readonly string[]) => parseCgroups(`${lines.join('\n')}\n`)

describe('the container of a process', () => {
  it.each(vectors)('$name', ({ cgroup, own, place: expected, problem }) => {
    const find = () => placeAmong(cgroups(cgroup), cgroups(own))
    if (problem !== undefined) return expect(find).toThrow(problem)
    const found = find()
    if (expected === undefined || expected === null) return expect(found).toBeUndefined()
    const { id, podUid: pod, runtime, owner, claimedBy } = found ?? {}
    return expect({ id, pod, runtime, owner, claimedBy }).toEqual({
      ...{ pod: undefined, owner: undefined, claimedBy: undefined },
      ...expected,
    })
  })

  it('a private namespace that shows only its root: the mounts say where it is', () => {
    const mount = `30 29 0:26 /../docker-<c:web>.scope /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n`
    const files = { 'self/cgroup': '0::/\n', '7/cgroup': '0::/\n', '7/mountinfo': mount }
    const user = '-> user:[4026531837]'
    using recorded = recordedProc({ ...files, 'self/ns/user': user, '7/ns/user': user })
    expect(createLocateContainer(recorded.proc)(7)?.id).toBe(containerId('web'))
  })

  it('adversary: who could have mounted it itself, in a user namespace of its own, is in no container', () => {
    const mount = `30 29 0:26 /docker/<c:victim> /sys/fs/cgroup ro - cgroup2 cgroup rw\n`
    const files = { 'self/cgroup': '0::/\n', '7/cgroup': '0::/\n', '7/mountinfo': mount }
    using recorded = recordedProc({
      ...files,
      'self/ns/user': '-> user:[4026531837]',
      '7/ns/user': '-> user:[4026532999]',
    })
    expect(createLocateContainer(recorded.proc)(7)).toBeUndefined()
  })

  it('adversary: mounts count for nothing where the cgroup says anything', () => {
    using recorded = recordedProc({
      'self/cgroup': '0::/system.slice/agent.service\n',
      '7/cgroup': '0::/user.slice/user-1000.slice/session-1.scope\n',
      '7/mountinfo': `30 29 0:26 /docker/<c:victim> /sys/fs/cgroup ro - cgroup2 cgroup rw\n`,
    })
    expect(createLocateContainer(recorded.proc)(7)).toBeUndefined()
  })
})

const name = fc.oneof(
  fc.stringMatching(/^[a-z0-9@:._-]{1,20}$/),
  fc.constantFrom('kubepods', 'docker', 'libpod', '..', 'user.slice', 'docker.service'),
  fc.uint8Array({ minLength: 32, maxLength: 32 }).map((it) => Buffer.from(it).toString('hex')),
  fc
    .tuple(fc.constantFrom('docker', 'crio', 'libpod', 'cri-containerd'), fc.nat())
    .map(([runtime, n]) => `${runtime}-${containerId(String(n))}.scope`),
  fc.nat().map((n) => `pod${containerId(String(n)).slice(0, 32)}`),
)
const below = fc.array(name, { maxLength: 8 })
const own = fc.constantFrom([], ['system.slice', 'agent.service'])

describe('for every path', () => {
  it('what a container makes below its own cgroup changes nothing', () => {
    const parents = fc.constantFrom(
      ['system.slice', `docker-${containerId('web')}.scope`],
      ['kubepods', 'burstable', `pod${containerId('pod').slice(0, 32)}`, containerId('web')],
      [
        '..',
        '..',
        `kubepods-pod${containerId('pod').slice(0, 32)}.slice`,
        `crio-${containerId('web')}.scope`,
      ],
    )
    fc.assert(
      fc.property(parents, below, own, (path, more, mine) => {
        const expected = placeIn({ controllers: '', segments: path }, mine)
        expect(expected?.id).toBe(containerId('web'))
        expect(placeIn({ controllers: '', segments: [...path, ...more] }, mine)).toEqual(expected)
      }),
    )
  })

  it('what a unit makes below its own cgroup is said to be its claim', () => {
    const units = fc.constantFrom(
      'app.service',
      'user@1000.service',
      'session-1.scope',
      'evil.scope',
    )
    fc.assert(
      fc.property(
        fc.constantFrom('system.slice', '..'),
        units,
        below,
        own,
        (top, unit, more, mine) => {
          const found = placeIn({ controllers: '', segments: [top, unit, ...more] }, mine)
          expect(found === undefined ? unit : found.claimedBy).toBe(unit)
        },
      ),
    )
  })

  it('lines are read as they were written; others are refused', () => {
    const line = fc.tuple(
      fc.nat(),
      fc.constantFrom('', 'memory', 'cpu,cpuacct', 'name=systemd'),
      below,
    )
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const text = lines.map(([n, kind, path]) => `${n}:${kind}:/${path.join('/')}\n`).join('')
        expect(parseCgroups(text)).toEqual(
          lines.map(([, controllers, segments]) => ({ controllers, segments })),
        )
      }),
    )
    fc.assert(
      fc.property(fc.string(), (text) => {
        fc.pre(text.trim() !== '' && !/^\d+:[^:]*:\//m.test(text))
        expect(() => parseCgroups(text)).toThrow('not one')
      }),
    )
  })

  it('a mount is found whatever its path is made of', () => {
    const escaped = (text: string) =>
      text.replace(/[ \t\\]/g, (it) => `\\${it.charCodeAt(0).toString(8).padStart(3, '0')}`)
    const segment = fc.stringMatching(/^[a-z\\ -]{1,12}$/).filter((it) => it.trim() !== '')
    fc.assert(
      fc.property(fc.array(segment), (segments) => {
        const root = escaped(`/${segments.join('/')}`)
        const text = `36 35 98:0 ${root} /sys/fs/cgroup rw master:1 - cgroup2 cgroup rw\n36 35 98:0 / /tmp rw - tmpfs none rw\n`
        expect(cgroupMounts(text)).toEqual([{ controllers: 'cgroup2', segments }])
      }),
    )
  })
})
