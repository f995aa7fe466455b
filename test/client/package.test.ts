// The package as third parties use it: every snippet of docs/library.md, and the declarations by tsc.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTestAuthority } from '../support/mesh.ts'
import { freePort } from '../support/ports.ts'
import { type Consumer, installLibrary, startProgram } from './package.ts'
import { startWorkload } from './workload.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '../..')
const authority = makeTestAuthority('example.org')
const payments = 'spiffe://example.org/payments'
const web = 'spiffe://example.org/web'

/** The snippets of docs/library.md by the heading that they stand below. */
const snippets = new Map(
  readFileSync(join(root, 'docs/library.md'), 'utf8')
    .split(/^## /m)
    .map((part) => [part.split('\n')[0] ?? '', /```js\n([^`]|`(?!``))*```/.exec(part)?.[0] ?? '']),
)

function snippet(heading: string): string {
  const text = snippets.get(heading) ?? ''
  if (text === '') throw new Error(`no snippet below ${heading}`)
  return text.replace(/^```js\n/, '').replace(/```$/, '')
}

let project: Consumer
let asPayments: Awaited<ReturnType<typeof startWorkload>>
let asWeb: Awaited<ReturnType<typeof startWorkload>>
beforeAll(async () => {
  project = await installLibrary(['fastify', '@types/node', 'undici-types'])
  asPayments = await startWorkload(authority, [authority.issue(payments)])
  const admin = { ...authority.issue('spiffe://example.org/admin'), hint: 'admin' }
  asWeb = await startWorkload(authority, [authority.issue(web), admin])
})
afterAll(async () => {
  project[Symbol.dispose]()
  await asPayments[Symbol.asyncDispose]()
  await asWeb[Symbol.asyncDispose]()
})

/** Runs the server below `heading` and asks it by the five lines of the first snippet. */
async function answerOf(heading: string, change = (text: string) => text): Promise<string> {
  const port = String(await freePort())
  const at = (text: string) => text.replaceAll('8443', port)
  await using server = startProgram(project, at(snippet(heading)), asPayments.uri)
  await server.says('listening')
  const client = startProgram(project, at(change(snippet('Ask a server'))), asWeb.uri)
  return await client.output
}

describe('the installed package', () => {
  it('asks a server in five lines', async () => {
    expect(snippet('Ask a server').trim().split('\n')).toHaveLength(5)
    expect(await answerOf('Be a server')).toBe(`/balance for ${web}\n`)
  })

  it('refuses another server', async () => {
    const other = (text: string) => text.replace('/payments', '/orders')
    await expect(answerOf('Be a server', other)).rejects.toThrow('ERR_UNTRUSTED')
  })

  it('serves by Fastify', async () => {
    const heading = 'Be a server with Fastify'
    expect(await answerOf(heading)).toBe(`balance for ${web}\n`)
    const admin = (text: string) => text.replace('/balance', '/admin')
    expect(await answerOf(heading, admin)).toBe('{"error":"access denied"}\n')
  })

  it.each([
    ['Plain TLS', `${web} says: hello ${web}\n`],
    ['Tokens', `${web} ${web} true\n`],
    [
      'Several identities, and what else the agent says',
      `${web}\nspiffe://example.org/admin\nexample.org 1\n0\n`,
    ],
  ])('does what docs/library.md shows below %s, and ends', async (heading, output) => {
    expect(await startProgram(project, snippet(heading), asWeb.uri).output).toBe(output)
  })

  it('has every snippet of its document run by this file', () => {
    const known = ['Ask a server', 'Be a server', 'Be a server with Fastify', 'Plain TLS', 'Tokens']
    const found = [...snippets].flatMap(([heading, text]) => (text === '' ? [] : [heading]))
    expect(found).toEqual([...known, 'Several identities, and what else the agent says'])
  })

  it('is typed', async () => {
    const program = `import { createFetch, endpointFrom, IdentityError, type Matcher, matchId, parseSpiffeId, startJwtSource, startX509Source, type SpiffeId } from 'castellan'
import { spiffe, spiffeServer } from 'castellan/fastify'
import Fastify from 'fastify'

const endpoint = endpointFrom(undefined, process.env)
const accept: Matcher = matchId(parseSpiffeId('spiffe://example.org/payments'))
await using source = startX509Source(endpoint)
using fetch = createFetch(source)
export const response: Response = await fetch('https://localhost', { accept, method: 'POST', body: 'x' })
export const app = Fastify({ serverFactory: spiffeServer(source, { accept }) })
await app.register(spiffe)
app.get('/', { config: { accept } }, async (request): Promise<SpiffeId> => request.spiffeId)
await using tokens = startJwtSource(endpoint)
export const token: string = (await tokens.fetch(['a', 'b'])).token
export const code = (error: unknown) => error instanceof IdentityError && error.code === 'ERR_UNTRUSTED'
// @ts-expect-error a matcher has to be given
await fetch('https://localhost', {})
// @ts-expect-error a text is no SPIFFE ID
matchId('spiffe://example.org/payments')
`
    writeFileSync(join(project.folder, 'program.ts'), program)
    const compilerOptions = {
      ...{ strict: true, noEmit: true, exactOptionalPropertyTypes: true, skipLibCheck: false },
      ...{ target: 'es2024', lib: ['es2024', 'esnext.disposable'], types: ['node'] },
      ...{ module: 'nodenext', moduleResolution: 'nodenext' },
    }
    const config = JSON.stringify({ compilerOptions, files: ['program.ts'] })
    writeFileSync(join(project.folder, 'tsconfig.json'), config)
    const tsc = join(root, 'node_modules/.bin/tsc')
    const checked = run(tsc, ['-p', '.'], { cwd: project.folder })
    const complaints = await checked.then(
      () => '',
      (error: unknown) => String(Reflect.get(Object(error), 'stdout')),
    )
    expect(complaints).toBe('')
  })
})
