import { createBrowserClient } from '@supabase/ssr'
import { supabaseKey, supabaseURL } from '@/lib/env'

/** The browser's client. However often it is asked for, there is one. */
export function createClient() {
  return createBrowserClient(supabaseURL, supabaseKey)
}
