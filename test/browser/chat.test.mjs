// The chat page of `sluice start --chat`, in two browser contexts.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { end, env, PASSWORD } from '../node/lib.mjs';
import { launch, watch } from './lib.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => {
  await browser.close();
  await end();
});

const shots = process.env.SCREENSHOTS;
const shot = (page, name) => (shots ? page.screenshot({ path: join(shots, `${name}.png`) }) : undefined);

async function open(options = {}, query = '') {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(12_000);
  const bad = watch(page, [new URL(env.chat).host, new URL(env.url).host]);
  await page.goto(env.chat + query);
  return { context, page, bad };
}

const enter = async (page, name) => {
  await page.getByRole('button', { name, exact: true }).click();
  await page.locator('#connection[data-state="live"]').waitFor();
};
const write = async (page, text) => {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
};
const message = (page, text) => page.locator('.message', { hasText: text });

test('two users: messages, edit, delete, typing, presence, sign out', { timeout: 120_000 }, async () => {
  const a = await open({ viewport: { width: 1180, height: 760 } });
  const b = await open({ viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: 'dark' });
  await shot(a.page, 'signin');
  await enter(a.page, 'Alice');
  await enter(b.page, 'Bob');

  const text = `hello ${randomUUID().slice(0, 8)}`;
  await write(a.page, text);
  await message(b.page, text).waitFor();
  await a.page.locator('.message.mine:not(.pending)', { hasText: text }).waitFor();
  assert.equal(await message(a.page, text).count(), 1, 'the draft and its row are one message');

  await a.page.locator('#people li', { hasText: 'Bob' }).waitFor();
  await a.page.locator('#people li', { hasText: 'Alice (you)' }).waitFor();
  await b.page.getByText('2 here').waitFor();

  const answer = `answer ${randomUUID().slice(0, 8)}`;
  await b.page.getByLabel('Message', { exact: true }).pressSequentially(answer);
  await a.page.getByText('Bob is typing…').waitFor();
  await shot(a.page, 'desktop');
  await b.page.getByRole('button', { name: 'Send' }).click();
  await message(a.page, answer).waitFor();
  await a.page.waitForFunction(() => document.getElementById('typing').textContent === '');
  await shot(b.page, 'phone');

  await message(a.page, text).hover();
  await message(a.page, text).getByRole('button', { name: /^Edit/ }).click();
  await a.page.getByLabel('Edit message').fill(`${text}, changed`);
  await a.page.getByRole('button', { name: 'Save' }).click();
  await message(b.page, `${text}, changed`).getByText('edited').waitFor();
  assert.equal(await message(b.page, answer).getByRole('button', { name: /^Edit/ }).count(), 1);
  assert.equal(await message(b.page, text).getByRole('button').count(), 0, 'only own messages can be changed');

  await message(a.page, text).hover();
  await message(a.page, text).getByRole('button', { name: /^Delete/ }).click();
  await message(a.page, text).getByRole('button', { name: 'Really delete?' }).click();
  await message(b.page, text).waitFor({ state: 'detached' });

  await a.page.reload();
  await a.page.locator('#connection[data-state="live"]').waitFor();
  await message(a.page, answer).waitFor();

  await b.page.locator('#menu').click();
  await b.page.getByRole('button', { name: 'Sign out' }).click();
  await b.page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await a.page.locator('#people li', { hasText: 'Bob' }).waitFor({ state: 'detached' });

  for (const { bad, context } of [a, b]) {
    assert.deepEqual(bad, []);
    await context.close();
  }
});

test('sign up, a second session in the same browser, another room', { timeout: 60_000 }, async () => {
  const { context, page, bad } = await open();
  await page.getByRole('button', { name: /Create an account/ }).click();
  const name = `Guest ${randomUUID().slice(0, 4)}`;
  await page.getByLabel('Your name').fill(name);
  await page.getByLabel('E-mail').fill(`${randomUUID()}@example.com`);
  await page.getByLabel('Password').fill(PASSWORD);
  await page.locator('#signin-submit').click();
  await page.locator('#connection[data-state="live"]').waitFor();
  await page.locator('#people li', { hasText: `${name} (you)` }).waitFor();

  const second = await context.newPage();
  await second.goto(`${env.chat}${env.chat.endsWith('/') ? '' : '/'}?session=2`);
  await enter(second, 'Bob');
  for (const p of [page, second]) await p.getByRole('link', { name: 'Kitchen' }).click();
  await page.getByRole('heading', { name: 'Kitchen' }).waitFor();
  await second.locator('#connection[data-state="live"]').waitFor();
  const text = `soup ${randomUUID().slice(0, 8)}`;
  await write(second, text);
  await message(page, text).waitFor();
  assert.equal(await message(page, text).locator('.author').textContent(), 'Bob');
  await page.getByRole('link', { name: 'Lobby' }).click();
  await message(page, text).waitFor({ state: 'detached' });
  assert.deepEqual(bad, []);
  await context.close();
});

test('a wrong password and a failed insert are said on the page', { timeout: 60_000 }, async () => {
  const { context, page } = await open();
  await page.getByLabel('E-mail').fill('alice@example.com');
  await page.getByLabel('Password').fill('not the password');
  await page.locator('#signin-submit').click();
  await page.getByRole('alert').getByText('Invalid login credentials').waitFor();
  await enter(page, 'Alice');
  await page.route('**/rest/v1/messages*', (route) => (route.request().method() === 'POST'
    ? route.fulfill({ status: 503, contentType: 'application/json', body: '{"code":"PGRST001","message":"no database"}', headers: { 'access-control-allow-origin': '*' } })
    : route.continue()));
  await write(page, 'this fails');
  await page.getByText('not sent: no database').waitFor();
  await page.unroute('**/rest/v1/messages*');
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.locator('.message.mine:not(.failed):not(.pending)', { hasText: 'this fails' }).waitFor();
  await context.close();
});

test('a refusal is readable on the page', { timeout: 60_000 }, async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(env.chat);
  await enter(page, 'Alice');
  // The same page with a key of another project, the session kept.
  await page.route('**/config.json', async (route) => {
    const res = await route.fetch();
    route.fulfill({ json: { ...(await res.json()), publishableKey: 'sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_AAAAAAAA' } });
  });
  await page.reload();
  await page.locator('#notice', { hasText: 'could not be loaded' }).waitFor();
  await context.close();
});

test('the page works without the demo users’ buttons and by keyboard alone', { timeout: 60_000 }, async () => {
  const { context, page, bad } = await open();
  await page.getByLabel('E-mail').focus();
  await page.keyboard.type('bob@example.com');
  await page.keyboard.press('Tab');
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press('Enter');
  await page.locator('#connection[data-state="live"]').waitFor();
  const text = `keys ${randomUUID().slice(0, 8)}`;
  await page.keyboard.type(text); // the composer has the focus
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second line');
  await page.keyboard.press('Enter');
  await message(page, text).waitFor();
  assert.equal(await message(page, text).locator('.text').textContent(), `${text}\nsecond line`);
  assert.deepEqual(bad, []);
  await context.close();
});
