// Generates proto/gen from the .proto texts beside this file, and from Envoy's, which come with a package.
// Idempotent and safe to run from two processes at once: the output is written aside and renamed, and a
// stamp says which texts it is of.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const here = import.meta.dirname
const root = join(here, '..')
const gen = join(here, 'gen')
const envoy = join(root, 'node_modules/@grpc/grpc-js-xds')

/** What of Envoy's API is generated: these, and whatever they import. */
const envoyRoots = [
  'envoy/config/bootstrap/v3/bootstrap.proto',
  'envoy/extensions/access_loggers/file/v3/file.proto',
  'envoy/extensions/access_loggers/stream/v3/stream.proto',
  'envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto',
  'envoy/extensions/filters/http/health_check/v3/health_check.proto',
  'envoy/extensions/filters/http/rbac/v3/rbac.proto',
  'envoy/extensions/filters/http/router/v3/router.proto',
  'envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto',
  'envoy/extensions/filters/network/connection_limit/v3/connection_limit.proto',
  'envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto',
  'envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto',
  'envoy/extensions/filters/network/rbac/v3/rbac.proto',
  'envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto',
  'envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto',
  'envoy/extensions/matching/common_inputs/ssl/v3/ssl_inputs.proto',
  'envoy/extensions/matching/input_matchers/ip/v3/ip.proto',
  'envoy/extensions/transport_sockets/tls/v3/secret.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls.proto',
  'envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto',
  'envoy/extensions/upstreams/http/v3/http_protocol_options.proto',
  'envoy/service/auth/v3/external_auth.proto',
  'envoy/service/discovery/v3/ads.proto',
  'envoy/service/secret/v3/sds.proto',
  'envoy/type/matcher/v3/http_inputs.proto',
]

/** Where an import is looked for: what we have ourselves is not taken from elsewhere. */
const folders = [
  here,
  ...['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'].map((it) => join(envoy, 'deps', it)),
]

/** Texts that need mending: the package's validate.proto is older than those that use it, tcp_proxy.proto than Envoy. */
const mended: Readonly<Record<string, readonly [string, string]>> = {
  'validate/validate.proto': [
    'optional bool strict = 25 [default = true];',
    'optional bool strict = 25 [default = true];\n  optional bool ignore_empty = 26;',
  ],
  'envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto': [
    '  TcpAccessLogOptions access_log_options = 17;',
    [
      '  TcpAccessLogOptions access_log_options = 17;',
      '  enum UpstreamConnectMode { IMMEDIATE = 0; ON_DOWNSTREAM_DATA = 1; }',
      '  UpstreamConnectMode upstream_connect_mode = 21;',
      '  google.protobuf.UInt32Value max_early_data_bytes = 22;',
    ].join('\n'),
  ],
}

const ownTexts = () => globSync('**/*.proto', { cwd: here }).sort()

function fingerprint(): string {
  const hash = createHash('sha256').update(readFileSync(import.meta.filename))
  // a version of the package never changes its texts
  hash.update(readFileSync(join(envoy, 'package.json')))
  for (const file of ownTexts()) {
    hash
      .update(file)
      .update('\0')
      .update(readFileSync(join(here, file)))
  }
  return hash.digest('hex')
}

function isFresh(stamp: string): boolean {
  const file = join(gen, 'stamp')
  return existsSync(file) && readFileSync(file, 'utf8') === stamp
}

/** Undefined for google/protobuf/*, which buf has built in. */
function textOf(file: string): string | undefined {
  const folder = folders.find((it) => existsSync(join(it, file)))
  if (folder === undefined) return undefined
  const text = readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n')
  const [before, after] = mended[file] ?? ['', '']
  if (!text.includes(before)) throw new Error(`${file} is not what is mended here: ${before}`)
  return text.replace(before, after)
}

/** `files` and all that they import, by name. */
function closure(files: readonly string[]): ReadonlyMap<string, string> {
  const texts = new Map<string, string>()
  const open = [...files]
  for (let file = open.pop(); file !== undefined; file = open.pop()) {
    if (texts.has(file)) continue
    const text = textOf(file)
    if (text === undefined) continue
    texts.set(file, text)
    for (const [, name = ''] of text.matchAll(/^import +(?:public +)?"([^"]+)"/gm)) open.push(name)
  }
  return texts
}

function template(texts: string, out: string): string {
  const plugin = join(root, 'node_modules/.bin/protoc-gen-es')
  const opt = ['target=js+dts', 'import_extension=js']
  // one run of the plugin for all folders: Node starts once
  const plugins = [{ local: [process.execPath, plugin], out, opt, strategy: 'all' }]
  return JSON.stringify({ version: 'v2', inputs: [{ directory: texts }], plugins })
}

/** A folder that is gone when its user is done. */
function temporaryFolder(prefix: string): Disposable & { readonly path: string } {
  const path = mkdtempSync(prefix)
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

function generateInto(out: string): void {
  // not beside our texts: whoever looks for those would find these too
  using texts = temporaryFolder(join(tmpdir(), 'castellan-proto-'))
  for (const [file, text] of closure([...ownTexts(), ...envoyRoots])) {
    mkdirSync(dirname(join(texts.path, file)), { recursive: true })
    writeFileSync(join(texts.path, file), text)
  }
  const done = spawnSync(
    process.execPath,
    [join(root, 'node_modules/.bin/buf'), 'generate', '--template', template(texts.path, out)],
    { cwd: here, encoding: 'utf8' },
  )
  if (done.status === 0) return
  throw new Error(`generating proto/gen failed: ${done.stderr || done.error?.message}`)
}

function replace(made: string, old: string): void {
  if (existsSync(gen)) renameSync(gen, old)
  try {
    renameSync(made, gen)
  } catch (error) {
    // another process was faster; its output is of the same texts or the next run notices
    if (!existsSync(gen)) throw error
  }
}

function generate(stamp: string): void {
  using aside = temporaryFolder(join(here, '.gen-'))
  const made = join(aside.path, 'gen')
  generateInto(made)
  writeFileSync(join(made, 'stamp'), stamp)
  replace(made, join(aside.path, 'old'))
}

const stamp = fingerprint()
// the stamp's age is what bin/castellan looks at
if (isFresh(stamp)) utimesSync(join(gen, 'stamp'), new Date(), new Date())
else generate(stamp)
