// Next.js replaces these by their values when it builds, so each is written out.
function need(name: string, value: string | undefined): string {
  if (!value) throw new Error(`${name} is not set: copy .env.example to .env.local`)
  return value
}

export const supabaseURL = need('NEXT_PUBLIC_SUPABASE_URL', process.env.NEXT_PUBLIC_SUPABASE_URL)
export const supabaseKey = need('NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY', process.env.NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY)
