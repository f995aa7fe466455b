// Fastify over mutual TLS: requests carry the SPIFFE ID of who sent them, and nobody else gets in.
import type { Server } from 'node:http'
import type { FastifyPluginAsync, FastifyServerFactory } from 'fastify'
import type { SpiffeId } from '../spiffe/id.ts'
import type { Matcher } from '../spiffe/match.ts'
import type { TlsSource } from './credential.ts'
import { peerIdOf } from './peer.ts'
import type { ServerOptions } from './tls-gate.ts'
import { createHttpServer } from './tls-server.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** who sent this request, as proven by mutual TLS; needs the plug-in `spiffe` */
    readonly spiffeId: SpiffeId
  }
  interface FastifyContextConfig {
    /** who may call this route, of those whom the server lets in; read by the plug-in `spiffe` */
    readonly accept?: Matcher
  }
}

/** For `Fastify({ serverFactory })`: the server lets in whom `accept` accepts, and rotates by itself. */
export function spiffeServer(
  source: TlsSource,
  options: ServerOptions,
): FastifyServerFactory<Server> {
  return (handler) => createHttpServer(source, options, handler)
}

const plugin: FastifyPluginAsync = async (app) => {
  app.decorateRequest('spiffeId', {
    getter() {
      const id = peerIdOf(this.raw.socket)
      // the hook below has refused the request before anybody asks
      if (id === undefined) throw new Error('this request did not come over mutual TLS')
      return id
    },
  })
  app.addHook('onRequest', async (request, reply) => {
    const id = peerIdOf(request.raw.socket)
    const { accept } = request.routeOptions.config
    if (id === undefined || (accept !== undefined && accept(id) !== undefined))
      return reply.code(403).send({ error: 'access denied' })
  })
}

/** Gives requests their `spiffeId`; answers 403 to those without, and to those whom a route refuses. */
export const spiffe = Object.assign(plugin, {
  // for the whole application, not for a scope of its own
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'castellan-spiffe',
})
