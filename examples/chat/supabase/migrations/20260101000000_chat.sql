-- A chat: rooms, their members, and messages that only members may see.

create table public.profiles (
  id uuid primary key references auth.users (id) on delete cascade,
  name text not null check (char_length(btrim(name)) between 1 and 40),
  created_at timestamptz not null default now()
);

create table public.rooms (
  id bigint generated always as identity primary key,
  name text not null unique check (char_length(btrim(name)) between 1 and 60),
  topic text not null default '',
  -- new users become members of the rooms that are open
  is_open boolean not null default false,
  created_at timestamptz not null default now()
);

create table public.room_members (
  room_id bigint not null references public.rooms (id) on delete cascade,
  user_id uuid not null references public.profiles (id) on delete cascade,
  joined_at timestamptz not null default now(),
  primary key (room_id, user_id)
);
create index room_members_user_id on public.room_members (user_id);

create table public.messages (
  -- made by the client, so that a message shown before it is stored and the
  -- row that comes back are the same, and a repeated insert is refused
  id uuid primary key default gen_random_uuid(),
  room_id bigint not null references public.rooms (id) on delete cascade,
  user_id uuid not null default auth.uid() references public.profiles (id) on delete cascade,
  body text not null check (char_length(btrim(body)) between 1 and 4000),
  created_at timestamptz not null default now(),
  edited_at timestamptz
);
create index messages_room_id_created_at on public.messages (room_id, created_at);

alter table public.profiles enable row level security;
alter table public.rooms enable row level security;
alter table public.room_members enable row level security;
alter table public.messages enable row level security;

-- Names are known to everyone who is signed in.
create policy "signed-in users read profiles" on public.profiles
  for select to authenticated using (true);

create policy "users see their memberships" on public.room_members
  for select to authenticated using (user_id = (select auth.uid()));

create policy "members see their rooms" on public.rooms
  for select to authenticated using (
    exists (
      select 1 from public.room_members m
      where m.room_id = rooms.id and m.user_id = (select auth.uid())
    )
  );

create policy "members read messages" on public.messages
  for select to authenticated using (
    exists (
      select 1 from public.room_members m
      where m.room_id = messages.room_id and m.user_id = (select auth.uid())
    )
  );

create policy "members write messages as themselves" on public.messages
  for insert to authenticated with check (
    user_id = (select auth.uid())
    and exists (
      select 1 from public.room_members m
      where m.room_id = messages.room_id and m.user_id = (select auth.uid())
    )
  );

create policy "authors edit their messages" on public.messages
  for update to authenticated
  using (user_id = (select auth.uid()))
  with check (user_id = (select auth.uid()));

create policy "authors delete their messages" on public.messages
  for delete to authenticated using (user_id = (select auth.uid()));

-- A client decides the text and nothing else: author and times are the database's.
revoke insert, update on public.messages from anon, authenticated;
grant insert (id, room_id, body) on public.messages to authenticated;
grant update (body) on public.messages to authenticated;

create function public.messages_set_edited_at() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.edited_at := now();
  return new;
end;
$$;

create trigger messages_set_edited_at before update of body on public.messages
  for each row when (old.body is distinct from new.body)
  execute function public.messages_set_edited_at();

-- Whoever signs up gets a name and a seat in the open rooms.
create function public.handle_new_user() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into public.profiles (id, name) values (
    new.id,
    left(coalesce(
      nullif(btrim(new.raw_user_meta_data ->> 'name'), ''),
      nullif(btrim(split_part(new.email, '@', 1)), ''),
      'Guest'), 40)
  );
  insert into public.room_members (room_id, user_id)
  select id, new.id from public.rooms where is_open;
  return new;
end;
$$;

create trigger on_auth_user_created after insert on auth.users
  for each row execute function public.handle_new_user();

-- Without these two lines the page would stay silent: Realtime sends changes of
-- published tables only, and a DELETE needs the old row to be judged by.
alter table public.messages replica identity full;
alter publication supabase_realtime add table public.messages;
