// Chromium, and a small web server for the pages that the suite makes.

import { readFile, mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, '..', '..');

/** A browser with an empty profile that talks to nobody but the page. */
export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), 'sluice-chromium-'));
  const browser = await chromium.launch({
    executablePath: process.env.SLUICE_CHROMIUM || '/usr/bin/chromium',
    headless: true,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--disk-cache-dir=${profile}`],
  });
  const close = browser.close.bind(browser);
  browser.close = async () => {
    await close();
    await rm(profile, { recursive: true, force: true });
  };
  return browser;
}

/** Notes everything that a page must not do: foreign requests, errors, policy violations. */
export function watch(page, allowed) {
  const bad = [];
  page.on('request', (r) => {
    const u = new URL(r.url());
    if (!['data:', 'blob:'].includes(u.protocol) && !allowed.includes(u.host)) bad.push(`request to ${u.origin}`);
  });
  page.on('websocket', (ws) => {
    if (!allowed.includes(new URL(ws.url()).host)) bad.push(`socket to ${new URL(ws.url()).origin}`);
  });
  page.on('pageerror', (e) => bad.push(`error: ${e.stack ?? e}`));
  page.on('console', (m) => {
    if (/Content.Security.Policy/i.test(m.text())) bad.push(`console: ${m.text()}`);
  });
  return bad;
}

/** Serves { '/path': body or file:… } on a free port of host. */
export async function serve(files, { host = '127.0.0.1', headers = {} } = {}) {
  const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '': 'text/html; charset=utf-8' };
  const server = http.createServer(async (req, res) => {
    const path = new URL(req.url, 'http://x').pathname;
    const body = files[path];
    if (body === undefined) {
      res.writeHead(404).end();
      return;
    }
    res.writeHead(200, { 'content-type': types[extname(path)] ?? types[''], ...headers });
    res.end(body.startsWith('file:') ? await readFile(join(root, body.slice(5))) : body);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://${host}:${server.address().port}`, close: () => server.close() };
}
