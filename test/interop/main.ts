// `npm run interop [-- NAME...]`: real clients against our servers, one after the other.
import { explain } from '../../spiffe/errors.ts'
import type { Interop, Outcome } from './interop.ts'

// loaded when it is their turn, so that one that does not even load fails alone
const clients: readonly { name: string; load: () => Promise<Interop> }[] = [
  { name: 'grpc-go', load: async () => (await import('./grpc-go.ts')).grpcGo },
  { name: 'go-spiffe', load: async () => (await import('./go-spiffe.ts')).goSpiffe },
  { name: 'library', load: async () => (await import('./library.ts')).library },
  { name: 'spire-cli', load: async () => (await import('./spire-cli.ts')).spireCli },
  { name: 'istio-csr', load: async () => (await import('./istio-csr.ts')).istioCsr },
  { name: 'grpcurl', load: async () => (await import('./grpcurl.ts')).grpcurl },
  { name: 'ghostunnel', load: async () => (await import('./ghostunnel.ts')).ghostunnel },
  { name: 'envoy-authz', load: async () => (await import('./envoy-authz.ts')).envoyAuthz },
  { name: 'envoy-sds', load: async () => (await import('./envoy-sds.ts')).envoySds },
  { name: 'envoy-rbac', load: async () => (await import('./envoy-rbac.ts')).envoyRbac },
  {
    name: 'envoy-certificates',
    load: async () => (await import('./envoy-certificates.ts')).envoyCertificates,
  },
  { name: 'envoy-corpus', load: async () => (await import('./envoy-corpus.ts')).envoyCorpus },
  { name: 'envoy', load: async () => (await import('./envoy.ts')).envoy },
  { name: 'envoy-revoked', load: async () => (await import('./envoy-revoked.ts')).envoyRevoked },
  {
    name: 'envoy-killed-agent',
    load: async () => (await import('./envoy-killed-agent.ts')).envoyKilledAgent,
  },
  { name: 'grpc-js-xds', load: async () => (await import('./grpc-js-xds.ts')).grpcJsXds },
  { name: 'python-xds', load: async () => (await import('./python-xds.ts')).pythonXds },
  { name: 'spire-agent', load: async () => (await import('./spire-agent.ts')).spireAgent },
  { name: 'spire-server', load: async () => (await import('./spire-server.ts')).spireServer },
]

const ci = process.env.CI === 'true'
const log = (line: string) => console.log(`  ${line}`)

type Result = Outcome | { readonly kind: 'failed'; readonly reason: string }

async function run(load: () => Promise<Interop>): Promise<Result> {
  try {
    const client = await load()
    const outcome = await client.run({ log })
    if (outcome.kind === 'ok' || !ci) return outcome
    return { kind: 'failed', reason: `skipped, which CI does not allow: ${outcome.reason}` }
  } catch (error) {
    return { kind: 'failed', reason: explain(error).replaceAll('\n', ' ') }
  }
}

async function runAll(wanted: readonly string[]): Promise<number> {
  const counts = { ok: 0, failed: 0, skipped: 0 }
  for (const { name, load } of clients) {
    if (wanted.length > 0 && !wanted.includes(name)) continue
    const result = await run(load)
    counts[result.kind]++
    const reason = result.kind === 'ok' ? '' : `: ${result.reason}`
    console.log(`interop ${name}: ${result.kind}${reason}`)
  }
  console.log(`interop: ${counts.ok} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  return counts.failed === 0 ? 0 : 1
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes('--list')) {
    for (const { name } of clients) console.log(name)
    return 0
  }
  const unknown = args.filter((wanted) => !clients.some(({ name }) => name === wanted))
  if (unknown.length === 0) return runAll(args)
  console.error(`interop: no client is named ${unknown.join(', ')}; --list names them all`)
  return 2
}

process.exitCode = await main(process.argv.slice(2))
