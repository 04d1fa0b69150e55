/** The start: this one script is the page, and, where there is no document, the worker of the page. */

import './views/style.css';
import { App } from './app/app.ts';
import { adoptSettings, defaults, fromAddress, PROPERTIES, type State, Store, toAddress } from './app/state.ts';
import { WorkerSource } from './compute/source.ts';
import { serve } from './compute/worker.ts';
import { opened } from './files/packed.ts';
import type { RunFile } from './files/run.ts';
import { complete, type Registry } from './math/registry.ts';
import type { ServerBlock } from './server/protocol.ts';
import type { Texts } from './texts/en.ts';
import { addTexts } from './texts/i18n.ts';
import { Page } from './views/page.ts';
import { openUpload } from './views/upload.ts';

async function boot(): Promise<void> {
  const html = `<!doctype html>\n${document.documentElement.outerHTML}`; // before anything is changed
  const script = document.currentScript!.textContent!;
  const block = (id: string) => document.getElementById(id)!.textContent!;
  const [raw, texts, style] = await Promise.all([
    opened<Registry>(block('registry')),
    opened<Record<string, Texts>>(block('texts')),
    opened<string>(block('style')),
  ]);
  addTexts(texts);
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(style);
  document.adoptedStyleSheets = [sheet];
  const registry = complete(raw);
  const run = JSON.parse(block('run')) as { run: RunFile | null; state: string | null } | null;
  const server = JSON.parse(block('server')) as ServerBlock | null;
  adoptSettings(registry.training ?? {}, server?.limits);
  const given = location.hash.length > 1 ? location.hash : (run?.state ?? '');
  const { state, own } = fromAddress(given);
  const quiet = matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (run?.run && !given && run.state === null) Object.assign(state, opening(run.run));
  if (quiet && !given) state.t = 1;
  const store = new Store(state);
  const source = new WorkerSource(script, registry, run?.run ?? null);
  const app = new App(store, registry, run?.run ?? null, source, own, server);
  const asFile = (address: string) => {
    const run = JSON.stringify({ run: app.run, state: address }).replaceAll('<', '\\u003c');
    const filled = Object.entries({ run, server: 'null' }).reduce(
      (text, [id, value]) =>
        text.replace(new RegExp(`(<script type="application/json" id="${id}">)[^<]*`), (_all, head) => head + value),
      html,
    );
    // A file asks nobody, wherever it came from.
    return filled.replace(/(http-equiv="Content-Security-Policy" content="[^"]*connect-src )'self'/, "$1'none'");
  };
  const page = new Page(app, document.getElementById('app')!, asFile);
  app.jobs.schedule();
  if (!quiet && !given) page.timeline.play();
  keepAddress(app);
  if (server?.table) openUpload(app, server.table);
  window.addEventListener('hashchange', () => {
    const next = fromAddress(location.hash);
    app.drawing.points = next.own ?? app.drawing.points;
    if (!app.knows(next.state.shape)) next.state.shape = PROPERTIES.shape.value;
    store.set({ ...defaults(), ...next.state });
  });
  Object.assign(window, { playground: { app, page } }); // for the tests, and for the curious
}

/** An exported run opens with what was recorded, beside the exact optimum where the rows are inside. */
function opening(run: RunFile): Partial<State> {
  return {
    shape: 'run',
    start: run.recorded ? 0 : 1,
    smax: within('smax', run.sigma_max),
    smin: run.network ? within('smin', run.sigma_min) : PROPERTIES.smin.value, // a network knows no lower noise
    compare: Boolean(run.data),
    contours: Boolean(run.data),
    'a.denoiser': run.recorded ? 'recorded' : 'network',
    'b.denoiser': 'exact',
    'b.solver': 'heun',
    'b.steps': 30,
  };
}

function within(name: 'smax' | 'smin', value: number): number {
  return Math.min(Math.max(value, PROPERTIES[name].low), PROPERTIES[name].high);
}

/** Write the state to the address when it has come to rest; time while playing is left out. */
function keepAddress(app: App): void {
  let timer = 0;
  const write = () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const text = toAddress(app.state, app.drawing.points);
      if (text !== location.hash.slice(1))
        history.replaceState(null, '', text ? `#${text}` : location.pathname + location.search);
    }, 400);
  };
  app.store.subscribe(write);
}

if (typeof document === 'undefined') serve(globalThis as unknown as Parameters<typeof serve>[0]);
else
  boot().catch((error) => {
    // Without workers, or with a run that is damaged, there is nothing to show but why.
    document.getElementById('app')!.textContent = `This page cannot start here: ${String(error)}`;
  });
