// examples/nextjs-chat and the console in Firefox, driven by WebDriver BiDi.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { client, end, env } from '../node/lib.mjs';

let browser;
before(async () => {
  browser = await puppeteer.launch({ browser: 'firefox', executablePath: process.env.SLUICE_FIREFOX, headless: true });
});
after(async () => {
  await browser.close();
  await end();
});

async function open(url) {
  const page = await browser.newPage();
  const bad = [];
  page.on('pageerror', (e) => bad.push(`${e}`));
  page.on('console', (m) => { if (/Content-Security-Policy/.test(m.text())) bad.push(m.text()); });
  await page.goto(url);
  return { page, bad };
}

// Puppeteer's own waiting needs frames to be drawn, which a headless Firefox does not
// always do: it is asked again and again instead.
async function until(page, fn) {
  for (const limit = Date.now() + 20_000; !(await page.evaluate(fn)); await new Promise((r) => setTimeout(r, 100))) {
    if (Date.now() > limit) throw new Error(`not within 20 s: ${fn}\n${await page.evaluate(() => document.body.innerText)}`);
  }
}
const press = (page, selector) => page.$eval(selector, (el) => el.click());

test('Next.js chat: signs up, sends, and sees what another client writes', { timeout: 90_000 }, async () => {
  const { page, bad } = await open(`${env.chat}/login`);
  await page.type('input[name=email]', `fox-${randomUUID().slice(0, 8)}@example.com`);
  await page.type('input[name=password]', 'a-password-of-the-test');
  await press(page, 'button[value=up]');
  await until(page, () => document.querySelector('.state[data-state=SUBSCRIBED]') !== null);
  await page.type('input[name=body]', 'from Firefox');
  await press(page, '.write button');
  await until(page, () => document.querySelector('.messages')?.textContent.includes('from Firefox'));

  const other = client();
  const { error } = await other.auth.signUp({ email: `node-${randomUUID().slice(0, 8)}@example.com`, password: 'a-password-of-the-test' });
  assert.equal(error, null);
  const insert = await other.from('messages').insert({ body: 'from another client' });
  assert.equal(insert.error, null);
  await until(page, () => document.querySelector('.messages')?.textContent.includes('from another client'));
  assert.deepEqual(bad, []);
  await page.close();
});

test('console: every page, and a channel joined in the inspector', { timeout: 90_000 }, async () => {
  const { page, bad } = await open(process.env.STUDIO_URL);
  for (const path of ['/connections', '/tables', '/refusals', '/changes', '/why', '/mails', '/inspector']) {
    await page.goto(process.env.STUDIO_URL + path);
    assert.equal(await page.$$eval('h1', (list) => list.length), 1, path);
  }
  await press(page, '#connect');
  await until(page, () => document.getElementById('state').textContent === 'SUBSCRIBED');
  await press(page, '#broadcast');
  await until(page, () => document.getElementById('stream').textContent.includes('hello'));
  assert.deepEqual(bad, []);
  await page.close();
});
