-- Extensions that migrations take for granted, each if the server offers it.

do $$
declare
  ext text;
begin
  foreach ext in array array['uuid-ossp', 'pgcrypto', 'pg_stat_statements'] loop
    if exists (select from pg_available_extensions a where a.name = ext) then
      execute format('create extension if not exists %I with schema extensions', ext);
    end if;
  end loop;
end $$;

-- pgjwt, which PostgreSQL packages seldom have: its functions over pgcrypto.
do $outer$
begin
  if to_regprocedure('extensions.hmac(bytea, bytea, text)') is null or to_regprocedure('extensions.sign(json, text, text)') is not null then
    return;
  end if;

  create function extensions.url_encode(data bytea) returns text
  language sql immutable as $$
    select translate(encode(data, 'base64'), E'+/=\n', '-_')
  $$;

  create function extensions.url_decode(data text) returns bytea
  language sql immutable as $$
    select decode(rpad(translate(data, '-_', '+/'), (length(data) + 3) / 4 * 4, '='), 'base64')
  $$;

  create function extensions.algorithm_sign(signables text, secret text, algorithm text) returns text
  language sql immutable as $$
    select extensions.url_encode(extensions.hmac(convert_to(signables, 'utf8'), convert_to(secret, 'utf8'),
      case algorithm when 'HS256' then 'sha256' when 'HS384' then 'sha384' when 'HS512' then 'sha512' else '' end))
  $$;

  create function extensions.sign(payload json, secret text, algorithm text default 'HS256') returns text
  language sql immutable as $$
    select s.signables || '.' || extensions.algorithm_sign(s.signables, secret, algorithm)
      from (select extensions.url_encode(convert_to('{"alg":"' || algorithm || '","typ":"JWT"}', 'utf8')) || '.' ||
                   extensions.url_encode(convert_to(payload::text, 'utf8')) as signables) s
  $$;

  create function extensions.verify(token text, secret text, algorithm text default 'HS256')
  returns table (header json, payload json, valid boolean)
  language sql stable as $$
    select j.header, j.payload,
           r[3] = extensions.algorithm_sign(r[1] || '.' || r[2], secret, algorithm)
           and pg_catalog.tstzrange(
                 pg_catalog.to_timestamp((j.payload ->> 'nbf')::double precision),
                 pg_catalog.to_timestamp((j.payload ->> 'exp')::double precision)) @> now()
      from (select pg_catalog.regexp_split_to_array(token, '\.') as r) t,
           lateral (select convert_from(extensions.url_decode(t.r[1]), 'utf8')::json as header,
                           convert_from(extensions.url_decode(t.r[2]), 'utf8')::json as payload) j
  $$;
end $outer$;

-- Clients ask /graphql/v1 through this function; without pg_graphql it says so.
create or replace function graphql_public.graphql("operationName" text default null, query text default null, variables jsonb default null, extensions jsonb default null)
returns jsonb language sql stable as $$
  select '{"errors": [{"message": "pg_graphql extension is not enabled."}]}'::jsonb
$$;
