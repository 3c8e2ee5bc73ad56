'use client'

import { useRouter } from 'next/navigation'
import { useState, type FormEvent } from 'react'
import { createClient } from '@/lib/supabase/client'

export function Login() {
  const router = useRouter()
  const [error, setError] = useState('')
  const [busy, setBusy] = useState(false)

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault()
    const form = new FormData(event.currentTarget)
    const button = (event.nativeEvent as SubmitEvent).submitter as HTMLButtonElement | null
    const credentials = { email: String(form.get('email')), password: String(form.get('password')) }
    setBusy(true)
    setError('')
    const { auth } = createClient()
    const { error } = await (button?.value === 'up' ? auth.signUp(credentials) : auth.signInWithPassword(credentials))
    if (error) {
      setError(error.message)
      setBusy(false)
      return
    }
    router.replace('/chat')
    router.refresh()
  }

  return (
    <form className="card" onSubmit={submit}>
      <label>
        Email
        <input name="email" type="email" autoComplete="username" required />
      </label>
      <label>
        Password
        <input name="password" type="password" autoComplete="current-password" minLength={6} required />
      </label>
      {error && <p role="alert">{error}</p>}
      <p className="buttons">
        <button value="in" className="primary" disabled={busy}>Sign in</button>
        <button value="up" disabled={busy}>Sign up</button>
      </p>
    </form>
  )
}
