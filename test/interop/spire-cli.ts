// The stock spire-server command line against our local socket, as an operator of SPIRE types it.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAuthority } from '../../ca/x509.ts'
import { toPem } from '../../spiffe/pem.ts'
import { startTestCa } from '../support/ca.ts'
import type { Interop, Outcome, Surroundings } from './interop.ts'
import { buildStock } from './stock.ts'

interface Said {
  readonly code: number
  readonly text: string
}

function runner(program: string, socket: string) {
  return (...args: string[]): Promise<Said> => {
    const { promise, resolve } = Promise.withResolvers<Said>()
    const all = [...args, '-socketPath', socket]
    execFile(program, all, { timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, text: stdout + stderr }),
    )
    return promise
  }
}

function demand(said: Said, pattern: RegExp, what: string): RegExpExecArray {
  const found = pattern.exec(said.text)
  if (said.code === 0 && found !== null) return found
  throw new Error(`${what}: exit ${said.code}, no ${pattern} in: ${said.text.trim().slice(0, 600)}`)
}

type Cli = ReturnType<typeof runner>

async function entries(cli: Cli): Promise<void> {
  const created = await cli(
    ...['entry', 'create', '-parentID', 'spiffe://example.org/node', '-spiffeID'],
    ...['spiffe://example.org/web', '-selector', 'unix:uid:1000', '-x509SVIDTTL', '600'],
    ...['-dns', 'web.example', '-hint', 'front'],
  )
  const [, id = ''] = demand(created, /Entry ID +: (\S+)/, 'entry create')
  demand(
    await cli('entry', 'show'),
    /Found 1 entry[\s\S]*spiffe:\/\/example\.org\/web/,
    'entry show',
  )
  demand(
    await cli('entry', 'show', '-entryID', id),
    /DNS name +: web\.example/,
    'entry show -entryID',
  )
  const superset = ['entry', 'show', '-selector', 'unix:uid:1000', '-matchSelectorsOn', 'exact']
  demand(await cli(...superset), /Found 1 entry/, 'entry show by selector')
  demand(await cli('entry', 'count'), /^1 registration entry/m, 'entry count')
  const updated = await cli(
    ...['entry', 'update', '-entryID', id, '-parentID', 'spiffe://example.org/node'],
    ...['-spiffeID', 'spiffe://example.org/web', '-selector', 'unix:uid:1001'],
  )
  demand(updated, /unix:uid:1001/, 'entry update')
  demand(await cli('entry', 'delete', '-entryID', id), /Deleted entry/, 'entry delete')
  demand(await cli('entry', 'count'), /^0 registration entries/m, 'entry count')
}

async function agents(cli: Cli): Promise<void> {
  const alias = ['token', 'generate', '-spiffeID', 'spiffe://example.org/node', '-ttl', '60']
  demand(await cli(...alias), /Token: \S{16,}/, 'token generate')
  demand(await cli('agent', 'list'), /No attested agents found/, 'agent list')
  demand(await cli('agent', 'count'), /^0 attested agents/m, 'agent count')
}

async function bundles(cli: Cli, folder: string): Promise<void> {
  demand(await cli('bundle', 'show'), /BEGIN CERTIFICATE/, 'bundle show')
  demand(
    await cli('bundle', 'show', '-format', 'spiffe'),
    /"use": "jwt-svid"/,
    'bundle show as JWKS',
  )
  const now = Date.now()
  const made = await createAuthority({
    trustDomain: 'other.test',
    notBefore: now - 60_000,
    notAfter: now + 3_600_000,
  })
  const file = join(folder, 'other.pem')
  writeFileSync(file, toPem(made.certificate, 'CERTIFICATE'))
  const id = 'spiffe://other.test'
  demand(await cli('bundle', 'set', '-id', id, '-path', file), /bundle set/, 'bundle set')
  demand(await cli('bundle', 'list'), /other\.test/, 'bundle list')
  demand(await cli('bundle', 'count'), /^2 bundles/m, 'bundle count')
  demand(await cli('bundle', 'delete', '-id', id), /bundle deleted/, 'bundle delete')
  const relationship = ['-trustDomain', 'other.test', '-bundleEndpointProfile', 'https_web']
  const url = (path: string) => ['-bundleEndpointURL', `https://other.test/${path}`]
  demand(
    await cli('federation', 'create', ...relationship, ...url('a')),
    /https:\/\/other\.test\/a/,
    'federation create',
  )
  demand(await cli('federation', 'list'), /Found 1 federation relationship/, 'federation list')
  demand(
    await cli('federation', 'update', ...relationship, ...url('b')),
    /https:\/\/other\.test\/b/,
    'federation update',
  )
  demand(
    await cli('federation', 'show', '-trustDomain', 'other.test'),
    /test\/b/,
    'federation show',
  )
  demand(await cli('federation', 'delete', '-id', 'other.test'), /deleted/, 'federation delete')
}

async function minting(cli: Cli): Promise<void> {
  const id = 'spiffe://example.org/minted'
  const x509 = await cli('x509', 'mint', '-spiffeID', id, '-ttl', '10m')
  demand(x509, /X509-SVID:[\s\S]*BEGIN CERTIFICATE[\s\S]*BEGIN PRIVATE KEY/, 'x509 mint')
  const jwt = await cli('jwt', 'mint', '-spiffeID', id, '-audience', 'them', '-ttl', '1m')
  demand(jwt, /^eyJ[\w-]+\.[\w-]+\.[\w-]+\s/, 'jwt mint')
}

async function rotation(cli: Cli, kind: 'x509' | 'jwt'): Promise<void> {
  const of = (...args: string[]) => cli('localauthority', kind, ...args)
  const shown = await of('show')
  const [, old = ''] = demand(shown, /Active[\s\S]*?Authority ID: (\S+)/, `${kind} show`)
  const [, next = ''] = demand(await of('prepare'), /Authority ID: (\S+)/, `${kind} prepare`)
  const step = async (verb: string, id: string) =>
    demand(await of(verb, '-authorityID', id), new RegExp(id), `${kind} ${verb}`)
  await step('activate', next)
  await step('taint', old)
  await step('revoke', old)
}

async function logger(cli: Cli): Promise<void> {
  demand(await cli('logger', 'get'), /Logger Level +: debug/, 'logger get')
  demand(await cli('logger', 'set', '-level', 'warn'), /Logger Level +: warn/, 'logger set')
  demand(await cli('logger', 'reset'), /Logger Level +: debug/, 'logger reset')
}

async function run(surroundings: Surroundings): Promise<Outcome> {
  const stock = await buildStock(surroundings)
  if (stock.kind === 'skipped') return stock
  const folder = mkdtempSync(join(tmpdir(), 'castellan-spire-cli-'))
  try {
    await using ca = await startTestCa({ folder })
    const cli = runner(stock.server, ca.running.socket)
    const parts = {
      healthcheck: async () =>
        void demand(await cli('healthcheck'), /Server is healthy/, 'healthcheck'),
      entry: () => entries(cli),
      'token and agent': () => agents(cli),
      'bundle and federation': () => bundles(cli, folder),
      'x509 and jwt mint': () => minting(cli),
      'localauthority x509': () => rotation(cli, 'x509'),
      'localauthority jwt': () => rotation(cli, 'jwt'),
      logger: () => logger(cli),
    }
    for (const [name, part] of Object.entries(parts)) {
      await part()
      surroundings.log(`ok: ${name}`)
    }
    return { kind: 'ok' }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export const spireCli: Interop = { name: 'spire-cli', run }
