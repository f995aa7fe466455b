// `attestors` of agent.yaml: what may be written, and what is refused.
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { attestorsConfig } from '../../../agent/attest/config.ts'

const schema = attestorsConfig(
  z
    .string()
    .min(1)
    .transform((path) => resolve('/etc/castellan', path)),
)
const problems = (value: unknown) =>
  schema.safeParse(value).error?.issues.map(({ message }) => message) ?? []

describe('attestors', () => {
  it('are unix alone when nothing is said', () => {
    expect(schema.parse(undefined)).toEqual({ unix: { hashLimit: 256 * 1024 ** 2 } })
  })

  it('are those that are named, with their defaults', () => {
    const value = {
      unix: { hashLimit: '64MiB' },
      systemd: {},
      docker: {},
      podman: {
        socket: '/run/podman/podman.sock',
        sockets: '/run/user/{uid}/podman/podman.sock',
        users: [1000],
      },
      kubernetes: { ca: 'kubelet-ca.pem', token: 'token', nodeName: 'node-1', wait: '2s' },
    }
    expect(schema.parse(value)).toEqual({
      unix: { hashLimit: 64 * 1024 ** 2 },
      systemd: {},
      docker: { socket: '/var/run/docker.sock' },
      podman: value.podman,
      kubernetes: {
        kubelet: 'https://127.0.0.1:10250',
        ca: '/etc/castellan/kubelet-ca.pem',
        token: '/etc/castellan/token',
        nodeName: 'node-1',
        wait: 2000,
      },
    })
  })

  const refused: [name: string, value: unknown, problem: string][] = [
    ['none', {}, 'name one attestor'],
    ['unknown ones', { unix: {}, slurm: {} }, 'slurm'],
    ['unknown keys', { unix: { discover_workload_path: true } }, 'discover_workload_path'],
    ['a size in words', { unix: { hashLimit: 'large' } }, 'a size is'],
    ['Podman without a socket', { podman: {} }, 'give socket or sockets'],
    [
      'sockets of users, and nobody who is believed',
      { podman: { sockets: '/run/user/{uid}/p.sock' } },
      'belong together',
    ],
    [
      'sockets of users without the user',
      { podman: { sockets: '/run/p.sock', users: [1] } },
      'names {uid} once',
    ],
    ['a kubelet unseen', { kubernetes: {} }, 'https needs ca'],
    [
      'a kubelet over plain HTTP elsewhere',
      { kubernetes: { kubelet: 'http://192.0.2.1:10255' } },
      'the kubelet is',
    ],
    ['half a client certificate', { kubernetes: { ca: 'a', certificate: 'b' } }, 'belong together'],
    ['a long wait', { kubernetes: { ca: 'a', wait: '5m' } }, '30s at most'],
  ]
  it.each(refused)('%s: refused', (_, value, problem) => {
    expect(problems(value).join()).toContain(problem)
  })

  it('the port of a kubelet that is for reading needs nothing', () => {
    const { kubernetes } = schema.parse({ kubernetes: { kubelet: 'http://127.0.0.1:10255' } })
    expect(kubernetes?.kubelet).toBe('http://127.0.0.1:10255')
  })
})
