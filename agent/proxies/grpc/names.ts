// What both sides have to call the same: the program's bootstrap, and the resources that it asks for.
import type { OutboundSpec } from '../../../proxy-spec/outbound.ts'
import { type Address, addressText } from '../../../runtime/config.ts'

/** of the certificate provider in the bootstrap: the files of the own SVID and of the roots of its trust domain */
export const provider = 'castellan'

const serverPrefix = 'castellan/server/'

/** in the bootstrap: %s is the address that a server is told to listen on */
export const serverTemplate = `${serverPrefix}%s`

export const serverName = (listen: Address): string => serverPrefix + addressText(listen)

/** What a program dials: `xds:///NAME`. */
export const dialled = ({ name, service }: OutboundSpec, index: number): string =>
  name ?? service ?? `outbound-${index}`

export const routesName = (name: string): string => `outbound/${name}`
export const clusterName = (name: string): string => `peer/${name}`
