// nginx as the peer (stream proxy with mutual TLS) and as the workload behind both proxies.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { freePort } from '../../test/support/ports.ts'

const binary = '/usr/sbin/nginx'
const streamModule = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** What to do about a missing nginx; undefined when it is there. */
export function nginxProblem(): string | undefined {
  return existsSync(binary) && existsSync(streamModule)
    ? undefined
    : 'nginx with its stream module is missing: apt-get install -y nginx libnginx-mod-stream'
}

async function untilListening(port: number): Promise<void> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const socket = connect(port, '127.0.0.1')
    const isUp = await new Promise((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
    socket.destroy()
    if (isUp) return
    await setTimeout(50)
  }
  throw new Error(`nginx does not listen on ${port}`)
}

export interface Nginx extends AsyncDisposable {
  readonly pid: number
  readonly port: number
}

/** One process without master; `body` is what stands beside `events`. */
async function start(folder: string, name: string, port: number, body: string): Promise<Nginx> {
  const file = join(folder, `${name}.conf`)
  await writeFile(
    file,
    `load_module ${streamModule};
daemon off; master_process off; worker_processes 1;
pid ${join(folder, `${name}.pid`)};
error_log ${join(folder, `${name}.log`)} error;
events { worker_connections 1024; }
${body}
`,
  )
  const child: ChildProcess = spawn(binary, ['-c', file, '-e', join(folder, `${name}.log`)], {
    stdio: 'inherit',
  })
  const exited = new Promise((resolve) => child.once('exit', resolve))
  await untilListening(port)
  return {
    pid: child.pid ?? 0,
    port,
    async [Symbol.asyncDispose]() {
      child.kill()
      await exited
    },
  }
}

/** Directives of `http` that keep nginx inside `folder`. */
function quiet(folder: string): string {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${join(folder, kind)};`)
    .join(' ')
  return `access_log off; keepalive_requests 100000000; keepalive_timeout 1h; ${paths}`
}

export async function startWorkload(folder: string): Promise<Nginx> {
  const port = await freePort()
  const body = `http {
  ${quiet(folder)}
  server { listen 127.0.0.1:${port}; location / { return 200 "${'x'.repeat(1024)}"; } }
}`
  return await start(folder, 'workload', port, body)
}

const mutualTls = (folder: string) => `
    ssl_certificate ${join(folder, 'chain.pem')};
    ssl_certificate_key ${join(folder, 'key.pem')};
    ssl_client_certificate ${join(folder, 'root.pem')};
    ssl_verify_client on; ssl_verify_depth 4;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets off; ssl_session_cache off;
    tcp_nodelay on;`

export async function startStreamProxy(folder: string, workload: number): Promise<Nginx> {
  const port = await freePort()
  const body = `stream {
  server {
    listen 127.0.0.1:${port} ssl;${mutualTls(folder)}
    proxy_pass 127.0.0.1:${workload};
  }
}`
  return await start(folder, 'stream', port, body)
}

export async function startHttpProxy(folder: string, workload: number): Promise<Nginx> {
  const port = await freePort()
  const body = `http {
  ${quiet(folder)}
  upstream workload { server 127.0.0.1:${workload}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${port} ssl;${mutualTls(folder)}
    location / { proxy_pass http://workload; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}`
  return await start(folder, 'http', port, body)
}
