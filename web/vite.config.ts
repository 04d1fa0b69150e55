import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';
import { en } from './src/texts/en.ts';
import { zh } from './src/texts/zh.ts';

const here = dirname(fileURLToPath(import.meta.url));
const page = resolve(here, process.env.PAGE ?? '../src/pointdiffusion/web/playground.html');

const hash = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Deflate what is long and read by the script alone; `src/files/packed.ts` opens it. */
function packed(value: unknown): string {
  const text = JSON.stringify(value);
  // How much zlib remembers decides where its blocks end; which is best is different from text to text.
  const tries = [5, 6, 7, 8, 9].map((memLevel) => deflateSync(text, { level: 9, memLevel }));
  return tries.reduce((best, other) => (other.length < best.length ? other : best)).toString('base64');
}

/** Put script, style and registry into one file that runs from disk and asks nobody for anything. */
function onePage(): Plugin {
  return {
    name: 'one-page',
    enforce: 'post',
    generateBundle(_options, bundle) {
      let script = '';
      let style = '';
      for (const file of Object.values(bundle)) {
        if (file.type === 'chunk') script += file.code.trim();
        else if (file.fileName.endsWith('.css')) style += String(file.source).trim();
      }
      script = script.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--');
      const policy = [
        "default-src 'none'",
        `script-src ${hash(script)}`,
        'worker-src blob:',
        'img-src data: blob:',
        "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
      ].join('; ');
      const parts: Record<string, string> = {
        POLICY: policy,
        SCRIPT: script,
        REGISTRY: packed(JSON.parse(readFileSync(resolve(here, 'registry.json'), 'utf8'))),
        STYLE: packed(style),
        TEXTS: packed({ en, zh }),
      };
      const html = readFileSync(resolve(here, 'index.html'), 'utf8').replace(
        /\{\{(\w+)\}\}/g,
        (_all, name: string) => parts[name],
      );
      mkdirSync(dirname(page), { recursive: true });
      writeFileSync(page, html);
      for (const name of Object.keys(bundle)) delete bundle[name];
    },
  };
}

export default defineConfig({
  root: here,
  logLevel: 'warn',
  plugins: [onePage()],
  build: {
    target: 'es2022',
    write: true,
    outDir: 'build/page',
    emptyOutDir: true,
    modulePreload: false,
    cssCodeSplit: false,
    rollupOptions: {
      input: resolve(here, 'src/main.ts'),
      output: { format: 'iife', entryFileNames: 'page.js', assetFileNames: '[name][extname]' },
    },
  },
});
