// Resources without content, for the protocols that carry them: `name=version` in a world of such.
import { create } from '@bufbuild/protobuf'
import { AnySchema } from '@bufbuild/protobuf/wkt'
import type { Offer, Resource, Wanted } from '../../../agent/xds/resource.ts'
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DiscoveryRequest,
  DiscoveryRequestSchema,
} from '../../../proto/gen/envoy/service/discovery/v3/discovery_pb.js'

export const typeUrl = 'type.googleapis.com/test.Thing'

/** Versions by name. A version of '' is on its way. Names with a colon are no part of everything. */
export type World = ReadonlyMap<string, string>

export const worldOf = (versions: Readonly<Record<string, string>>): World =>
  new Map(Object.entries(versions))

function resourceOf(name: string, version: string): Resource {
  const value = Buffer.from(`${name}=${version}`)
  return { name, version, pack: () => create(AnySchema, { typeUrl, value }) }
}

export function offerOf(world: World, { names, everything }: Wanted): Offer {
  const all = everything ? [...world.keys()].filter((name) => !name.includes(':')) : []
  const resources = new Map<string, Resource>()
  const pending = new Set<string>()
  const absent = new Map<string, string>()
  for (const name of new Set([...all, ...names])) {
    const version = world.get(name)
    if (version === undefined) absent.set(name, 'there is none')
    else if (version === '') pending.add(name)
    else resources.set(name, resourceOf(name, version))
  }
  return { resources, pending, absent }
}

export const textOf = ({ value }: { value?: Uint8Array }) => Buffer.from(value ?? []).toString()

export function request(fields: Partial<DiscoveryRequest> = {}): DiscoveryRequest {
  const { $typeName: _, ...rest } = fields
  return create(DiscoveryRequestSchema, { typeUrl, ...rest })
}

export function deltaRequest(fields: Partial<DeltaDiscoveryRequest> = {}): DeltaDiscoveryRequest {
  const { $typeName: _, ...rest } = fields
  return create(DeltaDiscoveryRequestSchema, { typeUrl, ...rest })
}
