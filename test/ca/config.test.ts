import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { lifetimesOf, loadCaConfig } from '../../ca/config.ts'
import { hasCode } from '../../spiffe/errors.ts'
import { testFolder } from '../support/folder.ts'

let folder: ReturnType<typeof testFolder>
let file: string
beforeEach(() => {
  folder = testFolder()
  file = join(folder.path, 'ca.yaml')
})
afterEach(() => folder[Symbol.dispose]())

const least = 'trustDomain: example.org\nstate: state\nunlock: { keyFile: ca.key }\n'

function load(text: string) {
  writeFileSync(file, text)
  return loadCaConfig(file)
}

/** `line field: problem` of every problem. */
function problems(text: string): string[] {
  try {
    load(text)
  } catch (error) {
    if (!hasCode(error, 'ERR_CONFIG')) throw error
    const all = error.fields.map(({ field, problem }) => `${field}: ${problem}`)
    expect(error.message.startsWith(all[0] ?? '?')).toBe(true)
    return all.map((it) => it.replace(`${file}:`, ''))
  }
  return []
}

describe('ca.yaml', () => {
  it('needs three keys; the rest has defaults, none of them a decision about trust', () => {
    expect(load(least)).toEqual({
      trustDomain: 'example.org',
      state: join(folder.path, 'state'),
      unlock: { keyFile: join(folder.path, 'ca.key') },
      listen: { host: '0.0.0.0', port: 8081 },
      operations: { host: '127.0.0.1', port: 8080 },
      authorityLifetime: 7 * 86_400_000,
      svidLifetime: 3_600_000,
      attestors: {},
      federation: { privateAddresses: false },
      development: false,
      logLevel: 'info',
    })
  })

  it('names paths from its own folder', () => {
    mkdirSync(join(folder.path, 'p'))
    const config = load(`${least}socket: /run/ca.sock\npolicies: ./p\n`)
    expect(config.socket).toBe('/run/ca.sock')
    expect(config.policies).toBe(join(folder.path, 'p'))
  })

  const wrong: readonly (readonly [string, string, string])[] = [
    ['an unknown key', `${least}colour: red\n`, '4 colour: unknown key'],
    [
      'a trust domain in upper case',
      least.replace('example.org', 'Example.org'),
      '1 trustDomain: "Example.org" is no SPIFFE ID: the trust domain may contain only a-z, 0-9, dot, hyphen and underscore',
    ],
    [
      'a lifetime without unit',
      `${least}svidLifetime: 60\n`,
      '4 svidLifetime: Invalid input: expected string, received number',
    ],
    [
      'a lifetime that is none',
      `${least}svidLifetime: 1 hour\n`,
      '4 svidLifetime: a duration is a number and one of ms, s, m, h, d, such as 90s or 1h',
    ],
    [
      'a lifetime below the floor',
      `${least}svidLifetime: 299s\n`,
      '4 svidLifetime: is not between 300s and 24h',
    ],
    [
      'a lifetime above the cap',
      `${least}svidLifetime: 25h\n`,
      '4 svidLifetime: is not between 300s and 24h',
    ],
    [
      'a lifetime below the floor of development',
      `${least}development: true\nsvidLifetime: 1s\n`,
      '5 svidLifetime: is not between 2s and 24h',
    ],
    [
      'an authority that would cut leaves short',
      `${least}authorityLifetime: 5h\n`,
      '4 authorityLifetime: is shorter than six times svidLifetime: leaves would be cut short',
    ],
    [
      'a lifetime of agents above the cap',
      `${least}agentLifetime: 25h\n`,
      '4 agentLifetime: is not between 300s and 24h',
    ],
    [
      'an authority that would cut the leaves of agents short',
      `${least}agentLifetime: 10h\nauthorityLifetime: 59h\n`,
      '5 authorityLifetime: is shorter than six times agentLifetime: leaves would be cut short',
    ],
    [
      'an address without port',
      `${least}listen: localhost\n`,
      '4 listen: an address is host:port, such as 127.0.0.1:8081',
    ],
    [
      'a port out of range',
      `${least}listen: localhost:65536\n`,
      '4 listen: an address is host:port, such as 127.0.0.1:8081',
    ],
    [
      'text where yes or no belongs',
      `${least}development: "true"\n`,
      '4 development: Invalid input: expected boolean, received string',
    ],
    ['an empty path', least.replace('state: state', 'state: ""'), '2 state: a path is not empty'],
  ]
  it.each(wrong)('is refused for %s, with line and field', (_, text, problem) => {
    expect(problems(text)).toEqual([problem])
  })

  it('is refused with both ways to unlock, with none, and with neither', () => {
    for (const unlock of ['{ keyFile: a, passphraseFile: b }', '{}', '{ key: a }']) {
      const [first] = problems(least.replace('{ keyFile: ca.key }', unlock))
      expect(first).toMatch(/^3 unlock/)
    }
    expect(problems('trustDomain: example.org\nstate: s\n')[0]).toMatch(/^\d unlock/)
  })

  it('is refused for all its problems at once', () => {
    const found = problems(`${least}colour: red\nlisten: x\nlogLevel: loud\n`)
    expect(found.map((it) => it.split(':')[0])).toEqual(
      expect.arrayContaining(['4 colour', '5 listen', '6 logLevel']),
    )
    expect(found).toHaveLength(3)
  })

  it('is refused when it is malformed, empty, twice, or not there', () => {
    expect(problems('a: [1\n')[0]).toMatch(/^\d+: /)
    expect(problems(`${least}state: again\n`)).toEqual(['4: Map keys must be unique'])
    expect(problems('')).toEqual(['1: the file is empty'])
    expect(problems(`${least}---\n${least}`)).toEqual(['1: more than one document'])
    const missing = join(folder.path, 'none.yaml')
    expect(() => loadCaConfig(missing)).toThrow(`cannot read ${missing} (ENOENT)`)
  })
})

describe('lifetimes', () => {
  it('have a floor that only development lowers', () => {
    const bounds = { default: 3_600_000, agent: 3_600_000, cap: 86_400_000 }
    expect(lifetimesOf(load(least))).toEqual({ ...bounds, floor: 300_000 })
    expect(lifetimesOf(load(`${least}development: true\n`))).toEqual({ ...bounds, floor: 2000 })
  })

  it('are the same for agents and workloads unless the file says otherwise', () => {
    expect(lifetimesOf(load(`${least}agentLifetime: 6h\n`))).toMatchObject({
      default: 3_600_000,
      agent: 21_600_000,
    })
  })
})
