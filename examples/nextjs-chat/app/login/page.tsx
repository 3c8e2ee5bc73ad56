import { connection } from 'next/server'
import { Login } from './login'

export default async function Page() {
  await connection() // rendered for each request: the nonce is new every time
  return (
    <main className="narrow">
      <h1>Chat</h1>
      <Login />
    </main>
  )
}
