// What Envoy's configuration is made of everywhere: packed messages with a name, durations, addresses.
import { create, type DescMessage, type Message, type MessageInitShape } from '@bufbuild/protobuf'
import { type Any, anyPack, type DurationSchema } from '@bufbuild/protobuf/wkt'
import type { AddressSchema } from '../../../proto/gen/envoy/config/core/v3/address_pb.js'
import {
  ApiVersion,
  type ConfigSourceSchema,
} from '../../../proto/gen/envoy/config/core/v3/config_source_pb.js'
import type { Address } from '../../../runtime/config.ts'

/** What a message is made of, without being one: parts of it can be put together. */
export type Init<T extends DescMessage> = Exclude<MessageInitShape<T>, Message>

export function packed<T extends DescMessage>(schema: T, value: MessageInitShape<T>): Any {
  return anyPack(schema, create(schema, value))
}

/** `name` and `typed_config`, as filters and transport sockets have them. */
export function typed<T extends DescMessage>(name: string, schema: T, value: MessageInitShape<T>) {
  return { name, configType: { case: 'typedConfig', value: packed(schema, value) } } as const
}

export const durationOf = (ms: number): Init<typeof DurationSchema> => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanos: Math.round((ms % 1000) * 1e6),
})

export const socketAddress = ({ host, port }: Address): Init<typeof AddressSchema> => ({
  address: {
    case: 'socketAddress',
    value: { address: host, portSpecifier: { case: 'portValue', value: port } },
  },
})

/** By the stream that the resource itself came over. */
export const overAds: Init<typeof ConfigSourceSchema> = {
  resourceApiVersion: ApiVersion.V3,
  configSourceSpecifier: { case: 'ads', value: {} },
}
