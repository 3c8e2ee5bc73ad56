export type Message = {
  id: number
  user_id: string
  author: string
  body: string
  created_at: string
}

export const columns = 'id, user_id, author, body, created_at'
