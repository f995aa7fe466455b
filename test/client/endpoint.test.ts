import { describe, expect, it } from 'vitest'
import { endpointFrom, endpointVariable, parseEndpoint } from '../../client/endpoint.ts'
import { refusalOf } from '../support/refusal.ts'

const unixHint = 'write unix:// and an absolute path, such as unix:///run/castellan/agent.sock'
const tcpHint = 'write tcp://IP:PORT, without host name, path or user'

function expectRefused(why: string, ...texts: readonly string[]): void {
  for (const text of texts) {
    expect(
      refusalOf(() => parseEndpoint(text)),
      text,
    ).toEqual({
      code: 'ERR_CONFIG',
      message: `${JSON.stringify(text)} is no Workload API endpoint: ${why}`,
    })
  }
}

describe('the Workload API endpoint', () => {
  it('WE-6 comes from SPIFFE_ENDPOINT_SOCKET when nothing is configured', () => {
    expect(endpointVariable).toBe('SPIFFE_ENDPOINT_SOCKET')
    const environment = { SPIFFE_ENDPOINT_SOCKET: 'unix:///from/environment' }
    expect(endpointFrom(undefined, environment)).toEqual({
      kind: 'unix',
      path: '/from/environment',
    })
    expect(endpointFrom('unix:///configured', environment)).toEqual({
      kind: 'unix',
      path: '/configured',
    })
    for (const none of [{}, { SPIFFE_ENDPOINT_SOCKET: '' }, { OTHER: 'unix:///a' }]) {
      expect(refusalOf(() => endpointFrom(undefined, none))).toEqual({
        code: 'ERR_CONFIG',
        message:
          'no Workload API endpoint: configure one, or set SPIFFE_ENDPOINT_SOCKET to unix:///path/to/agent.sock',
      })
    }
  })

  it('WE-7 is a URI with scheme unix or tcp', () => {
    expect(parseEndpoint('unix:///a')).toMatchObject({ kind: 'unix' })
    expect(parseEndpoint('tcp://127.0.0.1:1')).toMatchObject({ kind: 'tcp' })
    const others = [
      'http://127.0.0.1:1',
      '/run/agent.sock',
      '',
      ' unix:///a',
      'UNIX:///a',
      'npipe:x',
    ]
    expectRefused('the scheme has to be unix or tcp', ...others)
  })

  it('WE-8 unix has an absolute path and nothing else', () => {
    expect(parseEndpoint('unix:///a/b')).toEqual({ kind: 'unix', path: '/a/b' })
    expectRefused(
      unixHint,
      'unix://foo',
      'unix://foo/bar',
      'unix:rel',
      'unix:/a/b',
      'unix:',
      'unix://',
    )
    expectRefused(
      'a query, a fragment and escapes are not accepted',
      'unix:///a?b',
      'unix:///a#b',
      'unix:///a%20b',
    )
    expectRefused('the path is empty', 'unix:///')
  })

  it('WE-9 tcp has an IP and a port and nothing else', () => {
    expect(parseEndpoint('tcp://127.0.0.1:8000')).toEqual({
      kind: 'tcp',
      host: '127.0.0.1',
      port: 8000,
    })
    expect(parseEndpoint('tcp://[::1]:65535')).toEqual({ kind: 'tcp', host: '::1', port: 65_535 })
    expectRefused(
      tcpHint,
      'tcp://localhost:1',
      'tcp://127.0.0.1',
      'tcp://127.0.0.1:',
      'tcp://127.0.0.1:1/',
      'tcp://127.0.0.1:1/path',
      'tcp://127.0.0.1:1?x',
      'tcp://user@127.0.0.1:1',
      'tcp://256.0.0.1:1',
      'tcp://127.1:1',
      'tcp://::1:1',
      'tcp://[127.0.0.1]:1',
      'tcp://[::g]:1',
      'tcp:127.0.0.1:1',
    )
    expectRefused('the port is out of range', 'tcp://127.0.0.1:0', 'tcp://127.0.0.1:65536')
  })
})
