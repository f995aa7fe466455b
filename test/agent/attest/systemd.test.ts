// systemd: selectors, by recorded cgroups and folders of unit files.
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseCgroups } from '../../../agent/attest/cgroup.ts'
import { createSystemdAttestor, fragmentPaths, unitIn } from '../../../agent/attest/systemd.ts'
import { everything, never, peer, recordedProc, temporaryFolder } from './recorded.ts'

describe('the unit of a process', () => {
  const cases: [name: string, cgroup: string, unit: string | undefined][] = [
    ['a service', '0::/system.slice/nginx.service', 'nginx.service'],
    ['of version 1', '9:pids:/\n1:name=systemd:/system.slice/nginx.service\n', 'nginx.service'],
    [
      'in a slice of its kind',
      '0::/system.slice/system-getty.slice/getty@tty1.service',
      'getty@tty1.service',
    ],
    [
      'both hierarchies: the one that systemd keeps',
      '1:name=systemd:/a.slice/a.service\n0::/b.service',
      'a.service',
    ],
    ['a cgroup below its own', '0::/system.slice/nginx.service/workers/a.service', 'nginx.service'],
    [
      'the manager of a user, not what runs below it',
      '0::/user.slice/user-1000.slice/user@1000.service/app.slice/fake.service',
      'user@1000.service',
    ],
    ['a session', '0::/user.slice/user-1000.slice/session-2.scope', 'session-2.scope'],
    [
      'a name with a dash that was escaped keeps its backslash, as systemctl shows it',
      '0::/system.slice/system-app.slice/app@my\\x2dname.service',
      'app@my\\x2dname.service',
    ],
    ['a name that systemd had to escape', '0::/system.slice/_cgroup.service', 'cgroup.service'],
    ['another cgroup namespace', '0::/../../system.slice/nginx.service', 'nginx.service'],
    ['none: the root', '0::/', undefined],
    ['none: a cgroup that systemd did not make', '0::/docker/0123', undefined],
    ['none: not a name', '0::/system.slice/a b.service', undefined],
  ]
  it.each(cases)('%s', (_, cgroup, unit) => {
    expect(unitIn(parseCgroups(cgroup))).toBe(unit)
  })
})

describe('the file of a unit', () => {
  function units() {
    const folder = temporaryFolder()
    const folders = ['etc', 'run', 'lib'].map((name) => join(folder.path, name))
    return {
      ...folder,
      folders,
      at: (name: string) => join(folder.path, name),
      [Symbol.dispose]: () => folder[Symbol.dispose](),
    }
  }

  it('is the first in the order of precedence', async () => {
    using it = units()
    it.write('lib/web.service', '')
    expect(await fragmentPaths('web.service', it.folders)).toEqual([it.at('lib/web.service')])
    it.write('etc/web.service', '')
    expect(await fragmentPaths('web.service', it.folders)).toEqual([it.at('etc/web.service')])
  })

  it('of an instance is its own, or that of its template', async () => {
    using it = units()
    it.write('etc/app@.service', '')
    expect(await fragmentPaths('app@one.service', it.folders)).toEqual([it.at('etc/app@.service')])
    it.write('lib/app@one.service', '')
    expect(await fragmentPaths('app@one.service', it.folders)).toEqual([
      it.at('lib/app@one.service'),
    ])
  })

  it('that was linked has the path of the link, and the one it leads to', async () => {
    using it = units()
    const real = it.write('opt/web.service', '')
    it.link('etc/web.service', real)
    expect(await fragmentPaths('web.service', it.folders)).toEqual([it.at('etc/web.service'), real])
  })

  it('has both names of a folder that has two', async () => {
    using it = units()
    it.write('lib/web.service', '')
    it.link('old', it.at('lib'))
    const folders = [...it.folders, it.at('old')]
    expect(await fragmentPaths('web.service', folders)).toEqual([
      it.at('lib/web.service'),
      it.at('old/web.service'),
    ])
  })

  it('is none when the unit is masked, or nobody wrote one', async () => {
    using it = units()
    it.write('lib/web.service', '')
    it.link('etc/web.service', '/dev/null')
    expect(await fragmentPaths('web.service', it.folders)).toEqual([])
    expect(await fragmentPaths('session-2.scope', it.folders)).toEqual([])
  })

  it('selectors are of the unit and of its file, which is looked for when an entry asks for it', async () => {
    using it = units()
    const file = it.write('etc/web.service', '')
    using recorded = recordedProc({
      '7/cgroup': '0::/system.slice/web.service\n',
      '8/cgroup': '0::/\n',
    })
    const attestor = createSystemdAttestor({ proc: recorded.proc, folders: it.folders })
    const ask = (pid: number, demand = everything) =>
      attestor.attest(peer(pid), demand, { signal: never })
    expect([...(await ask(7)).selectors]).toEqual([
      'systemd:id:web.service',
      `systemd:fragment_path:${file}`,
    ])
    const less = await ask(7, { ...everything, kind: () => false })
    expect([...less.selectors]).toEqual(['systemd:id:web.service'])
    expect(await ask(8)).toEqual({ selectors: new Set(), missing: [] })
  })

  it('that is not found is absent, and said to be', async () => {
    using it = units()
    using recorded = recordedProc({ '7/cgroup': '0::/system.slice/web.service\n' })
    const attestor = createSystemdAttestor({ proc: recorded.proc, folders: it.folders })
    const { missing } = await attestor.attest(peer(7), everything, { signal: never })
    expect(missing).toEqual(['systemd:fragment_path (no unit file of web.service)'])
  })
})
