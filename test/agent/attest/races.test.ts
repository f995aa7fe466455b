// Processes that connect and are gone, and pids that somebody else has by then: every answer is a refusal or
// right.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createWorkloadAttestor } from '../../../agent/attest/attestor.ts'
import { createNames } from '../../../agent/attest/names.ts'
import { createProcesses, type PeerProcess } from '../../../agent/attest/peer-credentials.ts'
import { createProc } from '../../../agent/attest/proc.ts'
import { createUnixAttestor } from '../../../agent/attest/unix.ts'
import { hasCode } from '../../../spiffe/errors.ts'
import { everything, never, temporaryFolder } from './recorded.ts'

const hasPerl = spawnSync('perl', ['-MIO::Socket::UNIX', '-e', '1']).status === 0
if (!hasPerl && process.env.CI === 'true') throw new Error('there is no perl to fork fast with')
const isRoot = process.getuid?.() === 0

const proc = createProc()
const processes = createProcesses({ proc })
const attestor = createWorkloadAttestor(
  [createUnixAttestor({ proc, names: createNames(), programHash: undefined })],
  proc,
)
const unhashed = { ...everything, kind: (kind: string) => kind !== 'unix:sha256' }

/** A socket that everybody may connect to. */
async function openSocket() {
  const folder = temporaryFolder()
  chmodSync(folder.path, 0o755)
  const path = join(folder.path, 'agent.sock')
  const server: Server = createServer().listen(path)
  await once(server, 'listening')
  chmodSync(path, 0o777)
  return {
    server,
    path,
    [Symbol.dispose]() {
      server.close()
      folder[Symbol.dispose]()
    },
  }
}

/** What a child says of itself as it connects: its pid, its user, and what it does next. */
const children = 300
const forking = `
  use IO::Socket::UNIX; use POSIX ();
  my ($path, $children) = @ARGV;
  $| = 1;
  for my $i (1 .. $children) {
    my $child = fork // die;
    if ($child == 0) {
      if ($> == 0) { my $id = 20000 + $i; POSIX::setgid($id); POSIX::setuid($id); }
      my $socket = IO::Socket::UNIX->new($path) or POSIX::_exit(1);
      my $deed = (qw(end wait run hand-on))[$i % 4];
      syswrite $socket, "$$ $> $deed\\n";
      if ($deed eq 'wait') { sysread $socket, my $answer, 1; }
      if ($deed eq 'run') { $^F = 255; exec '/bin/sleep', '0.2'; }
      if ($deed eq 'hand-on') { if (fork == 0) { sysread $socket, my $answer, 1; } }
      POSIX::_exit(0);
    }
    waitpid -1, POSIX::WNOHANG;
  }
  1 while wait > 0;
`

interface Answer {
  readonly claimed: string
  readonly selectors: ReadonlySet<string> | undefined
  readonly pid: number | undefined
}

async function claimOf(socket: Socket): Promise<string> {
  socket.on('error', () => {})
  for await (const data of socket) return String(data).trim()
  return ''
}

async function answerTo(socket: Socket, peer: PeerProcess | undefined): Promise<Answer> {
  const claim = claimOf(socket)
  try {
    const { selectors } =
      peer === undefined
        ? { selectors: undefined }
        : await attestor.attest(peer, unhashed, { signal: never })
    return { claimed: await claim, selectors, pid: peer?.pid }
  } catch (error) {
    if (!hasCode(error, 'ERR_DENIED')) throw error
    return { claimed: await claim, selectors: undefined, pid: peer?.pid }
  } finally {
    peer?.[Symbol.dispose]()
    socket.destroy()
  }
}

function identified(socket: Socket): PeerProcess | undefined {
  try {
    return processes.identify(socket)
  } catch (error) {
    if (!hasCode(error, 'ERR_DENIED')) throw error
    return undefined
  }
}

describe.skipIf(!hasPerl)('processes that come and go', () => {
  it('hundreds of short-lived ones: each answer is a refusal, or about the one that connected', async () => {
    using listening = await openSocket()
    const answers: Promise<Answer>[] = []
    listening.server.on('connection', (socket) => {
      answers.push(answerTo(socket, identified(socket)))
    })
    const parent = spawn('perl', ['-e', forking, listening.path, String(children)], {
      stdio: 'inherit',
    })
    const perl = await new Promise<string>((resolve) => {
      parent.once('spawn', () => resolve(proc.link(parent.pid ?? 0, 'exe')))
    })
    const [code] = await once(parent, 'exit')
    expect(code).toBe(0)
    const all = await Promise.all(answers)
    expect(all).toHaveLength(children)
    const given = all.filter(({ selectors }) => selectors !== undefined)
    for (const { claimed, selectors = new Set<string>(), pid } of given) {
      const [itsPid, uid, deed] = claimed.split(' ')
      expect(pid).toBe(Number(itsPid))
      expect(selectors).toContain(`unix:uid:${uid}`)
      expect(selectors).toContain(`unix:gid:${isRoot ? uid : process.getgid?.()}`)
      const paths = [...selectors].filter((it) => it.startsWith('unix:path:'))
      const mayBe =
        deed === 'run'
          ? [perl, proc.link(process.pid, 'exe'), '/bin/sleep', '/usr/bin/sleep']
          : [perl]
      // a process that is about to be gone has no program any more
      for (const path of paths) expect(mayBe).toContain(path.slice('unix:path:'.length))
    }
    // those that wait for the answer get it
    expect(given.length).toBeGreaterThan(0)
  }, 60_000)

  // a pid can be chosen by root only, with clone3(2)
  const reusing = `
    use Socket; use POSIX ();
    $^F = 255; $| = 1;
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die;
    my $child = fork // die;
    if ($child == 0) {
      POSIX::setgid(20001); POSIX::setuid(20001);
      POSIX::_exit(connect($socket, sockaddr_un($ARGV[0])) ? 0 : 1);
    }
    waitpid $child, 0; die if $?;
    my $wanted = pack 'l', $child;
    my $clone = pack 'Q11', 0, 0, 0, 0, 17, 0, 0, 0, unpack('Q', pack 'P', $wanted), 1, 0;
    my $impostor = syscall(435, $clone, 88);
    if ($impostor == 0) {
      POSIX::close($_) for 0 .. 2;
      exec '/bin/sleep', '60';
    }
    print "$child $impostor\\n";
  `
  it.skipIf(!isRoot)(
    'one that took over the pid of the one that connected, and its socket, is not mistaken for it',
    async () => {
      using listening = await openSocket()
      const connection = once(listening.server, 'connection')
      // nothing is accepted while this waits: the process that connected is long gone then
      const { stdout } = spawnSync('perl', ['-e', reusing, listening.path], { encoding: 'utf8' })
      const [pid = 0, impostor = 0] = stdout.split(' ').map(Number)
      try {
        expect(impostor).toBe(pid)
        expect(proc.credentials(pid).uid).toBe(0)
        const [socket]: Socket[] = await connection
        if (socket === undefined) throw new Error('no connection')
        expect(() => processes.identify(socket)).toThrow(/has ended/)
        socket.destroy()
      } finally {
        if (impostor > 0) process.kill(impostor, 'SIGKILL')
      }
    },
  )
})
