// What an agent takes to hold many streams of workloads that are the same to it: memory, and one push to all.
import { readFileSync } from 'node:fs'
import { crowdLimits, mostDescriptors } from '../../agent/attest/crowd.ts'
import { type AgentProcess, startAgentProcess } from '../support/agent-process.ts'
import { frame, opening, request, types, workloadFields } from '../support/frames.ts'
import { type PerlProgram, startPerl } from '../support/perl.ts'

const streams = 10_000
/** MB of memory that the agent may have */
const most = 600

/**
 * Opens `$count` connections, sends `$hello` on every one, and keeps reading: prints how many messages have
 * come once it is as many as it is asked for.
 */
const crowding = `
  use IO::Socket::UNIX; use IO::Poll qw(POLLIN);
  my ($path, $count, $hello, $pong) = @ARGV;
  $| = 1;
  my ($poll, $messages, %rest) = (IO::Poll->new, 0);
  sub take {
    my $socket = shift;
    sysread $socket, my $more, 65536 or die 'a connection has ended';
    my $bytes = ($rest{$socket} // '') . $more;
    while (length $bytes >= 9) {
      my ($high, $low, $type, $flags) = unpack 'CnCC', $bytes;
      my $end = 9 + ($high << 16) + $low;
      last if length $bytes < $end;
      # a message of this size is one frame
      $messages++ if $type == ${types.data};
      syswrite $socket, pack('H*', $pong) . substr $bytes, 9, 8 if $type == ${types.ping} && $flags == 0;
      $bytes = substr $bytes, $end;
    }
    $rest{$socket} = $bytes;
  }
  sub wait_for {
    my $wanted = shift;
    while ($messages < $wanted) { $poll->poll(-1); take($_) for $poll->handles(POLLIN); }
    print "$messages\\n";
  }
  for (1 .. $count) {
    my $socket = IO::Socket::UNIX->new($path) or die "connect: $!";
    syswrite $socket, pack 'H*', $hello;
    $poll->mask($socket => POLLIN);
    if ($_ % 100 == 0) { $poll->poll(0); take($_) for $poll->handles(POLLIN); }
  }
  while (my $wanted = <STDIN>) { wait_for($wanted); }
`

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

/** MB, as the kernel has it. */
function memoryOf({ pid }: AgentProcess) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (field: string) =>
    Math.round(Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024)
  return { now: of('VmRSS'), peak: of('VmHWM') }
}

async function told(crowd: PerlProgram, messages: number): Promise<void> {
  crowd.say(String(messages))
  await crowd.line()
}

/** As many connections as there may be, each with as few streams. */
function shape(): { readonly connections: number; readonly each: number } {
  const descriptors = mostDescriptors(readFileSync('/proc/self/limits', 'utf8'))
  const { perUser } = crowdLimits(streams, descriptors)
  const each = Math.ceil(streams / perUser)
  return { connections: Math.ceil(streams / each), each }
}

export async function agentStreams(): Promise<{ tries: number; problems: string[] }> {
  const limits = { connections: streams, callsAtOnce: 2 * streams }
  await using agent = await startAgentProcess({ agent: { limits } })
  await agent.register('/web')
  const { connections, each } = shape()
  const open = connections * each
  const calls = Array.from({ length: each }, (_, i) =>
    request(2 * i + 1, workloadFields('FetchX509SVID')),
  )
  const hello = Buffer.concat([opening(), ...calls])
  const pong = frame(types.ping, 1, 0, Buffer.alloc(8)).subarray(0, 9)
  const without = memoryOf(agent).now
  await using crowd = startPerl(crowding, [agent.socket, connections, hex(hello), hex(pong)])
  await told(crowd, open)
  const held = memoryOf(agent).now
  const begun = performance.now()
  await agent.register('/more')
  await told(crowd, 2 * open)
  const seconds = ((performance.now() - begun) / 1000).toFixed(1)
  const { now, peak } = memoryOf(agent)
  console.log(
    `  ${open} streams over ${connections} connections: RSS ${held} MB, ${without} MB before`,
  )
  console.log(`  all told of a change within ${seconds} s: RSS ${now} MB`)
  console.log(`  peak ${peak} MB (most ${most})`)
  const { unread } = await agent.status()
  return {
    tries: open,
    problems: [
      ...(peak >= most ? [`the agent took ${peak} MB`] : []),
      ...(unread.length > 0 ? [`${unread.length} streams count as unread`] : []),
    ],
  }
}
