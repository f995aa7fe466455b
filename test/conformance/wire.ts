// The Workload API on the wire as the standard has it, written down by hand: generated code is what is judged by it.
import { strict as assert } from 'node:assert'
import type { DescriptorProto, FileDescriptorProto } from '@bufbuild/protobuf/wkt'

export const serviceName = 'SpiffeWorkloadAPI'

const methods = [
  'FetchX509SVID .X509SVIDRequest stream .X509SVIDResponse',
  'FetchX509Bundles .X509BundlesRequest stream .X509BundlesResponse',
  'FetchJWTSVID .JWTSVIDRequest .JWTSVIDResponse',
  'FetchJWTBundles .JWTBundlesRequest stream .JWTBundlesResponse',
  'ValidateJWTSVID .ValidateJWTSVIDRequest .ValidateJWTSVIDResponse',
  'FetchWITSVID .WITSVIDRequest stream .WITSVIDResponse',
  'FetchWITBundles .WITBundlesRequest stream .WITBundlesResponse',
]

export const methodNames: readonly string[] = methods.map((text) => text.split(' ')[0] ?? '')

/** Each field as `message.name=number type`; of a repeated one the type ends in []. */
const fields = [
  'X509SVIDResponse.svids=1 .X509SVID[]',
  'X509SVIDResponse.crl=2 bytes[]',
  'X509SVIDResponse.federated_bundles=3 .X509SVIDResponse.FederatedBundlesEntry[]',
  'X509SVIDResponse.FederatedBundlesEntry.key=1 string',
  'X509SVIDResponse.FederatedBundlesEntry.value=2 bytes',
  'X509SVID.spiffe_id=1 string',
  'X509SVID.x509_svid=2 bytes',
  'X509SVID.x509_svid_key=3 bytes',
  'X509SVID.bundle=4 bytes',
  'X509SVID.hint=5 string',
  'X509BundlesResponse.crl=1 bytes[]',
  'X509BundlesResponse.bundles=2 .X509BundlesResponse.BundlesEntry[]',
  'X509BundlesResponse.BundlesEntry.key=1 string',
  'X509BundlesResponse.BundlesEntry.value=2 bytes',
  'JWTSVIDRequest.audience=1 string[]',
  'JWTSVIDRequest.spiffe_id=2 string',
  'JWTSVIDResponse.svids=1 .JWTSVID[]',
  'JWTSVID.spiffe_id=1 string',
  'JWTSVID.svid=2 string',
  'JWTSVID.hint=3 string',
  'JWTBundlesResponse.bundles=1 .JWTBundlesResponse.BundlesEntry[]',
  'JWTBundlesResponse.BundlesEntry.key=1 string',
  'JWTBundlesResponse.BundlesEntry.value=2 bytes',
  'ValidateJWTSVIDRequest.audience=1 string',
  'ValidateJWTSVIDRequest.svid=2 string',
  'ValidateJWTSVIDResponse.spiffe_id=1 string',
  'ValidateJWTSVIDResponse.claims=2 .google.protobuf.Struct',
  'WITSVIDRequest.spiffe_id=1 string',
  'WITSVIDResponse.svids=1 .WITSVID[]',
  'WITSVID.spiffe_id=1 string',
  'WITSVID.wit_svid=2 string',
  'WITSVID.wit_svid_key=3 string',
  'WITSVID.hint=4 string',
  'WITBundlesResponse.bundles=1 .WITBundlesResponse.BundlesEntry[]',
  'WITBundlesResponse.BundlesEntry.key=1 string',
  'WITBundlesResponse.BundlesEntry.value=2 string',
]

// FieldDescriptorProto.Type and .Label
const scalars: Readonly<Record<number, string>> = { 9: 'string', 12: 'bytes' }
const message = 11
const repeated = 3

function fieldsOf({ name, field, nestedType }: DescriptorProto, outer = ''): readonly string[] {
  const own = field.map((it) => {
    const type = it.type === message ? it.typeName : (scalars[it.type] ?? `type ${it.type}`)
    return `${outer}${name}.${it.name}=${it.number} ${type}${it.label === repeated ? '[]' : ''}`
  })
  return [...own, ...nestedType.flatMap((inner) => fieldsOf(inner, `${outer}${name}.`))]
}

function methodsOf({ service }: FileDescriptorProto): readonly string[] {
  const api = service.find(({ name }) => name === serviceName)
  return (api?.method ?? []).map(
    ({ name, inputType, outputType, clientStreaming, serverStreaming }) => {
      const [asked, answered] = [clientStreaming, serverStreaming].map((it) =>
        it ? 'stream ' : '',
      )
      return `${name} ${asked}${inputType} ${answered}${outputType}`
    },
  )
}

/**
 * The service without package, with these methods and fields and no others. A server may leave methods of the
 * incubating profile out, and the messages that go with them.
 */
export function assertWorkloadApi(file: FileDescriptorProto): void {
  assert.equal(file.package, '', 'a package, which the Workload API does not have')
  const said = methodsOf(file)
  assert.deepEqual(
    said.filter((text) => !methods.includes(text)),
    [],
    'methods that the standard does not have',
  )
  const saidFields = file.messageType.flatMap((it) => fieldsOf(it))
  assert.deepEqual(
    saidFields.filter((text) => !fields.includes(text)),
    [],
    'fields that the standard does not have',
  )
  const isOptional = (text: string) => /^(?:Fetch)?WIT/.test(text)
  const missing = [...methods, ...fields].filter(
    (text) => !isOptional(text) && ![...said, ...saidFields].includes(text),
  )
  assert.deepEqual(missing, [], 'methods or fields that are missing')
}
