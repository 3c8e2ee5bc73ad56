// Builds ../web/supabase.js and ../web/third-party-licences.txt from the exact
// versions in package-lock.json and records both hashes in bundle.json, which
// TestBundle compares. Run by `make vendor`; the results are committed, so that
// building Sluice needs no npm.
import { createHash } from 'node:crypto';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
process.chdir(here);
const web = join(here, '..', 'web');

const result = await build({
  absWorkingDir: here,
  entryPoints: ['entry.mjs'],
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: 'esm',
  platform: 'browser',
  target: ['es2022'],
  charset: 'utf8',
  legalComments: 'none', // the licences stand in a file of their own
});

/** The package folders that the bundle took code from. */
const folders = new Set();
for (const input of Object.keys(result.metafile.inputs)) {
  const m = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (m) folders.add(m[1]);
}

const packages = {};
const licences = [];
for (const folder of [...folders].sort()) {
  const about = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  packages[about.name] = about.version;
  const files = (await readdir(folder)).filter((f) => /^(licen[cs]e|copying|notice)/i.test(f)).sort();
  if (files.length === 0) throw new Error(`${about.name} ${about.version} ships no licence file; add its text by hand`);
  const text = (await Promise.all(files.map((f) => readFile(join(folder, f), 'utf8')))).join('\n\n');
  licences.push(`${about.name} ${about.version}\nLicence: ${about.license}\n\n${text.trim()}\n`);
}

const banner = '/* ' + Object.entries(packages).map(([n, v]) => `${n} ${v}`).join(', ') + '; licences: third-party-licences.txt */\n';
const outputs = {
  'supabase.js': banner + result.outputFiles[0].text,
  'third-party-licences.txt': licences.join('\n' + '='.repeat(78) + '\n\n'),
};

const record = { packages, sha256: {} };
for (const [name, text] of Object.entries(outputs)) {
  await writeFile(join(web, name), text);
  record.sha256[name] = createHash('sha256').update(text).digest('hex');
  console.log(`${relative(join(here, '..'), join(web, name))}  ${text.length} bytes  ${record.sha256[name].slice(0, 16)}…`);
}
await writeFile(join(here, 'bundle.json'), JSON.stringify(record, null, 2) + '\n');
