// A process of any user that speaks HTTP/2 to a unix socket byte by byte, and reads only when it is told to.
import { readFileSync } from 'node:fs'
import { type Frame, frame, framesIn, messagesIn, types } from './frames.ts'
import { startPerl } from './perl.ts'

const program = `
  use IO::Socket::UNIX; use POSIX ();
  my ($path, $uid) = @ARGV;
  $| = 1;
  if ($uid) { POSIX::setgid($uid); POSIX::setuid($uid); }
  my $socket = IO::Socket::UNIX->new($path) or die "connect: $!";
  $SIG{PIPE} = 'IGNORE';
  while (my $line = <STDIN>) {
    my ($verb, $hex) = split ' ', $line;
    if ($verb eq 'send') { my $bytes = pack 'H*', $hex; syswrite $socket, $bytes; }
    if ($verb eq 'read') { my $got = sysread $socket, my $bytes, 65536; print $got ? unpack('H*', $bytes) : 'end', "\\n"; }
  }
`

export interface Talker extends AsyncDisposable {
  readonly pid: number
  send(bytes: Uint8Array): void
  /** Reads until `enough` of all frames so far; pings are answered. Rejects when the connection ends before. */
  readUntil(enough: (frames: readonly Frame[]) => boolean): Promise<readonly Frame[]>
  /** Reads to the end of the connection. */
  readAll(): Promise<readonly Frame[]>
  /** Resolves with the first messages of a stream. */
  messages(stream: number, count: number): Promise<readonly Buffer[]>
  /** SIGSTOP; resolves once it stands still. */
  stop(): Promise<void>
  goOn(): void
}

export interface TalkerOptions {
  /** this process's when left out; others need root */
  readonly uid?: number
}

export function startTalker(path: string, { uid = 0 }: TalkerOptions = {}): Talker {
  const perl = startPerl(program, [path, uid])
  let bytes: Buffer = Buffer.alloc(0)
  let answered = 0
  const send = (data: Uint8Array) => perl.say(`send ${Buffer.from(data).toString('hex')}`)

  /** Whether there was more. */
  async function more(): Promise<boolean> {
    perl.say('read')
    const line = await perl.line()
    if (line === 'end') return false
    bytes = Buffer.concat([bytes, Buffer.from(line, 'hex')])
    const pings = framesIn(bytes).filter(({ type, flags }) => type === types.ping && flags === 0)
    for (const { payload } of pings.slice(answered)) send(frame(types.ping, 1, 0, payload))
    answered = pings.length
    return true
  }

  async function readUntil(enough: (frames: readonly Frame[]) => boolean) {
    for (;;) {
      const frames = framesIn(bytes)
      if (enough(frames)) return frames
      if (!(await more())) throw new Error('the connection has ended')
    }
  }

  return {
    ...{ pid: perl.pid, send, readUntil },
    async readAll() {
      while (await more());
      return framesIn(bytes)
    },
    async messages(stream, count) {
      const frames = await readUntil((it) => messagesIn(it, stream).length >= count)
      return messagesIn(frames, stream)
    },
    async stop() {
      process.kill(perl.pid, 'SIGSTOP')
      while (!/^State:\tT/m.test(readFileSync(`/proc/${perl.pid}/status`, 'utf8')))
        await new Promise((resolve) => setImmediate(resolve))
    },
    goOn: () => void process.kill(perl.pid, 'SIGCONT'),
    [Symbol.asyncDispose]: () => perl[Symbol.asyncDispose](),
  }
}
