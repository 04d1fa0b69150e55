/** The whole page, made of its parts; made anew when the language changes. */

import type { App } from '../app/app.ts';
import { toAddress } from '../app/state.ts';
import { has, setLanguage, shown, t } from '../texts/i18n.ts';
import { section } from './controls.ts';
import { download, h, icon } from './dom.ts';
import { type Palette, readPalette } from './palette.ts';
import { PanelView } from './panel.ts';
import { workPrecision } from './plot.ts';
import { openLink, openPython, saveGif, savePng } from './share.ts';
import { rowsInside, rowsOf, sidebar } from './sidebar.ts';
import { Timeline } from './timeline.ts';
import { startTour } from './tour.ts';

export class Page {
  panels: PanelView[] = [];
  timeline!: Timeline;
  #palette!: Palette;
  #waiting = false;
  #language = '';
  /** Whether this file was saved with a network that a page had trained. */
  readonly #saved: boolean;

  constructor(
    private readonly app: App,
    private readonly root: HTMLElement,
    /** The file itself, with a state written into it. */
    private readonly asFile: (address: string) => string,
  ) {
    this.#saved = app.run !== null && app.file === null;
    this.#theme();
    this.#make();
    document.addEventListener('keydown', (event) => this.#key(event));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#theme());
    matchMedia('(prefers-reduced-motion: reduce)').addEventListener('change', (event) => {
      if (event.matches) this.timeline.stop();
    });
  }

  #make(): void {
    const { app } = this;
    const playing = this.timeline?.playing;
    this.timeline?.stop();
    app.silence();
    this.#language = app.state.lang;
    setLanguage(app.state.lang);
    document.title = app.run?.title ? `${app.run.title} · pointdiffusion` : t('title');
    this.timeline = new Timeline(app);
    this.panels = (['a', 'b'] as const).map((panel) => new PanelView(app, panel, this.#palette));
    const work = h(
      'div',
      { class: 'work' },
      this.#banner(),
      h('div', { class: 'panels' }, ...this.panels.map((panel) => panel.element)),
      this.timeline.element,
    );
    const insights = h('div', { class: 'insights' }, this.#figures(), workPrecision(app), this.#reading());
    this.root.replaceChildren(
      this.#header(),
      h('main', { class: 'stage' }, h('h1', { class: 'unseen' }, t('title')), work, insights),
      sidebar(app, () => this.timeline.stop()),
    );
    app.on('picture', () => this.request());
    app.on('state', () => this.#sync());
    this.#sync();
    if (playing) this.timeline.play();
    this.request();
  }

  #sync(): void {
    const { app } = this;
    if (app.state.lang !== this.#language) {
      this.#make();
      return;
    }
    this.root.classList.toggle('comparing', app.state.compare);
    this.panels[1].element.hidden = !app.state.compare;
    const theme = document.documentElement.dataset.theme;
    if (this.#wantedTheme() !== theme) this.#theme();
  }

  #wantedTheme(): string {
    return this.app.state.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  }

  #theme(): void {
    document.documentElement.dataset.theme = this.#wantedTheme();
    this.#palette = readPalette(document.documentElement);
    for (const panel of this.panels) panel.setPalette(this.#palette);
    this.app.tell('problem');
    this.request();
  }

  /** Draw once before the next frame, however much has changed. */
  request(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      for (const panel of this.panels) if (!panel.element.hidden) panel.draw();
    });
  }

  #header(): HTMLElement {
    const { app } = this;
    const language = h(
      'button',
      {
        type: 'button',
        class: 'plain',
        id: 'language',
        lang: t('language.code'),
        onclick: () => {
          app.store.set({ lang: document.documentElement.lang === 'en' ? 'zh' : 'en' });
          document.getElementById('language')?.focus();
        },
      },
      t('language.other'),
    );
    const theme = h(
      'button',
      {
        type: 'button',
        class: 'icon',
        id: 'theme',
        'aria-label': t('theme'),
        title: t('theme'),
        onclick: () => app.store.set({ theme: this.#wantedTheme() === 'dark' ? 'light' : 'dark' }),
      },
      icon('sun'),
    );
    const said = h('span', { class: 'note', role: 'status', id: 'said' });
    const say = (text: string) => {
      said.textContent = text;
    };
    const item = (id: string, text: string, act: () => void) =>
      h(
        'button',
        {
          type: 'button',
          id,
          onclick: () => {
            menu.open = false;
            act();
          },
        },
        text,
      );
    const menu = h(
      'details',
      { class: 'menu', id: 'share' },
      h('summary', { class: 'plain' }, t('share')),
      h(
        'div',
        { class: 'items' },
        item('share-link', t('share.link'), () => openLink(app)),
        item('share-png', t('share.png'), () => void savePng(app, this.#palette)),
        item('share-gif', t('share.gif'), () => void this.#film(say)),
        item('share-python', t('share.python'), () => openPython(app)),
        item('share-html', t('share.html'), () => this.#save()),
      ),
    );
    menu.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      menu.open = false;
      menu.querySelector('summary')!.focus();
    });
    document.addEventListener('pointerdown', (event) => {
      if (!menu.contains(event.target as Node)) menu.open = false;
    });
    return h(
      'header',
      { class: 'top' },
      h(
        'span',
        { class: 'brand' },
        h('span', { class: 'dots', 'aria-hidden': 'true' }),
        'pointdiffusion',
        h('em', {}, t('playground')),
      ),
      said,
      h(
        'nav',
        { 'aria-label': t('menu') },
        h(
          'button',
          { type: 'button', class: 'plain', id: 'tour-start', onclick: () => startTour(app, this.timeline) },
          t('tour'),
        ),
        menu,
        language,
        theme,
      ),
    );
  }

  async #film(say: (text: string) => void): Promise<void> {
    this.timeline.stop();
    await saveGif(this.app, this.#palette, say);
  }

  #save(): void {
    const { app } = this;
    const html = this.asFile(toAddress(app.state, app.drawing.points, Number.POSITIVE_INFINITY));
    download('playground.html', new Blob([html], { type: 'text/html' }));
  }

  /** What went wrong, or what this file is, in one line. */
  #banner(): HTMLElement {
    const { app } = this;
    const line = h('p', { class: 'banner', role: 'status' });
    const sync = () => {
      const empty = !app.denoisers().length ? t('empty') : '';
      const run = app.run && app.state.shape === 'run' ? `${app.run.title} — ${rowsInside(app.run)}` : '';
      const strange = app.strange && app.panels.some((panel) => app.denoiser(panel) === 'network');
      const trained = strange ? t('train.strange') : this.#saved ? `${t('train.saved')} — ${rowsOf(app)}` : '';
      line.textContent = app.jobs.problem ? t('problem', { text: app.jobs.problem }) : empty || run || trained;
      line.classList.toggle('wrong', Boolean(app.jobs.problem));
      line.hidden = !line.textContent;
    };
    for (const event of ['problem', 'data', 'state', 'walked'] as const) app.on(event, sync);
    sync();
    return line;
  }

  /** The figures that an exported run brought along. */
  #figures(): HTMLElement | null {
    const entries = Object.entries(this.app.run?.figures ?? {});
    if (!entries.length) return null;
    return h(
      'section',
      { class: 'card', id: 'run-figures', 'aria-labelledby': 'run-figures-title' },
      h('h2', { id: 'run-figures-title' }, t('section.run')),
      h(
        'dl',
        { class: 'facts' },
        ...entries.flatMap(([name, value]) => [
          h('dt', {}, name),
          h('dd', {}, typeof value === 'number' ? shown(value) : value),
        ]),
      ),
    );
  }

  /** One sentence for each figure under the panels. */
  #reading(): HTMLElement {
    const names = ['nfe', 'w2', 'error', 'copies'] as const;
    return section(
      t('section.figures'),
      'reading',
      h(
        'dl',
        { class: 'reading' },
        ...names.flatMap((name) => {
          const formula: string = `formula.${name}`;
          return [
            h('dt', {}, t(`figure.${name}`)),
            h('dd', {}, t(`help.${name}`), has(formula) ? h('span', { class: 'formula' }, t(formula)) : null),
          ];
        }),
      ),
    );
  }

  #key(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    if (target.closest('input, select, textarea, dialog, canvas, [role=radio], [role=dialog]')) return;
    if (event.key === ' ' && target.closest('button, summary, a')) return;
    this.timeline.key(event);
  }
}
