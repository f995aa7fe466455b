// The declarations of @connectrpc/connect name this DOM type, which @types/node does not declare globally.
declare global {
  type HeadersInit = import('undici-types').HeadersInit
}

export {}
