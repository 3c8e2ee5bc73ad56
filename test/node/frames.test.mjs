// Frames that no client should send. The server drops or closes; it never falls.

import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import net from 'node:net';
import { after, test } from 'node:test';
import { end, env, Socket } from './lib.mjs';

after(end);

const open = (vsn) => Socket.open(`apikey=${env.publishable}`, { vsn });
const alive = async (s) => assert.equal((await s.call('phoenix', 'heartbeat', {})).status, 'ok');

for (const vsn of ['1.0.0', '2.0.0']) {
  test(`vsn ${vsn}: garbage is dropped, the socket stays`, async () => {
    const s = await open(vsn);
    for (const text of ['', ' ', 'null', 'true', '42', '"x"', '{', '[]', '{}', '[1,2,3,4]', '["1","1","realtime:x","phx_join"]', '\u0000', 'x'.repeat(100_000),
      '['.repeat(50_000), '{"topic":"t","event":"e"}', '{"topic":1,"event":2,"payload":3,"ref":4}', '[{},{},{},{},{}]', '[null,null,null,null,null]']) {
      s.ws.send(text);
    }
    await alive(s);
    for (const bytes of [Buffer.alloc(0), Buffer.from([0]), Buffer.from([3]), Buffer.from([3, 255, 255, 255, 255, 255, 1]), Buffer.from([9, 1, 1, 1]), randomBytes(1000)]) {
      s.ws.send(bytes);
    }
    await alive(s);
    const { status } = await s.join(randomUUID());
    assert.equal(status, 'ok');
    s.close();
  });

  test(`vsn ${vsn}: odd joins get one answer and the socket stays`, async () => {
    const s = await open(vsn);
    for (const payload of [null, 1, 'x', [], { config: 1 }, { config: { broadcast: 'x' } }, { config: { postgres_changes: ['x'] } },
      { config: { postgres_changes: [{ event: '*', schema: 'public', table: 'items', filter: 'wrong' }] } },
      { config: { postgres_changes: [{}] } }, { config: { presence: { key: { deep: [] } } } }, { access_token: 12 }]) {
      const ref = s.send(`realtime:${randomUUID()}`, 'phx_join', payload);
      const reply = await s.inbox.find((m) => m.event === 'phx_reply' && m.ref === ref, 12_000, `the answer to ${JSON.stringify(payload)}`);
      assert.ok(['ok', 'error'].includes(reply.payload.status));
    }
    await alive(s);
    s.close();
  });

  test(`vsn ${vsn}: pushes without a join, twice joined, unknown events`, async () => {
    const s = await open(vsn);
    s.send(`realtime:${randomUUID()}`, 'broadcast', { event: 'x' });
    s.send(`realtime:${randomUUID()}`, 'access_token', { access_token: 'x' });
    const topic = randomUUID();
    const first = await s.join(topic);
    const second = await s.join(topic);
    assert.equal(second.status, 'ok');
    await s.inbox.find((m) => m.event === 'phx_close' && (m.join_ref ?? m.ref) === first.ref, 5_000, 'phx_close of the replaced channel');
    s.send(`realtime:${topic}`, 'no_such_event', { a: 1 }, second.ref);
    s.send(`realtime:${topic}`, 'broadcast', 'not an object', second.ref);
    await alive(s);
    s.close();
  });
}

test('a message over 5 MB closes the socket with 1009', async () => {
  const s = await open('2.0.0');
  s.ws.on('error', () => {});
  s.ws.send('x'.repeat(5_500_000));
  const { code } = await s.closed;
  assert.ok(code === 1009 || code === 1006, `close code ${code}`);
  const next = await open('2.0.0');
  await alive(next);
  next.close();
});

test('half frames, unmasked frames and broken handshakes leave the server well', async () => {
  const { hostname, port } = new URL(env.url);
  const raw = (bytes, { end: finish = true } = {}) => new Promise((resolve) => {
    const socket = net.connect(Number(port), hostname, () => { socket.write(bytes); if (finish) socket.end(); });
    let answer = '';
    socket.on('data', (d) => { answer += d.toString('latin1'); });
    socket.on('error', () => resolve(answer));
    socket.on('close', () => resolve(answer));
    socket.setTimeout(3_000, () => socket.destroy());
  });
  const request = (query, extra = '') => `GET /realtime/v1/websocket?${query} HTTP/1.1\r\nHost: ${hostname}:${port}\r\n` +
    `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n${extra}`;
  const good = request(`apikey=${env.publishable}&vsn=2.0.0`, 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  await raw(good.slice(0, 60)); // half a request
  assert.match(await raw(request(`apikey=${env.publishable}&vsn=2.0.0`, '\r\n')), /^HTTP\/1\.1 400/); // no key of the handshake
  for (const frame of [
    Buffer.from([0x81]), // half a header
    Buffer.from([0x81, 0xfe, 0x10]), // half a length
    Buffer.from([0x81, 0x85, 1, 2, 3, 4, 9]), // one of five bytes
    Buffer.from([0x81, 0x02, 0x7b, 0x7d]), // not masked
    Buffer.from([0xf1, 0x80, 0, 0, 0, 0]), // reserved bits
    Buffer.from([0x83, 0x80, 0, 0, 0, 0]), // reserved opcode
    Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), // 2^64 bytes
    Buffer.from([0x09, 0x80, 0, 0, 0, 0]), // a ping in parts
  ]) {
    assert.match(await raw(Buffer.concat([Buffer.from(good), frame])), /^HTTP\/1\.1 101/);
  }
  const s = await open('2.0.0');
  await alive(s);
  s.close();
});

test('large but legal: a broadcast of 2 MB in fragments', async () => {
  const [a, b] = [await open('2.0.0'), await open('2.0.0')];
  const topic = randomUUID();
  const joined = await a.join(topic, { config: { broadcast: { ack: true } } });
  await b.join(topic);
  const text = 'y'.repeat(2_000_000);
  const message = JSON.stringify([joined.ref, '99', `realtime:${topic}`, 'broadcast', { type: 'broadcast', event: 'big', payload: { text } }]);
  const third = Math.ceil(message.length / 3);
  for (let i = 0; i < 3; i++) a.ws.send(message.slice(i * third, (i + 1) * third), { fin: i === 2 });
  const reply = await a.inbox.find((m) => m.event === 'phx_reply' && m.ref === '99');
  assert.equal(reply.payload.status, 'ok');
  const got = await b.inbox.find((m) => m.event === 'broadcast' || m.binary, 10_000);
  if (!got.binary) assert.equal(got.payload.payload.text.length, text.length);
  a.close();
  b.close();
});
