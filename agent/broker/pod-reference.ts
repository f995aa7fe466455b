// A reference to a Kubernetes object, read: of all kinds of them this agent resolves pods (SPIFFE Broker API §3.1.3).
import type { KubernetesObjectReference } from '../../proto/gen/spiffe/broker/api_pb.js'
import type { PodReference } from '../attest/kubelet.ts'
import { badField } from '../workload-api/jwt.ts'

/** Throws ERR_BAD_REQUEST. */
export function podReferenceOf({ type, key, uid }: KubernetesObjectReference): PodReference {
  const { plural = '', group = '' } = type ?? {}
  if (plural === '') badField('reference.type.plural', 'is missing')
  if (group === '') badField('reference.type.group', 'is missing; that of core types is core')
  if (plural !== 'pods' || group !== 'core')
    badField('reference.type', `is ${plural} of ${group}: this agent resolves pods of core`)
  if (key === undefined && uid === '') badField('reference', 'has neither key nor uid')
  if (key !== undefined && key.namespace === '')
    badField('reference.key.namespace', 'is missing: pods have one')
  if (key !== undefined && key.name === '') badField('reference.key.name', 'is missing')
  return {
    uid: uid === '' ? undefined : uid,
    key: key && { namespace: key.namespace, name: key.name },
  }
}
