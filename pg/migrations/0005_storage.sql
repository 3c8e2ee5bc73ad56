-- Schema storage: what migrations create buckets in and policies on. The files
-- themselves are served elsewhere.

do $migration$
declare
  owner constant text := 'supabase_storage_admin';
  made boolean;
  objects_made boolean;
begin

perform sluice.make_type('storage.buckettype', owner, $$enum ('STANDARD', 'ANALYTICS', 'VECTOR')$$);

made := sluice.make_table('storage.buckets', owner, $$
create table storage.buckets (
  id text not null primary key,
  name text not null,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  public boolean default false,
  avif_autodetection boolean default false,
  file_size_limit bigint,
  allowed_mime_types text[],
  owner_id text,
  type storage.buckettype not null default 'STANDARD'
);
create unique index bname on storage.buckets (name);
comment on column storage.buckets.owner is 'Field is deprecated, use owner_id instead';
$$);

objects_made := sluice.make_table('storage.objects', owner, $$
create table storage.objects (
  id uuid not null default gen_random_uuid() primary key,
  bucket_id text constraint "objects_bucketId_fkey" references storage.buckets (id),
  name text,
  owner uuid,
  created_at timestamptz default now(),
  updated_at timestamptz default now(),
  last_accessed_at timestamptz default now(),
  metadata jsonb,
  path_tokens text[] generated always as (string_to_array(name, '/')) stored,
  version text,
  owner_id text,
  user_metadata jsonb
);
create unique index bucketid_objname on storage.objects (bucket_id, name);
create index name_prefix_search on storage.objects (name text_pattern_ops);
create index idx_objects_bucket_id_name on storage.objects (bucket_id, name collate "C");
comment on column storage.objects.owner is 'Field is deprecated, use owner_id instead';
$$);

perform sluice.make_function('storage.foldername(text)', owner, $ddl$
create function storage.foldername(name text) returns text[] language plpgsql immutable as $$
declare
  parts text[];
begin
  parts := string_to_array(name, '/');
  return parts[1 : array_length(parts, 1) - 1];
end
$$ $ddl$);

perform sluice.make_function('storage.filename(text)', owner, $ddl$
create function storage.filename(name text) returns text language plpgsql immutable as $$
declare
  parts text[];
begin
  parts := string_to_array(name, '/');
  return parts[array_length(parts, 1)];
end
$$ $ddl$);

perform sluice.make_function('storage.extension(text)', owner, $ddl$
create function storage.extension(name text) returns text language plpgsql immutable as $$
declare
  file text;
begin
  file := storage.filename(name);
  return reverse(split_part(reverse(file), '.', 1));
end
$$ $ddl$);

-- One level of a folder: folders first without an id, then objects. Names are
-- compared case-insensitively, as the original does; rows are those that the
-- caller may select.
perform sluice.make_function('storage.search(text, text, integer, integer, integer, text, text, text)', owner, $ddl$
create function storage.search(
  prefix text, bucketname text, limits integer default 100, levels integer default 1, offsets integer default 0,
  search text default '', sortcolumn text default 'name', sortorder text default 'asc')
returns table (name text, id uuid, updated_at timestamptz, created_at timestamptz, last_accessed_at timestamptz, metadata jsonb)
language plpgsql stable as $$
declare
  col text := case lower(sortcolumn) when 'updated_at' then 'updated_at' when 'created_at' then 'created_at'
                when 'last_accessed_at' then 'last_accessed_at' else 'name' end;
  dir text := case when lower(sortorder) = 'desc' then 'desc' else 'asc' end;
  like_prefix text := replace(replace(replace(lower(prefix || search), '\', '\\'), '%', '\%'), '_', '\_') || '%';
begin
  return query execute format($query$
    with level as (
      select o.path_tokens[$1] as entry, cardinality(o.path_tokens) > $1 as folder, o.id, o.updated_at, o.created_at, o.last_accessed_at, o.metadata
        from storage.objects o
       where o.bucket_id = $2 and lower(o.name) like $3 and cardinality(o.path_tokens) >= $1
    ), entries as (
      select l.entry as name, null::uuid as id, null::timestamptz as updated_at, null::timestamptz as created_at,
             null::timestamptz as last_accessed_at, null::jsonb as metadata
        from level l where l.folder group by l.entry
      union all
      select l.entry, l.id, l.updated_at, l.created_at, l.last_accessed_at, l.metadata from level l where not l.folder
    )
    select e.* from entries e order by (e.id is not null), e.%I %s, e.name limit $4 offset $5
  $query$, col, dir) using levels, bucketname, like_prefix, limits, offsets;
end
$$ $ddl$);

if made then
  grant all on storage.buckets to anon, authenticated, service_role;
end if;
if objects_made then
  grant all on storage.objects to anon, authenticated, service_role;
end if;
if exists (select from pg_catalog.pg_roles where rolname = 'postgres') then
  perform sluice.try_grant('grant all on storage.buckets, storage.objects to postgres with grant option');
end if;

end $migration$;
