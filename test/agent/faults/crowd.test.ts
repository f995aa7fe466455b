// One user of the node that opens all the connections there are: what it gets, and what the others get.
import { chmodSync, readdirSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startX509Source } from '../../../client/x509-source.ts'
import { startNode, type TestNode, trustDomain } from '../../support/node.ts'
import { canBeOthers, startPerl } from '../../support/perl.ts'

const patience = { timeout: 60_000, interval: 50 }
const greedy = 20_001
/** Connects as another user, reads the first bytes that each connection gets, and holds on to them. */
const crowding = `
  use IO::Socket::UNIX; use POSIX ();
  my ($path, $count, $uid) = @ARGV;
  $| = 1;
  POSIX::setgid($uid); POSIX::setuid($uid);
  my (@kept, $refused, %reasons);
  for (1 .. $count) {
    my $socket = IO::Socket::UNIX->new($path) or die "connect: $!";
    push @kept, $socket;
  }
  my $open = 0;
  for my $socket (@kept) {
    my ($got, $all) = (1, '');
    # settings are the first frame of any answer, a goodbye the second
    while ($got && length($all) < 9 + 9) { $got = sysread $socket, $all, 4096, length $all; }
    if (ord(substr $all, 9 + ord(substr $all, 2, 1) + 3, 1) == 7) { $reasons{substr $all, 26}++ } else { $open++ }
  }
  print "$open\\n", join('; ', map { "$reasons{$_} x $_" } keys %reasons), "\\n";
  <STDIN>;
`

setFlagsFromString('--expose-gc')
const collect: unknown = runInNewContext('gc')
/** bytes that are reachable */
function used(): number {
  if (typeof collect === 'function') collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
const descriptors = () => readdirSync('/proc/self/fd').length

let node: TestNode
beforeAll(async () => {
  node = await startNode()
  // others may enter, as they may where an agent is installed
  chmodSync(node.folder, 0o755)
  await node.register('/modest', [`unix:uid:${process.getuid?.()}`])
}, 120_000)
afterAll(() => node[Symbol.asyncDispose]())

describe.skipIf(!canBeOthers)('10 000 connections of one user', () => {
  it('are refused beyond its share with the reason, and keep nobody else out', async () => {
    const signal = AbortSignal.timeout(60_000)
    const endpoint = { kind: 'unix', path: node.agent.socket } as const
    await using early = startX509Source(endpoint)
    await early.ready(signal)
    await using crowd = startPerl(crowding, [node.agent.socket, 10_000, greedy])
    await using during = startX509Source(endpoint)
    const { svids } = await during.ready(signal)
    expect(svids.map(({ id }) => id)).toEqual([`spiffe://${trustDomain}/modest`])
    expect(await crowd.line()).toBe('4096')
    expect(await crowd.line()).toBe(`5904 x user ${greedy} has 4096 connections already`)
    // all of them are still there
    await using late = startX509Source(endpoint)
    await late.ready(signal)
    const told = Promise.withResolvers<void>()
    using _ = early.subscribe((context) => context?.svids.length === 2 && told.resolve())
    await node.register('/second', [`unix:uid:${process.getuid?.()}`])
    await told.promise
  }, 120_000)

  it('leave nothing behind when they close', async () => {
    const before = { descriptors: descriptors(), used: used() }
    {
      await using crowd = startPerl(crowding, [node.agent.socket, 10_000, greedy])
      expect(await crowd.line()).toBe('4096')
      expect(descriptors()).toBeGreaterThan(2 * 4096)
    }
    await vi.waitFor(() => expect(descriptors()).toBeLessThanOrEqual(before.descriptors), patience)
    // less than a KiB of each
    await vi.waitFor(() => expect(used() - before.used).toBeLessThan(10_000 * 1024), patience)
  }, 120_000)
})
