// docker: selectors, from engines that answer what was recorded, over real unix sockets.
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createContainerEngine } from '../../../agent/attest/container-engine.ts'
import { createLocateContainer } from '../../../agent/attest/container-place.ts'
import { createDockerAttestor, type Engines, engineAmong } from '../../../agent/attest/docker.ts'
import {
  containerId,
  everything,
  hastyClock,
  never,
  peer,
  recordedProc,
  serving,
  temporaryFolder,
  vector,
} from './recorded.ts'

const web = containerId('web')

/** An engine that knows the containers of these recordings. */
function engine(recordings: Readonly<Record<string, string>>): RequestListener {
  return ({ method, url = '' }, response) => {
    const id = /^\/containers\/([0-9a-f]{64})\/json$/.exec(url)?.[1]
    const recording = recordings[id ?? '']
    response.setHeader('content-type', 'application/json')
    if (method === 'GET' && recording !== undefined) response.end(vector(recording))
    else response.writeHead(404).end(`{"message":"No such container: ${id}"}`)
  }
}

async function listening(answer: RequestListener) {
  const folder = temporaryFolder()
  const socket = join(folder.path, 'engine.sock')
  const server = await serving(answer, socket)
  return {
    engine: createContainerEngine('Docker', socket),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}

const inDocker = '0::/system.slice/docker-<c:web>.scope\n'

async function attest(
  engines: Engines,
  cgroup: string,
  more: Readonly<Record<string, string>> = {},
) {
  using recorded = recordedProc({
    'self/cgroup': '0::/system.slice/agent.service\n',
    '7/cgroup': cgroup,
    ...more,
  })
  const attestor = createDockerAttestor({
    locate: createLocateContainer(recorded.proc),
    engineOf: engineAmong(engines),
    clock: hastyClock(),
  })
  return await attestor.attest(peer(7), everything, { signal: never })
}

describe('a process in a container', () => {
  it('has the labels, environment and image that Docker knows', async () => {
    await using docker = await listening(engine({ [web]: 'docker-container.json' }))
    const { selectors, missing } = await attest({ docker: docker.engine }, inDocker, {
      '4321/cgroup': inDocker,
    })
    expect([...selectors]).toEqual([
      'docker:label:com.docker.compose.project:shop',
      'docker:label:com.docker.compose.service:web',
      'docker:label:maintainer:NGINX Docker Maintainers <docker-maint@nginx.com>',
      'docker:env:PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'docker:env:NGINX_VERSION=1.27.4',
      'docker:env:DATABASE_PASSWORD=not-for-logs',
      'docker:image_id:nginx:1.27',
      `docker:image_config_digest:sha256:${containerId('image')}`,
    ])
    expect(missing).toEqual([])
  })

  it('of Podman is asked for at the socket of the machine, or at that of the user whose it is', async () => {
    await using podman = await listening(engine({ [web]: 'podman-container.json' }))
    const expected = [
      'docker:image_id:localhost/web:latest',
      `docker:image_config_digest:sha256:${containerId('image')}`,
    ]
    const machine = '0::/machine.slice/libpod-<c:web>.scope/container\n'
    const ofMachine = await attest({ podman: podman.engine }, machine, { '4321/cgroup': machine })
    expect([...ofMachine.selectors]).toEqual(expected)
    const user =
      '0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<c:web>.scope\n'
    const podmanOf = (uid: number) => (uid === 1000 ? podman.engine : undefined)
    const ofUser = await attest({ podmanOf }, user, { '4321/cgroup': user })
    expect([...ofUser.selectors]).toEqual(expected)
    // a user who is not believed, and the machine's Podman, which is not asked for what is a user's
    const other = user.replaceAll('1000', '1001')
    expect([...(await attest({ podmanOf, podman: podman.engine }, other)).selectors]).toEqual([])
  })

  it('that nobody knows has no selectors', async () => {
    await using docker = await listening(engine({}))
    const { selectors, missing } = await attest({ docker: docker.engine }, inDocker)
    expect([...selectors]).toEqual([])
    expect(missing).toEqual([`docker (nobody knows container ${web})`])
  })

  it('adversary: a cgroup with the name of a container elsewhere is not that container', async () => {
    await using docker = await listening(engine({ [web]: 'docker-container.json' }))
    const real = { '4321/cgroup': inDocker }
    const user = '0::/user.slice/user-1000.slice/user@1000.service/docker-<c:web>.scope\n'
    const inner = '0::/system.slice/docker-<c:evil>.scope/docker-<c:web>.scope\n'
    const root = '0::/docker/<c:web>\n'
    for (const cgroup of [user, inner, root]) {
      const { selectors } = await attest({ docker: docker.engine }, cgroup, real)
      expect([...selectors]).toEqual([])
    }
    const { missing } = await attest({ docker: docker.engine }, root, real)
    expect(missing).toEqual([`docker (container ${web} is in another cgroup)`])
  })

  it('that has stopped, by what the engine says, has no selectors', async () => {
    const stopped: RequestListener = (_, response) =>
      response.end(vector('docker-container.json').replace('"Pid": 4321', '"Pid": 0'))
    await using docker = await listening(stopped)
    const { selectors } = await attest({ docker: docker.engine }, inDocker, {
      '4321/cgroup': inDocker,
    })
    expect([...selectors]).toEqual([])
  })

  it('of Kubernetes is not asked for, and who is in none is asked about nowhere', async () => {
    const asked: RequestListener = () => expect.fail('asked')
    await using docker = await listening(asked)
    const pod = '0::/kubepods.slice/kubepods-pod<pod_:web>.slice/cri-containerd-<c:web>.scope\n'
    for (const cgroup of [pod, '0::/system.slice/nginx.service\n']) {
      expect(await attest({ docker: docker.engine }, cgroup)).toEqual({
        selectors: new Set(),
        missing: [],
      })
    }
  })
})

describe('an engine', () => {
  it('that is being restarted is asked again', async () => {
    let asked = 0
    const restarting: RequestListener = (_, response) => {
      if (++asked < 3) response.destroy()
      else response.end(vector('docker-container.json'))
    }
    await using docker = await listening(restarting)
    const { selectors } = await attest({ docker: docker.engine }, inDocker, {
      '4321/cgroup': inDocker,
    })
    expect([...selectors]).toContain('docker:image_id:nginx:1.27')
  })

  it('that is away, or answers something else, is a failure: nobody can say', async () => {
    using folder = temporaryFolder()
    const away = createContainerEngine('Docker', join(folder.path, 'none.sock'))
    await expect(attest({ docker: away }, inDocker)).rejects.toMatchObject({
      code: 'ERR_UNAVAILABLE',
    })
    const answers = [
      '{"Id": 1}',
      vector('docker-container.json').replaceAll(web, containerId('other')),
    ]
    for (const text of answers) {
      await using odd = await listening((_, response) => response.end(text))
      await expect(attest({ docker: odd.engine }, inDocker)).rejects.toThrow(
        'does not answer as an engine',
      )
    }
  })
})
