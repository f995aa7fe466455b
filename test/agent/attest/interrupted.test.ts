// A system call that a signal interrupts says nothing about the process that was asked about.
import { expect, it } from 'vitest'
import { errnos, type Libc, loadLibc } from '../../../agent/attest/libc.ts'
import { createProcesses } from '../../../agent/attest/peer-credentials.ts'

/** The kernel's answers, but for the first `times` polls, which end as `errno` says. */
function interrupting(times: number, errno: number): Libc {
  const libc = loadLibc()
  let left = times
  let failed = false
  return {
    ...libc,
    poll(buffer, count, timeout) {
      failed = left-- > 0
      return failed ? -1 : libc.poll(buffer, count, timeout)
    },
    errno: () => (failed ? errno : libc.errno()),
  }
}

it.each([
  ['a process lives on', 5, errnos.interrupted, true],
  ['a poll that never answers is taken for an end', 10_000, errnos.interrupted, false],
  ['a poll that fails otherwise is taken for an end', 1, 22, false],
])('%s', (_, times, errno, isAlive) => {
  using self = createProcesses().open(process.pid)
  expect(self.isAlive()).toBe(true)
  const processes = createProcesses({ libc: interrupting(times, errno) })
  const open = () => processes.open(process.pid)
  if (isAlive) {
    using it = open()
    expect(it.isAlive()).toBe(true)
  } else expect(open).toThrow(`process ${process.pid} has ended`)
})
