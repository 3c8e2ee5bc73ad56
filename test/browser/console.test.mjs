// The console: every page, in light and dark, what its buttons do, and the inspector.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { client, end, env } from '../node/lib.mjs';
import { launch, watch } from './lib.mjs';

const url = process.env.STUDIO_URL;
let browser;
before(async () => { browser = await launch(); });
after(async () => {
  await browser.close();
  await end();
});

async function open(path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1240, height: 820 }, ...options });
  await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: url });
  const page = await context.newPage();
  page.setDefaultTimeout(12_000);
  const bad = watch(page, [new URL(url).host, new URL(env.url).host]);
  await page.goto(url + path);
  return { context, page, bad };
}

const shot = (page, name) => page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
const paths = ['/', '/connections', '/tables', '/refusals', '/changes', '/inspector', '/why', '/mails'];

// What can be judged without a library: a name for everything that can be used, one
// main heading, and text that stands out from what is behind it (WCAG 1.4.3).
function audit() {
  const problems = [];
  const luminance = ([r, g, b]) => {
    const f = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const rgb = (s) => s.match(/[\d.]+/g).map(Number);
  for (const el of document.querySelectorAll('input:not([type=hidden]), select, textarea')) if (!el.labels?.length) problems.push(`no label: ${el.outerHTML}`);
  for (const el of document.querySelectorAll('button, a')) if (!(el.textContent.trim() || el.getAttribute('aria-label'))) problems.push(`no name: ${el.outerHTML}`);
  if (document.querySelectorAll('h1').length !== 1) problems.push('not one h1');
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const el = node.parentElement;
    if (!node.textContent.trim() || !el.checkVisibility() || el.closest(':disabled, .unseen, .skip, script')) continue;
    let behind = el;
    while (behind && /, 0\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const [a, b] = [luminance(rgb(getComputedStyle(el).color)), luminance(rgb(getComputedStyle(behind ?? document.body).backgroundColor))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) problems.push(`contrast ${ratio.toFixed(2)}: ${el.outerHTML.slice(0, 120)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) problems.push('the page scrolls sideways');
  return problems;
}

test('every page, in light and dark, wide and narrow', { timeout: 120_000 }, async () => {
  const supabase = client();
  await supabase.auth.signInWithOtp({ email: `mail-${randomUUID()}@example.com` });
  await supabase.from('nothing_of_this_name').select();
  const channel = supabase.channel('seen-in-the-console').on('postgres_changes', { event: '*', schema: 'public', table: 'messages', filter: 'room_id=eq.1' }, () => {});
  await new Promise((resolve) => channel.subscribe(resolve));
  for (const options of [{ colorScheme: 'light' }, { colorScheme: 'dark' }, { colorScheme: 'light', viewport: { width: 390, height: 780 } }]) {
    const { context, page, bad } = await open('/', options);
    for (const path of paths) {
      await page.goto(url + path);
      assert.deepEqual(await page.evaluate(audit), [], `${path} ${JSON.stringify(options)}`);
      const html = await page.content();
      for (const secret of [env.secret, env.service, env.jwtSecret]) assert.ok(!html.includes(secret), `${path} holds a secret`);
      await shot(page, `console${path === '/' ? '-overview' : path.replace('/', '-')}-${options.colorScheme}${options.viewport ? '-narrow' : ''}`);
    }
    assert.deepEqual(bad, []);
    await context.close();
  }
  const { context, page } = await open('/connections');
  await page.getByText('seen-in-the-console').waitFor();
  await page.getByText('room_id=eq.1').waitFor();
  await page.goto(`${url}/mails`);
  await page.getByRole('link', { name: /sign|link|confirm/i }).first().waitFor();
  await context.close();
});

test('addresses and keys are copied, secrets when they are asked for', { timeout: 60_000 }, async () => {
  const { context, page } = await open('/');
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  await page.getByRole('button', { name: 'Copy API_URL' }).click();
  await page.getByRole('button', { name: 'Copied' }).or(page.getByText('Copied')).first().waitFor();
  assert.equal(await clipboard(), env.url);
  await page.getByRole('button', { name: 'Show SECRET_KEY' }).click();
  await page.getByText(env.secret).waitFor();
  await page.getByRole('button', { name: 'Copy JWT_SECRET' }).click();
  await page.waitForFunction((want) => navigator.clipboard.readText().then((t) => t === want), env.jwtSecret);
  await context.close();
});

test('the inspector joins, sends and sees; a refusal shows with its reason', { timeout: 60_000 }, async () => {
  const { context, page, bad } = await open('/inspector');
  await page.locator('select[name=as]').selectOption('user');
  await page.locator('#join input[name=user]').fill('alice@example.com');
  await page.locator('select[name=table]').selectOption('public.messages');
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#state', { hasText: 'SUBSCRIBED' }).waitFor();
  await page.getByRole('button', { name: 'Broadcast' }).click();
  await page.locator('#stream li', { hasText: 'broadcast' }).filter({ hasText: 'hello' }).waitFor();
  await page.getByRole('button', { name: 'Track presence' }).click();
  await page.locator('#stream li', { hasText: 'the console' }).waitFor();

  // A row that Alice may see.
  const alice = client();
  await alice.auth.signInWithPassword({ email: 'alice@example.com', password: 'sluice-chat' });
  const { data: rooms } = await alice.from('rooms').select('id').limit(1);
  const { error } = await alice.from('messages').insert({ room_id: rooms[0].id, body: 'seen by the inspector' });
  assert.equal(error, null);
  await page.locator('#stream li', { hasText: 'seen by the inspector' }).waitFor();
  await shot(page, 'console-inspector-joined');

  await page.getByLabel('Topic').fill('nobody-may');
  await page.getByLabel('private').check();
  await page.locator('select[name=as]').selectOption('anon');
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#stream li', { hasText: 'Unauthorized' }).first().waitFor();
  await page.locator('select[name=as]').selectOption('user');
  await page.locator('#join input[name=user]').fill('nobody@example.com');
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#stream li', { hasText: 'nobody@example.com' }).waitFor();
  assert.deepEqual(bad, []);
  await page.goto(`${url}/refusals`);
  await page.locator('tr', { hasText: 'Unauthorized' }).first().waitFor();
  await context.close();
});

test('a table that is not published is mended by its button, and why tells before and after', { timeout: 60_000 }, async () => {
  const { context, page, bad } = await open('/why');
  await page.getByLabel('Table').fill('unpublished');
  await page.getByRole('button', { name: 'Ask' }).click();
  await page.getByRole('heading', { name: 'It stops at: publication' }).waitFor();
  await page.goto(`${url}/tables`);
  await shot(page, 'console');
  const box = page.locator('section', { has: page.getByRole('heading', { name: /^public\.unpublished / }) });
  await box.getByText('alter publication supabase_realtime add table').waitFor();
  await box.getByRole('button', { name: 'Run it' }).click();
  await page.getByText('Done:').waitFor();
  await page.locator('section', { has: page.getByRole('heading', { name: /^public\.unpublished published/ }) }).waitFor();
  await page.goto(`${url}/why?table=unpublished`);
  assert.equal(await page.getByRole('heading', { name: 'It stops at: publication' }).count(), 0);
  assert.deepEqual(bad, []);
  await context.close();
});

test('nobody else presses its buttons', async () => {
  const post = (path, headers, body) => fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers }, body });
  for (const [path, body] of [['/mend', 'table=public.unpublished&sql=select+1'], ['/token', 'as=service_role'], ['/secret', 'name=SECRET_KEY']]) {
    for (const headers of [{ origin: 'https://evil.example' }, { 'sec-fetch-site': 'cross-site' }]) {
      const r = await post(path, headers, body);
      assert.equal(r.status, 403, `${path} ${JSON.stringify(headers)}`);
    }
  }
  // SQL that no table needs is not run.
  const r = await post('/mend', {}, 'table=public.messages&sql=drop+table+public.messages');
  assert.equal(r.status, 400);
});
