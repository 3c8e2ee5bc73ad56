'use client'

import type { RealtimeChannel } from '@supabase/supabase-js'
import { useCallback, useEffect, useRef, useState } from 'react'
import { columns, type Message } from '@/lib/message'
import { createClient } from '@/lib/supabase/client'

const typingFor = 3000 // ms after the last key

function byID(list: Message[]) {
  return [...new Map(list.map((m) => [m.id, m])).values()].sort((a, b) => a.id - b.id)
}

/**
 * Messages as they are now, who is here and who is typing. problem says what to tell
 * the user when the channel cannot be joined; the client goes on trying.
 */
export function useRealtime(me: { id: string; email: string }, initial: Message[]) {
  const [messages, setMessages] = useState(initial)
  const [people, setPeople] = useState<string[]>([])
  const [typing, setTyping] = useState<string[]>([])
  const [status, setStatus] = useState('JOINING')
  const [problem, setProblem] = useState('')
  const channel = useRef<RealtimeChannel>(null)
  const { id, email } = me

  useEffect(() => {
    const supabase = createClient()
    const timers = new Map<string, ReturnType<typeof setTimeout>>()
    let left = false // StrictMode mounts twice: the first one must not join

    async function catchUp() {
      const { data } = await supabase.from('messages').select(columns).order('id', { ascending: false }).limit(100).overrideTypes<Message[]>()
      if (data && !left) setMessages((old) => byID([...old, ...data]))
    }

    async function join() {
      // The join must carry the user's token, or row level security lets nothing
      // through to it: SUBSCRIBED, and no messages.
      await supabase.realtime.setAuth()
      if (left) return
      channel.current = supabase
        .channel('chat', { config: { presence: { key: id } } })
        .on<Message>('postgres_changes', { event: 'INSERT', schema: 'public', table: 'messages' }, ({ new: row }) => setMessages((old) => byID([...old, row])))
        .on<Message>('postgres_changes', { event: 'UPDATE', schema: 'public', table: 'messages' }, ({ new: row }) => setMessages((old) => byID([...old, row])))
        .on<Message>('postgres_changes', { event: 'DELETE', schema: 'public', table: 'messages' }, ({ old: row }) => setMessages((old) => old.filter((m) => m.id !== row.id)))
        .on('presence', { event: 'sync' }, () => setPeople(Object.keys(channel.current?.presenceState() ?? {})))
        .on('broadcast', { event: 'typing' }, ({ payload }) => {
          const who = String(payload.email)
          clearTimeout(timers.get(who))
          timers.set(who, setTimeout(() => setTyping((old) => old.filter((x) => x !== who)), typingFor))
          setTyping((old) => (old.includes(who) ? old : [...old, who]))
        })
        .subscribe((state, err) => {
          if (left) return
          setStatus(state)
          setProblem(state === 'SUBSCRIBED' ? '' : err ? `Messages do not arrive by themselves: ${err.message}` : state === 'CHANNEL_ERROR' || state === 'TIMED_OUT' ? 'Messages do not arrive by themselves.' : '')
          if (state === 'SUBSCRIBED') {
            void channel.current?.track({ email })
            void catchUp() // what was written between the page's rendering and now
          }
        })
    }

    void join()
    return () => {
      left = true
      for (const t of timers.values()) clearTimeout(t)
      if (channel.current) void supabase.removeChannel(channel.current)
      channel.current = null
    }
  }, [id, email])

  const last = useRef(0)
  const type = useCallback(() => {
    if (Date.now() - last.current < typingFor / 2) return
    last.current = Date.now()
    void channel.current?.send({ type: 'broadcast', event: 'typing', payload: { email } })
  }, [email])

  return { messages, people, typing, status, problem, type }
}
