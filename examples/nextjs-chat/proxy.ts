// Before every page: the policy with a nonce, and the session, which is refreshed here
// because a page cannot set cookies.

import { createServerClient } from '@supabase/ssr'
import { NextResponse, type NextRequest } from 'next/server'
import { policy } from '@/lib/csp'
import { supabaseKey, supabaseURL } from '@/lib/env'

export async function proxy(request: NextRequest) {
  const csp = policy(supabaseURL, btoa(crypto.randomUUID()), process.env.NODE_ENV === 'development')
  const proceed = () => {
    const headers = new Headers(request.headers) // with the cookies as they are now
    headers.set('Content-Security-Policy', csp) // Next.js takes the nonce for its own scripts
    return NextResponse.next({ request: { headers } })
  }
  let response = proceed()
  const supabase = createServerClient(supabaseURL, supabaseKey, {
    cookies: {
      getAll: () => request.cookies.getAll(),
      setAll(list, headers) {
        for (const { name, value } of list) request.cookies.set(name, value)
        response = proceed()
        for (const { name, value, options } of list) response.cookies.set(name, value, options)
        for (const [name, value] of Object.entries(headers ?? {})) response.headers.set(name, value)
      },
    },
  })
  const { data } = await supabase.auth.getClaims()
  if (!data && request.nextUrl.pathname.startsWith('/chat')) {
    response = NextResponse.redirect(new URL('/login', request.url))
  }
  response.headers.set('Content-Security-Policy', csp)
  return response
}

export const config = {
  matcher: ['/((?!api|_next/static|_next/image|favicon.ico).*)'],
}
