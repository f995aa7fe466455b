// The snippets of docs/files.md: read, and run by the programs that they are for.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { agentFileSets } from '../../../agent/files/config.ts'
import { loadWriteConfig } from '../../../agent/files/write-config.ts'
import { parseConfig, pathRelativeTo } from '../../../runtime/config.ts'
import { castellan } from '../../support/command.ts'
import { testFolder } from '../../support/folder.ts'
import { refusalOf } from '../../support/refusal.ts'
import { makeTestTls } from '../../support/test-tls.ts'

const text = readFileSync(join(import.meta.dirname, '../../../docs/files.md'), 'utf8')
const snippets = [...text.matchAll(/```(\w+)\n([\s\S]*?)```/g)].map(([, kind, body = '']) => ({
  kind,
  body,
}))
const folder = testFolder()
afterAll(() => folder[Symbol.dispose]())

const snippet = (kind: string, with_: string): string =>
  snippets.find((it) => it.kind === kind && it.body.includes(with_))?.body ?? ''

const noNginx = spawnSync('nginx', ['-v']).status !== 0
if (noNginx && process.env.CI === 'true') throw new Error('nginx is not installed')

const anyone = { user: () => 1, group: () => 2, whyNot: () => undefined }

describe('docs/files.md', () => {
  it('has files.yaml as castellan svid write reads it', () => {
    const file = join(folder.path, 'files.yaml')
    writeFileSync(file, snippet('yaml', 'sets:'))
    const { sets, operations } = loadWriteConfig(file)
    expect(operations).toEqual({ host: '127.0.0.1', port: 8086 })
    expect(sets[0]).toMatchObject({
      folder: '/var/lib/web/tls',
      notify: { pidFile: '/run/nginx.pid', signal: 'HUP' },
    })
  })

  it('has the part of agent.yaml as the agent reads it', () => {
    const file = join(folder.path, 'agent.yaml')
    const sets = agentFileSets(pathRelativeTo(file), anyone)
    const { files } = parseConfig(snippet('yaml', 'id:'), file, z.strictObject({ files: sets }))
    expect(files[0]).toMatchObject({ owner: 1, group: 2, mode: 0o640 })
  })

  it('names commands and options that there are', async () => {
    const commands = [
      ...text.matchAll(/castellan (svid \w+|agent \w+)((?: x509| jwt)?(?: --\w+)*)/g),
    ]
    expect(commands.length).toBeGreaterThan(5)
    for (const [, command = '', rest = ''] of commands) {
      const { code, stdout } = await castellan([...command.split(' '), '--help'])
      expect([command, code]).toEqual([command, 0])
      for (const [option] of rest.matchAll(/--\w+/g)) expect(stdout).toContain(option)
    }
  })

  it('names every key and every kind of file', () => {
    const wrong = '- { id: spiffe://a/b, folder: x, files: [{ name: n, holds: nothing }] }'
    const sets = agentFileSets(pathRelativeTo('f'), anyone)
    const { message = '' } = refusalOf(() => parseConfig(wrong, 'f', sets)) ?? {}
    const names = /Expected (.*)$/.exec(message)?.[1]?.match(/[a-z0-9+-]+/g) ?? []
    expect(names).toHaveLength(10)
    for (const name of names)
      expect(text).toMatch(new RegExp(`^\\|.*\`${name.replace('+', '\\+')}\``, 'm'))
  })

  it.skipIf(noNginx)(
    `has directives that nginx takes (${noNginx ? 'not installed' : 'it is here'})`,
    async () => {
      const set = join(folder.path, 'tls/current')
      mkdirSync(set, { recursive: true })
      const { ca, cert, key } = await makeTestTls()
      for (const [name, pem] of Object.entries({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': ca }))
        writeFileSync(join(set, name), pem)
      const directives = snippet('nginx', 'ssl_').replaceAll('/var/lib/web/tls/current', set)
      const config = join(folder.path, 'nginx.conf')
      writeFileSync(
        config,
        `pid ${folder.path}/pid; error_log stderr; events {}
http { client_body_temp_path ${folder.path}/b; proxy_temp_path ${folder.path}/p; fastcgi_temp_path ${folder.path}/f; uwsgi_temp_path ${folder.path}/u; scgi_temp_path ${folder.path}/s;
  server { listen 127.0.0.1:1 ssl; ${directives} } }`,
      )
      // says what is wrong and throws
      execFileSync('nginx', ['-t', '-q', '-e', 'stderr', '-c', config])
    },
  )
})
