'use client'

import { useRouter } from 'next/navigation'
import { useEffect, useRef, useState, type FormEvent } from 'react'
import { useRealtime } from '@/hooks/use-realtime'
import type { Message } from '@/lib/message'
import { createClient } from '@/lib/supabase/client'

export function Chat({ me, initial }: { me: { id: string; email: string }; initial: Message[] }) {
  const router = useRouter()
  const { messages, people, typing, status, problem, type } = useRealtime(me, initial)
  const [error, setError] = useState('')
  const end = useRef<HTMLLIElement>(null)
  useEffect(() => end.current?.scrollIntoView({ block: 'nearest' }), [messages.length])

  async function send(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    const form = event.currentTarget
    const body = String(new FormData(form).get('body')).trim()
    if (!body) return
    const { error } = await createClient().from('messages').insert({ body })
    setError(error?.message ?? '')
    if (!error) form.reset()
  }

  async function remove(id: number) {
    const { error } = await createClient().from('messages').delete().eq('id', id)
    setError(error?.message ?? '')
  }

  async function signOut() {
    await createClient().auth.signOut()
    router.replace('/login')
    router.refresh()
  }

  return (
    <main className="chat">
      <header>
        <h1>Chat</h1>
        <p className="state" data-state={status} role="status">{status === 'SUBSCRIBED' ? `live, ${people.length} here` : status.toLowerCase()}</p>
        <p>{me.email}</p>
        <button onClick={signOut}>Sign out</button>
      </header>
      {problem && (
        <p role="alert">
          {problem} Find out which hop fails: <code>sluice doctor --table messages --page {'<this page>'}</code>
        </p>
      )}
      <ol className="messages" aria-label="Messages">
        {messages.map((m) => (
          <li key={m.id} className={m.user_id === me.id ? 'mine' : undefined}>
            <p className="by">{m.author} <time dateTime={m.created_at} suppressHydrationWarning>{new Date(m.created_at).toLocaleTimeString()}</time></p>
            <p>{m.body}</p>
            {m.user_id === me.id && <button className="quiet" onClick={() => remove(m.id)} aria-label={`Delete ${m.body}`}>Delete</button>}
          </li>
        ))}
        <li ref={end} aria-hidden="true" />
      </ol>
      <p className="typing" aria-live="polite">{typing.length > 0 && `${typing.join(', ')} is typing…`}</p>
      {error && <p role="alert">{error}</p>}
      <form className="write" onSubmit={send}>
        <input name="body" aria-label="Message" placeholder="Say something" autoComplete="off" maxLength={2000} required onChange={type} />
        <button className="primary">Send</button>
      </form>
    </main>
  )
}
