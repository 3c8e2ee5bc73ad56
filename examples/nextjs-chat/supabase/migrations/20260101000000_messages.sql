create table public.messages (
  id bigint generated always as identity primary key,
  user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
  author text not null default coalesce(auth.jwt() ->> 'email', ''),
  body text not null check (char_length(body) between 1 and 2000),
  created_at timestamptz not null default now()
);

alter table public.messages enable row level security;

create policy "Signed-in users read messages" on public.messages
  for select to authenticated using (true);

create policy "Users write messages as themselves" on public.messages
  for insert to authenticated with check ((select auth.uid()) = user_id);

create policy "Users change their own messages" on public.messages
  for update to authenticated using ((select auth.uid()) = user_id) with check ((select auth.uid()) = user_id);

create policy "Users delete their own messages" on public.messages
  for delete to authenticated using ((select auth.uid()) = user_id);

-- Who wrote a message is not the client's to say.
revoke insert, update on public.messages from anon, authenticated;
grant insert (body), update (body) on public.messages to authenticated;

-- Without this line a channel is SUBSCRIBED, and nothing ever comes.
alter publication supabase_realtime add table public.messages;
