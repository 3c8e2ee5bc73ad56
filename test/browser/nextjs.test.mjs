// examples/nextjs-chat, built and started as for production, in two browser contexts.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { client, end, env } from '../node/lib.mjs';
import { launch, watch } from './lib.mjs';

const app = env.chat;
let browser;
before(async () => { browser = await launch(); });
after(async () => {
  await browser.close();
  await end();
});

async function signUp(name, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 720 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const bad = watch(page, [new URL(app).host, new URL(env.url).host]);
  const email = `${name}-${randomUUID().slice(0, 8)}@example.com`;
  await page.goto(`${app}/chat`);
  assert.equal(new URL(page.url()).pathname, '/login', 'without a session the chat sends to the login');
  await page.getByLabel('Email').fill(email);
  await page.getByLabel('Password').fill('a-password-of-the-test');
  await page.getByRole('button', { name: 'Sign up' }).click();
  await page.locator('.state[data-state=SUBSCRIBED]').waitFor();
  return { page, bad, email, context };
}

const write = async (page, text) => {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
};
const message = (page, text) => page.locator('.messages li', { hasText: text });

test('two people: messages, presence, typing, deletion, reload, sign out', { timeout: 120_000 }, async () => {
  const a = await signUp('ada');
  const b = await signUp('bob', { colorScheme: 'dark' });
  await a.page.getByText('live, 2 here').waitFor();
  await write(a.page, 'Does it arrive?');
  await message(b.page, 'Does it arrive?').waitFor();
  assert.equal(await message(a.page, 'Does it arrive?').count(), 1);
  await b.page.getByLabel('Message', { exact: true }).pressSequentially('At once');
  await a.page.getByText(`${b.email} is typing…`).waitFor();
  await b.page.keyboard.press('Enter');
  await message(a.page, 'At once').waitFor();
  await a.page.screenshot({ path: join(process.env.SCREENSHOTS, 'nextjs-chat.png') });

  // Only own messages have the button, and the database says the same.
  assert.equal(await message(b.page, 'Does it arrive?').getByRole('button').count(), 0);
  const bob = client();
  const signedIn = await bob.auth.signInWithPassword({ email: b.email, password: 'a-password-of-the-test' });
  assert.equal(signedIn.error, null);
  for (const change of [bob.from('messages').update({ body: 'mine now' }), bob.from('messages').delete()]) {
    const { data, error } = await change.eq('body', 'Does it arrive?').select('id');
    assert.equal(error, null);
    assert.deepEqual(data, [], 'row level security lets nobody change what others wrote');
  }
  const forged = await bob.from('messages').insert({ body: 'not me', author: a.email });
  assert.equal(forged.error?.code, '42501');

  await b.page.reload();
  await b.page.locator('.state[data-state=SUBSCRIBED]').waitFor();
  await message(b.page, 'Does it arrive?').waitFor();
  await a.page.getByRole('button', { name: 'Delete Does it arrive?' }).click();
  await message(b.page, 'Does it arrive?').waitFor({ state: 'detached' });

  await a.page.getByRole('button', { name: 'Sign out' }).click();
  await a.page.waitForURL('**/login');
  await b.page.getByText('live, 1 here').waitFor();
  assert.deepEqual([...a.bad, ...b.bad], []);
  await a.context.close();
  await b.context.close();
});

test('the policy is the builder\'s, with a nonce of its own for each page', async () => {
  const policies = await Promise.all([1, 2].map(async () => (await fetch(`${app}/login`)).headers.get('content-security-policy')));
  assert.ok(policies[0].includes(process.env.CONNECT_SRC), `${policies[0]}\nlacks ${process.env.CONNECT_SRC}`);
  const nonces = policies.map((p) => /'nonce-([^']+)'/.exec(p)[1]);
  assert.notEqual(nonces[0], nonces[1]);
  assert.ok(!/unsafe-eval/.test(policies[0]));
});
