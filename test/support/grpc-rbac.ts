// What grpc-js-xds makes of the filters that a gRPC program is told: its own reading of them, without a server.
import { create } from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import type { Judgement } from '../../agent/proxies/grpc/filters.ts'
import { HttpFilterSchema } from '../../proto/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.js'

// read once, when it is loaded
process.env.GRPC_XDS_EXPERIMENTAL_RBAC = 'true'
// brings the messages along that the others are made of
await import('@grpc/grpc-js-xds')
const folder = '@grpc/grpc-js-xds/build/src'
const { setup } = await import(`${folder}/http-filter/rbac-filter.js`)
const { parseTopLevelFilterConfig } = await import(`${folder}/http-filter.js`)
setup()

export interface GrpcCall {
  readonly path: string
  readonly host: string
  /** of the verified certificate; undefined without one */
  readonly caller: string | undefined
  readonly fields: readonly (readonly [string, string])[]
}

function asked({ path, host, caller, fields }: GrpcCall) {
  const headers = new grpc.Metadata()
  for (const [name, value] of fields) headers.add(name, value)
  headers.set(':method', 'POST')
  headers.set(':authority', host)
  headers.set(':path', path)
  const peerCertificate =
    caller === undefined ? null : { subjectaltname: `URI:${caller}`, subject: { O: 'Castellan' } }
  return {
    ...{ headers, peerCertificate, tls: caller !== undefined, urlPath: path },
    ...{ destinationIp: '127.0.0.1', destinationPort: 1, sourceIp: '::ffff:127.0.0.1' },
  }
}

/**
 * Whether a program that was told so lets a call in. Throws when it would refuse what it was told. Expressions are
 * never given back: some thousands of them are all that a process can have.
 */
export function programOf({ filters }: Judgement): (call: GrpcCall) => boolean {
  const groups = filters.map((it) => {
    const { name, configType } = create(HttpFilterSchema, it)
    if (configType.case !== 'typedConfig') throw new Error(`${name} has no configuration`)
    const { typeUrl, value } = configType.value
    const parsed = parseTopLevelFilterConfig(
      { type_url: typeUrl, value: Buffer.from(value) },
      false,
    )
    if (parsed === null) throw new Error(`${name} is refused`)
    return parsed.config
  })
  return (call) => {
    const info = asked(call)
    return groups.every((group) => group.apply(info) === true)
  }
}
