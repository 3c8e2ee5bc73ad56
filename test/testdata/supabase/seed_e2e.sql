-- A room that new users are not put into, for those who must see nothing.
insert into public.rooms (name, topic, is_open) values ('Den', 'Alice and Bob', false);
insert into public.room_members (room_id, user_id)
select r.id, p.id from public.rooms r cross join public.profiles p where r.name = 'Den';
