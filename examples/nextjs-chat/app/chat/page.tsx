import { redirect } from 'next/navigation'
import { columns, type Message } from '@/lib/message'
import { createClient } from '@/lib/supabase/server'
import { Chat } from './chat'

export default async function Page() {
  const supabase = await createClient()
  const { data } = await supabase.auth.getClaims()
  if (!data) redirect('/login')
  const { data: latest, error } = await supabase
    .from('messages').select(columns).order('id', { ascending: false }).limit(100).overrideTypes<Message[]>()
  if (error) throw new Error(error.message)
  return <Chat me={{ id: data.claims.sub, email: data.claims.email ?? '' }} initial={latest.reverse()} />
}
