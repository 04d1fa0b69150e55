/** Ways to take the page along: a link, a picture, a film, a script, a file. */

import type { App } from '../app/app.ts';
import { scriptOf } from '../app/python.ts';
import { MOST_SHARED, toAddress } from '../app/state.ts';
import { sigmaAt } from '../math/time.ts';
import { t } from '../texts/i18n.ts';
import { openDialog } from './dialog.ts';
import { download, h } from './dom.ts';
import type { Palette } from './palette.ts';
import { sceneOf } from './panel.ts';
import { Painter } from './scene.ts';

const FRAMES = 48;

async function copy(text: string, field: HTMLInputElement | HTMLTextAreaElement): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    field.select(); // from a file some browsers know the old way only
    document.execCommand('copy');
  }
}

function copyButton(text: () => string, field: HTMLInputElement | HTMLTextAreaElement): HTMLElement {
  const button = h(
    'button',
    {
      type: 'button',
      class: 'primary',
      onclick: async () => {
        await copy(text(), field);
        button.textContent = t('copied');
      },
    },
    t('copy'),
  );
  return button;
}

/** The address with everything in it. */
export function linkOf(app: App): string {
  return `${location.href.replace(/#.*/, '')}#${toAddress(app.state, app.drawing.points)}`;
}

export function openLink(app: App): void {
  const field = h('input', {
    type: 'text',
    readonly: true,
    value: linkOf(app),
    'aria-label': t('share.link'),
    id: 'link',
  });
  const count = app.drawing.points?.labels.length ?? 0;
  const note =
    app.state.shape === '' && count > MOST_SHARED ? t('share.some', { n: MOST_SHARED, all: count }) : t('share.note');
  const warning = app.server?.token ? t('share.token') : '';
  openDialog(
    t('share.link'),
    'link-dialog',
    h('p', { class: 'note' }, note, ' ', warning),
    h(
      'div',
      { class: 'copy' },
      field,
      copyButton(() => field.value, field),
    ),
  );
}

export function openPython(app: App): void {
  const { learned } = app;
  const asking = app.panels.filter((panel) => app.denoiser(panel) === 'network');
  const known =
    app.data.labels.length &&
    app.data.dims === 2 &&
    app.panels.every((panel) => app.denoiser(panel) === 'exact' || (learned && asking.includes(panel))) &&
    (app.state.start > 0 || !app.recorded);
  if (!known) {
    openDialog(t('share.python'), 'python-dialog', h('p', { class: 'note' }, t('python.exact')));
    return;
  }
  const script = scriptOf(app.state, app.data, asking.length && learned ? { ...learned, panels: asking } : null);
  const field = h('textarea', { readonly: true, spellcheck: 'false', id: 'script', 'aria-label': t('share.python') });
  field.value = script;
  openDialog(
    t('share.python'),
    'python-dialog',
    h('p', { class: 'note' }, t(asking.length ? 'python.train' : 'python.note')),
    field,
    h(
      'div',
      { class: 'copy' },
      copyButton(() => script, field),
      h(
        'button',
        {
          type: 'button',
          class: 'plain',
          onclick: () => download('playground.py', new Blob([script], { type: 'text/x-python' })),
        },
        t('download'),
      ),
    ),
  );
}

/** The panels side by side on one canvas, at a time of the slider, with a line of what they are. */
class Sheet {
  readonly canvas = document.createElement('canvas');
  readonly #painters: Painter[];
  private readonly context: CanvasRenderingContext2D;

  constructor(
    private readonly app: App,
    private readonly palette: Palette,
    private readonly size: number,
  ) {
    const { panels } = app;
    this.#painters = panels.map(() => {
      const painter = new Painter(document.createElement('canvas'), document.createElement('canvas'), palette);
      painter.resize(size);
      return painter;
    });
    this.canvas.width = size * panels.length;
    this.canvas.height = size + this.#caption;
    this.context = this.canvas.getContext('2d', { willReadFrequently: true })!;
  }

  get #caption(): number {
    return Math.round(this.size / 14);
  }

  draw(t: number): void {
    const { app, context, palette, size } = this;
    context.fillStyle = palette.paper;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    app.panels.forEach((panel, i) => {
      const sigma = sigmaAt(t, app.sigmaMax);
      this.#painters[i].draw({ ...sceneOf(app, panel), sigma });
      for (const canvas of [this.#painters[i].base, this.#painters[i].top]) context.drawImage(canvas, i * size, 0);
      context.fillStyle = palette.ink;
      context.font = `${Math.round(this.#caption * 0.46)}px system-ui, sans-serif`;
      const name = app.denoiser(panel) === 'recorded' ? (app.run?.recorded?.name ?? '') : app.state[`${panel}.solver`];
      const nfe = app.figures[panel].nfe;
      context.fillText(
        `${name}${nfe ? ` · NFE ${nfe}` : ''} · σ ${sigma.toPrecision(2)}`,
        i * size + size / 40,
        size + this.#caption * 0.68,
      );
    });
  }
}

export function savePng(app: App, palette: Palette): Promise<void> {
  const sheet = new Sheet(app, palette, 1000);
  sheet.draw(app.state.t);
  return new Promise((resolve) => {
    sheet.canvas.toBlob((blob) => {
      if (blob) download('playground.png', blob);
      resolve();
    }, 'image/png');
  });
}

/** A film of the walk. Layers that depend on the noise level are waited for. */
export async function saveGif(app: App, palette: Palette, say: (text: string) => void): Promise<void> {
  const sheet = new Sheet(app, palette, 380);
  const frames: Uint8ClampedArray[] = [];
  const before = app.state.t;
  for (let k = 0; k < FRAMES; k++) {
    const now = k / (FRAMES - 1);
    app.store.set({ t: now });
    const asked = (['field', 'contours'] as const).filter((what) => app.state[what]);
    for (const panel of app.panels) for (const what of asked) await app.layers.exactly(panel, what);
    sheet.draw(now);
    const { width, height } = sheet.canvas;
    frames.push(sheet.canvas.getContext('2d')!.getImageData(0, 0, width, height).data);
    say(t('gif.frame', { k: k + 1, n: FRAMES }));
    await new Promise((resolve) => setTimeout(resolve));
  }
  app.store.set({ t: before });
  const bytes = await app.source.gif(frames, sheet.canvas.width, sheet.canvas.height, 7);
  download('playground.gif', new Blob([bytes as BlobPart], { type: 'image/gif' }));
  say('');
}
