// The attestors that a configuration names, and whose word they take.
import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type AttestorsConfig, attestorsConfig } from '../../../agent/attest/config.ts'
import { attestorsOf, kubeletOf } from '../../../agent/attest/workload-attestor.ts'
import { pathRelativeTo } from '../../../runtime/config.ts'
import {
  everything,
  hastyClock,
  never,
  peer,
  type RecordedProc,
  recordedProc,
  serving,
  temporaryFolder,
  vector,
} from './recorded.ts'

const read = (value: unknown): AttestorsConfig =>
  attestorsConfig(pathRelativeTo('agent.yaml')).parse(value)

function attestors(value: unknown, { proc }: RecordedProc) {
  const [config, clock] = [read(value), hastyClock()]
  return attestorsOf(config, { proc, pods: kubeletOf(config, clock), clock })
}

it('are those that are named; Docker and Podman are one, as their selectors are', () => {
  using recorded = recordedProc({})
  const types = (value: unknown) => attestors(value, recorded).map(({ type }) => type)
  expect(types(undefined)).toEqual(['unix'])
  const podman = { socket: '/run/podman/podman.sock' }
  const kubernetes = { kubelet: 'http://127.0.0.1:10255' }
  expect(types({ systemd: {}, docker: {}, podman, kubernetes })).toEqual([
    'systemd',
    'docker',
    'k8s',
  ])
})

describe('the Podman of a user', () => {
  const own = process.getuid?.() ?? 0

  async function selectorsFor(owner: number, users: readonly number[], socketOwner = own) {
    using folder = temporaryFolder()
    const socket = join(folder.path, `${owner}.sock`)
    await using _server = await serving(
      (_, response) => response.end(vector('podman-container.json')),
      socket,
    )
    if (socketOwner !== own) chownSync(socket, socketOwner, socketOwner)
    const cgroup = `0::/user.slice/user-${owner}.slice/user@${owner}.service/user.slice/libpod-<c:web>.scope\n`
    using recorded = recordedProc({
      'self/cgroup': '0::/\n',
      '7/cgroup': cgroup,
      '4321/cgroup': cgroup,
    })
    const [docker] = attestors(
      { podman: { sockets: `${folder.path}/{uid}.sock`, users } },
      recorded,
    )
    const answer = await docker?.attest(peer(7), everything, { signal: never })
    return [...(answer?.selectors ?? [])]
  }

  it('is believed when it is named', async () => {
    expect(await selectorsFor(own, [own])).toContain('docker:image_id:localhost/web:latest')
    expect(await selectorsFor(own, [own + 1])).toEqual([])
  })

  it.skipIf(own !== 0)('is not believed at a socket that somebody else has made', async () => {
    expect(await selectorsFor(1000, [1000], 1000)).toContain('docker:image_id:localhost/web:latest')
    expect(await selectorsFor(1000, [1000], 1001)).toEqual([])
  })
})
