// How long an Envoy lets go on what is cut, by its command line.
import { expect, it } from 'vitest'
import { drainArguments, drainRemarks } from '../../../../agent/proxies/envoy/drain.ts'

const start = ['/usr/bin/envoy', '-c', 'envoy.yaml']

it.each<[string, readonly string[]]>([
  ['as documented', [...start, ...drainArguments]],
  ['in one word', [...start, '--drain-time-s=1']],
  ['at once', [...start, '--drain-time-s', '0']],
  ['that nobody can read', []],
])('nothing is said of an Envoy that drains %s', (_, args) => {
  expect(drainRemarks(args)).toEqual([])
})

it.each<[readonly string[], number]>([
  [start, 600],
  [[...start, '--drain-time-s', '30'], 30],
  [[...start, '--drain-time-s=45'], 45],
])('%j: what to do is said', (args, seconds) => {
  expect(drainRemarks(args)).toEqual([
    `what is open of a caller who is denied ends after ${seconds} s: start Envoy with --drain-time-s 1`,
  ])
})
