// The Content-Security-Policy of every page: what `sluice csp --for next` prints, with
// the project's address from the environment.

/**
 * The origins that a page may connect to: the API by http and its socket by ws. The
 * second is made of the first, never typed: to a browser an http source covers no
 * socket. Of a loopback address both names are listed, as they are two hosts.
 */
export function connectSources(apiURL: string): string[] {
  const { protocol, hostname, port } = new URL(apiURL)
  const socket = protocol === 'https:' ? 'wss:' : 'ws:'
  const others: Record<string, string> = { '127.0.0.1': 'localhost', localhost: '127.0.0.1' }
  const hosts = [hostname, others[hostname]].filter((h) => h !== undefined)
  return hosts.flatMap((host) => [protocol, socket].map((p) => `${p}//${host}${port && `:${port}`}`))
}

export function policy(apiURL: string, nonce: string, development: boolean): string {
  const connect = connectSources(apiURL)
  const images = connect.filter((source) => source.startsWith('http'))
  return [
    "default-src 'self'",
    // React evaluates code in development.
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${development ? " 'unsafe-eval'" : ''}`,
    "style-src 'self' 'unsafe-inline'",
    `img-src 'self' blob: data: ${images.join(' ')}`,
    `connect-src 'self' ${connect.join(' ')}`,
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ')
}
