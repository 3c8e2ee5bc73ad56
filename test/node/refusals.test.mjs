// Every refusal: its code in the answer, in the log, and in the text that the
// stock client's subscribe callback gets (explain mode, the default of start).

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { client, end, env, Inbox, inSeconds, jwt, logged, refused, Socket, upgrade, versions } from './lib.mjs';

after(end);

const anonClaims = { iss: 'supabase-demo', role: 'anon', exp: inSeconds(3600) };
const otherSecret = { secret: 'the-secret-of-another-project-32-characters' };

const badKeys = {
  'unknown publishable key': ['sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA', 'InvalidAPIKey'],
  'unknown secret key': ['sb_secret_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA', 'InvalidAPIKey'],
  'truncated key': [env.publishable.slice(0, -3), 'InvalidAPIKey'],
  'S3 access key': ['625729a08b95bf1b7ff351a663f3a23c', 'NotAnAPIKey'],
  'database password': ['postgres', 'NotAnAPIKey'],
  'anon JWT of another project': [jwt(anonClaims, otherSecret), 'JwtSignatureError'],
  'expired anon JWT': [jwt({ ...anonClaims, exp: inSeconds(-60) }), 'InvalidJWTToken'],
  'JWT without role': [jwt({ exp: inSeconds(60) }), 'InvalidJWTToken'],
  'JWT with alg none': [jwt(anonClaims, { header: { alg: 'none', typ: 'JWT' } }), 'JwtSignerError'],
  'JWT with a switched alg': [jwt(anonClaims, { header: { alg: 'RS256', kid: 'x', typ: 'JWT' } }), 'JwtSignerError'],
  'JWT cut in half': [env.anon.slice(0, 60), null],
};

for (const [name, [key, code]] of Object.entries(badKeys)) {
  test(`${name}: the join is refused with the code`, async () => {
    for (const vsn of ['1.0.0', '2.0.0']) {
      const s = await Socket.open(`apikey=${encodeURIComponent(key)}`, { vsn });
      const reply = await s.join(randomUUID());
      assert.equal(reply.status, 'error');
      if (code) assert.match(reply.response.reason, new RegExp(`^${code}: `));
      assert.match(reply.response.reason, / \| /, 'the remedy is part of the reason');
      const beat = await s.call('phoenix', 'heartbeat', {});
      assert.equal(beat.status, 'ok', 'the socket stays');
      s.close();
    }
    if (code) await logged(new RegExp(code));
  });

  test(`${name}: a plain GET and REST answer the same code`, async () => {
    const res = await upgrade(`apikey=${encodeURIComponent(key)}&vsn=2.0.0`, { Origin: 'http://localhost:3000' }, { upgradeHeaders: false });
    assert.ok(res.status >= 400 && res.status < 500, `${res.status}`);
    if (code) assert.equal(res.headers['x-sluice-code'], code);
    assert.ok(res.headers['x-sluice-refused-by']);
    assert.equal(res.headers['access-control-allow-origin'], '*');
    const body = JSON.parse(res.body);
    assert.ok(JSON.stringify(body).length > 20, res.body);
    if (key.startsWith('sb_') || !key.includes('.')) {
      const rest = await fetch(`${env.url}/rest/v1/items?select=id&limit=1`, { headers: { apikey: key } });
      assert.equal(rest.status, 401, 'an unknown key is not served as anon');
      if (code) assert.equal(rest.headers.get('x-sluice-code'), code);
    }
  });
}

for (const version of Object.keys(versions)) {
  test(`${version}: the subscribe callback gets code and remedy`, async () => {
    for (const [key, code] of [[badKeys['unknown publishable key'][0], 'InvalidAPIKey'], [jwt(anonClaims, otherSecret), 'JwtSignatureError']]) {
      const { status, message } = await refused(client(version, key).channel(randomUUID()));
      assert.equal(status, 'CHANNEL_ERROR');
      assert.match(message, new RegExp(code));
      assert.match(message, / \| \w+/, 'the remedy');
    }
  });

  test(`${version}: a bad user token is refused with its code`, async () => {
    const claims = { sub: randomUUID(), role: 'authenticated', exp: inSeconds(3600) };
    for (const [token, code] of [
      [jwt({ ...claims, exp: inSeconds(-5) }), 'InvalidJWTToken'],
      [jwt(claims, otherSecret), 'JwtSignatureError'],
      ['garbage', 'MalformedJWT'],
    ]) {
      const c = client(version, env.publishable, { accessToken: async () => token });
      await c.realtime.setAuth(token);
      const { status, message } = await refused(c.channel(randomUUID()));
      assert.equal(status, 'CHANNEL_ERROR');
      assert.match(message, new RegExp(code), message);
      await logged(new RegExp(code));
    }
  });
}

test('no key, the key in a wrong place, two keys', async () => {
  const query = (q, headers) => Socket.open(q, { headers });
  for (const [name, open, code] of [
    ['no key', () => query(''), 'MissingAPIKey'],
    ['empty key', () => query('apikey='), 'MissingAPIKey'],
    ['misspelt parameter', () => query(`api_key=${env.publishable}`), 'MissingAPIKey'],
    ['two keys', () => query(`apikey=${env.publishable}&apikey=${env.anon}`), 'DuplicateAPIKey'],
  ]) {
    const s = await open();
    const reply = await s.join(randomUUID());
    assert.equal(reply.status, 'error', name);
    assert.match(reply.response.reason, new RegExp(`^${code}: `), name);
    s.close();
    await logged(new RegExp(code));
  }
});

for (const vsn of ['1.0.0', '2.0.0']) {
  // spec: realtime:58 realtime:59
  test(`vsn ${vsn}: tokens in the join`, async () => {
    const s = await Socket.open(`apikey=${env.publishable}`, { vsn });
    const claims = { sub: randomUUID(), role: 'authenticated', exp: inSeconds(3600) };
    for (const field of ['access_token', 'user_token']) {
      assert.equal((await s.join(randomUUID(), { [field]: jwt(claims) })).status, 'ok');
      assert.equal((await s.join(randomUUID(), { [field]: env.publishable })).status, 'ok', 'sb_… is the handshake’s identity');
      for (const [token, reason] of [
        [jwt({ ...claims, exp: inSeconds(-5) }), /^InvalidJWTToken: Token has expired \d+ seconds ago/],
        [jwt({ sub: claims.sub, exp: inSeconds(60) }), /^InvalidJWTToken: Fields `role` and `exp` are required in JWT/],
        [jwt({ sub: claims.sub, role: 'authenticated' }), /^InvalidJWTToken: Fields `role` and `exp` are required in JWT/],
        ['garbage', /^MalformedJWT: The token provided is not a valid JWT/],
      ]) {
        const reply = await s.join(randomUUID(), { [field]: token });
        assert.equal(reply.status, 'error');
        assert.match(reply.response.reason, reason);
      }
    }
    s.close();
  });

  // spec: realtime:62
  test(`vsn ${vsn}: a bad access_token closes the channel with its text`, async () => {
    const claims = { sub: randomUUID(), role: 'authenticated', exp: inSeconds(3600) };
    for (const [token, text] of [
      [jwt({ sub: claims.sub, exp: inSeconds(60) }), 'Fields `role` and `exp` are required in JWT'],
      ['garbage', 'The token provided is not a valid JWT'],
      ['', 'The token provided is not a valid JWT'],
    ]) {
      const s = await Socket.open(`apikey=${env.publishable}`, { vsn });
      const topic = randomUUID();
      const { ref } = await s.join(topic, { access_token: jwt(claims) });
      s.send(`realtime:${topic}`, 'access_token', { access_token: token }, ref);
      const system = await s.inbox.find((m) => m.event === 'system' && m.payload.status === 'error');
      assert.ok(system.payload.message.startsWith(text), system.payload.message);
      await s.inbox.find((m) => m.event === 'phx_close' && m.topic === `realtime:${topic}`);
      s.close();
    }
  });

  // spec: realtime:34
  test(`vsn ${vsn}: a topic without a name`, async () => {
    const s = await Socket.open(`apikey=${env.publishable}`, { vsn });
    const reply = await s.join('');
    assert.equal(reply.status, 'error');
    assert.match(reply.response.reason, /^TopicNameRequired: You must provide a topic name/);
    s.close();
  });
}

test('keys and tokens stand nowhere in the log', async () => {
  const { log } = await import('./lib.mjs');
  await upgrade(`apikey=${env.secret}&vsn=2.0.0`);
  const text = await log();
  for (const secret of [env.publishable, env.secret, env.anon, env.service, env.jwtSecret]) assert.ok(!text.includes(secret), `the log has ${secret.slice(0, 18)}…`);
  assert.ok(!/eyJ[\w-]{10,}\.[\w-]{10,}\./.test(text), 'the log has a JWT');
});

test('an unknown route and a wrong method explain themselves', async () => {
  const res = await fetch(`${env.url}/nowhere`, { headers: { apikey: env.publishable, Origin: 'http://localhost:3000' } });
  assert.equal(res.status, 404);
  assert.equal(res.headers.get('x-sluice-code'), 'RouteNotFound');
  assert.equal(res.headers.get('access-control-allow-origin'), '*', 'else a browser reports CORS instead of 404');
  assert.match(await res.text(), /no Route matched/);
});
