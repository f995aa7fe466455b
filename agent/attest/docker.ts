// Selectors of a process in a container of Docker or Podman.
import type { Clock } from '../../runtime/clock.ts'
import type { Attestor } from './attestor.ts'
import type { ContainerFacts, ContainerResolver } from './container-engine.ts'
import type { ContainerPlace, LocateContainer } from './container-place.ts'
import type { Demand } from './demand.ts'
import { askUntilAnswered } from './patience.ts'

export interface DockerOptions {
  readonly locate: LocateContainer
  /** Whom to ask about the container; undefined when nobody may be believed. */
  readonly engineOf: (place: ContainerPlace) => ContainerResolver | undefined
  readonly clock: Clock
}

export interface Engines {
  readonly docker?: ContainerResolver | undefined
  /** of the whole machine */
  readonly podman?: ContainerResolver | undefined
  /** of those users whose word is taken */
  readonly podmanOf?: ((uid: number) => ContainerResolver | undefined) | undefined
}

/** milliseconds for an engine that is being restarted */
const patience = { wait: 700, interval: 200 } as const

/** An engine is asked about its own containers only. */
export function engineAmong({ docker, podman, podmanOf }: Engines): DockerOptions['engineOf'] {
  return ({ runtime, owner }) => {
    if (/^cri(?:o|-|$)/.test(runtime)) return undefined
    if (!runtime.startsWith('libpod')) return docker
    return owner === undefined ? podman : podmanOf?.(owner)
  }
}

function selectorsOf(facts: ContainerFacts, demand: Demand): string[] {
  const { labels, env, image, imageConfigDigest } = facts
  return [
    ...Object.entries(labels).map(([name, value]) => `docker:label:${name}:${value}`),
    ...(demand.kind('docker:env') ? env.map((variable) => `docker:env:${variable}`) : []),
    ...(image === '' ? [] : [`docker:image_id:${image}`]),
    ...(imageConfigDigest === undefined ? [] : [`docker:image_config_digest:${imageConfigDigest}`]),
  ]
}

export function createDockerAttestor({ locate, engineOf, clock }: DockerOptions): Attestor {
  const absent = (why: string) => ({ selectors: new Set<string>(), missing: [`docker (${why})`] })

  /** Whoever can make cgroups can name one after a container, but not put the container's process there. */
  function isThere({ pid }: ContainerFacts, { at }: ContainerPlace): boolean {
    try {
      return pid > 0 && locate(pid)?.at === at
    } catch {
      return false
    }
  }

  return {
    type: 'docker',
    async attest({ pid }, demand, { signal }) {
      const place = locate(pid)
      const engine = place === undefined ? undefined : engineOf(place)
      if (place === undefined || engine === undefined) return { selectors: new Set(), missing: [] }
      const ask = async () => ({ facts: await engine.containerOf(place.id, { signal }) })
      const answer = await askUntilAnswered(ask, { ...patience, clock, signal })
      const facts = answer?.facts
      if (facts === undefined) return absent(`nobody knows container ${place.id}`)
      if (!isThere(facts, place)) return absent(`container ${place.id} is in another cgroup`)
      return { selectors: new Set(selectorsOf(facts, demand)), missing: [] }
    },
  }
}
