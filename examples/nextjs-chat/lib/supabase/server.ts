import { createServerClient } from '@supabase/ssr'
import { cookies } from 'next/headers'
import { supabaseKey, supabaseURL } from '@/lib/env'

/** The client of one request, with the session in its cookies. */
export async function createClient() {
  const store = await cookies()
  return createServerClient(supabaseURL, supabaseKey, {
    cookies: {
      getAll: () => store.getAll(),
      setAll(list) {
        try {
          for (const { name, value, options } of list) store.set(name, value, options)
        } catch {
          // A page may set no cookie; proxy.ts has refreshed the session before it.
        }
      },
    },
  })
}
