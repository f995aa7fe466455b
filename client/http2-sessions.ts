// HTTP/2 to one server, for a gRPC transport: one session, opened when it is needed and opened again after it
// has ended. Unlike connect-node's own, a server that says goodbye twice does not end the process.
import { once } from 'node:events'
import http2, {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  type ClientSessionRequestOptions,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from 'node:http2'
import { Code, ConnectError } from '@connectrpc/connect'

export interface Http2Sessions extends Disposable {
  readonly authority: string
  /** Rejects when there is no connection, with the reason of Node. */
  request(
    method: string,
    path: string,
    headers: OutgoingHttpHeaders,
    options: ClientSessionRequestOptions,
  ): Promise<ClientHttp2Stream>
  notifyResponseByteRead(): void
}

/** What Node says of a session that ended under a call (`ERR_HTTP2_…`, `ECONNRESET`) is UNAVAILABLE in gRPC. */
function lost(error: unknown): ConnectError {
  if (error instanceof ConnectError) return error
  const reason = error instanceof Error ? error.message : String(error)
  return new ConnectError(`the connection was lost: ${reason}`, Code.Unavailable, {}, [], error)
}

/** Throws, or ends, by a ConnectError. */
function openStream(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  options: ClientSessionRequestOptions,
): ClientHttp2Stream {
  try {
    const stream = session.request(headers, options)
    // the one way by which Node and the session end a stream before its time
    const destroy = stream.destroy.bind(stream)
    stream.destroy = (error) => destroy(error === undefined || error === null ? error : lost(error))
    return stream
  } catch (error) {
    throw lost(error)
  }
}

export function createHttp2Sessions(
  authority: string,
  options: ClientSessionOptions | SecureClientSessionOptions,
): Http2Sessions {
  let current: Promise<ClientHttp2Session> | undefined
  const open = new Set<ClientHttp2Session>()

  async function connect(): Promise<ClientHttp2Session> {
    const session = http2.connect(authority, options)
    open.add(session)
    const leave = () => {
      if (current === connecting) current = undefined
    }
    // whoever waits for a stream is told by the stream; this one stays for as long as the session
    session.on('error', leave)
    // streams that are open go on, new ones take another session
    session.on('goaway', () => {
      leave()
      if (!session.closed) session.close()
    })
    session.on('close', () => {
      open.delete(session)
      leave()
    })
    const connecting = current
    const over = new AbortController()
    session.once('close', () => over.abort(new Error('the connection was closed')))
    await once(session, 'connect', { signal: over.signal })
    return session
  }

  function connected(): Promise<ClientHttp2Session> {
    if (current !== undefined) return current
    const connecting = Promise.resolve().then(connect)
    current = connecting
    connecting.catch(() => {
      if (current === connecting) current = undefined
    })
    return connecting
  }

  return {
    authority,
    async request(method, path, headers, requestOptions) {
      let session = await connected()
      // one that has ended does not always say so
      if (session.destroyed || session.closed) {
        current = undefined
        session = await connected()
      }
      const all = { ...headers, ':method': method, ':path': path }
      const stream = openStream(session, all, requestOptions)
      // whoever asked listens a turn later only, and the session may be gone by then
      stream.on('error', () => {})
      return stream
    },
    notifyResponseByteRead: () => {},
    [Symbol.dispose]() {
      current = undefined
      // without an error its streams would end as if nothing had happened, and their callers wait on
      const error = new ConnectError('the connection was closed', Code.Unavailable)
      for (const session of open) session.destroy(error, http2.constants.NGHTTP2_CANCEL)
    },
  }
}
