/** Training: a network learns these points on the server, and its samples are seen as they take shape. */

import type { App } from '../app/app.ts';
import type { SettingName } from '../app/state.ts';
import type { Phase } from '../server/training.ts';
import { type Key, shown, t } from '../texts/i18n.ts';
import { folded, section, select, slider } from './controls.ts';
import { download, h } from './dom.ts';
import { drawLosses, lossesInWords } from './losses.ts';
import { readPalette } from './palette.ts';

const COMMAND = 'pointdiffusion play';

function settings(app: App): HTMLElement {
  const made = { main: [] as HTMLElement[], more: [] as HTMLElement[] };
  for (const [key, { kind, main, choices }] of Object.entries(app.registry.training ?? {})) {
    const name: SettingName = `train.${key}`;
    const control =
      kind === 'choice'
        ? select(app, name, () => (choices ?? []).map((value) => ({ value, text: value })))
        : slider(app, name);
    made[main ? 'main' : 'more'].push(control);
  }
  const range = h('p', { class: 'note' });
  const sync = () => {
    range.textContent = t('train.range', { low: shown(app.state.smin), high: shown(app.state.smax) });
  };
  app.on('state', sync);
  sync();
  const more = folded(
    t('train.more'),
    h('div', { class: 'settings' }, ...made.more, slider(app, 'train.seed', { dice: true })),
  );
  const all = h('div', { class: 'fields' }, h('div', { class: 'settings' }, ...made.main), range, more);
  // What a training was started with holds until it ends; explanations may be read all the while.
  const hold = () => {
    for (const input of all.querySelectorAll<HTMLInputElement>('input, select, .dice'))
      input.disabled = app.trainer.active;
  };
  app.on('training', hold);
  hold();
  return all;
}

function timeLeft(seconds: number | null): string {
  if (seconds === null) return '';
  return seconds < 100
    ? t('train.left', { n: Math.ceil(seconds) })
    : t('train.left.minutes', { n: Math.round(seconds / 60) });
}

/** What one sees of a training: how far it is, and its losses. */
function progress(app: App): HTMLElement {
  const { trainer } = app;
  const bar = h('progress', { 'aria-label': t('section.training') });
  const count = h('span', { id: 'train-step' });
  const left = h('span', {});
  const canvas = h('canvas', { class: 'losses', role: 'img', id: 'losses' });
  const key = h('p', { class: 'note key' }, h('span', { class: 'line', 'aria-hidden': 'true' }), t('train.loss'));
  const element = h('div', { class: 'progress' }, bar, h('p', { class: 'counts' }, count, left), key, canvas);
  let palette = readPalette(document.documentElement);
  let waiting = false;
  const draw = () => {
    waiting = false;
    bar.max = Math.max(trainer.steps, 1);
    bar.value = trainer.step;
    count.textContent = t('train.progress', { step: trainer.step, steps: trainer.steps });
    left.textContent = timeLeft(trainer.secondsLeft);
    drawLosses(canvas, trainer, palette);
    canvas.setAttribute('aria-label', lossesInWords(trainer));
  };
  const sync = () => {
    element.hidden = !trainer.steps;
    if (waiting || element.hidden) return;
    waiting = true;
    requestAnimationFrame(draw);
  };
  new ResizeObserver(sync).observe(element);
  for (const event of ['training', 'step'] as const) app.on(event, sync);
  app.on('problem', () => {
    palette = readPalette(document.documentElement); // told when the theme changes
    sync();
  });
  sync();
  return element;
}

const MAIN: Partial<Record<Phase, Key>> = {
  idle: 'train.start',
  starting: 'train.starting',
  running: 'train.pause',
  paused: 'train.resume',
};

function buttons(app: App, stopTime: () => void): HTMLElement {
  const { trainer } = app;
  const act = () => {
    if (trainer.phase === 'running') trainer.ask('pause');
    else if (trainer.phase === 'paused') trainer.ask('resume');
    else {
      stopTime();
      app.train();
      document.getElementById('canvas-a')?.scrollIntoView({ block: 'nearest' });
    }
  };
  const button = (id: string, text: string, onclick: () => void, kind = 'plain outlined') =>
    h('button', { type: 'button', class: kind, id: `train-${id}`, onclick }, text);
  const main = button('main', '', act, 'primary');
  const once = button('once', t('train.step'), () => trainer.ask('step'));
  const stop = button('stop', t('train.stop'), () => trainer.ask('stop'));
  const sync = () => {
    const focused = document.activeElement;
    main.textContent = t(MAIN[trainer.phase] ?? 'train.again');
    main.disabled = trainer.phase === 'starting' || (!trainer.active && !app.data.labels.length);
    once.hidden = trainer.phase !== 'paused';
    stop.hidden = !trainer.active;
    if ((focused === once && once.hidden) || (focused === stop && stop.hidden)) main.focus();
  };
  app.on('training', sync);
  app.on('data', sync);
  sync();
  return h('div', { class: 'acts', role: 'group', 'aria-label': t('section.training') }, main, once, stop);
}

/** The state of things in one sentence, what went wrong, and the way to take the network along. */
function outcome(app: App): HTMLElement {
  const { trainer } = app;
  const said = h('p', { class: 'note', role: 'status', id: 'train-said' });
  const wrong = h('p', { class: 'error', role: 'alert', id: 'train-error' });
  const save = h(
    'button',
    { type: 'button', class: 'plain outlined', id: 'train-save', onclick: () => trainer.ask('save') },
    t('train.save'),
  );
  const sync = () => {
    const { phase } = trainer;
    const failed = phase === 'lost' || phase === 'died';
    const closed = app.run?.recipe && !app.run.network ? t('train.closed') : '';
    const state = failed || phase === 'starting' ? '' : t(`train.is.${phase}` as Key);
    const text = [state, closed, app.strange ? t('train.strange') : ''].filter(Boolean).join(' ');
    if (said.textContent !== text) said.textContent = text;
    const error = [trainer.message, failed ? t(`train.is.${phase}`) : ''].filter(Boolean).join(' ');
    if (wrong.textContent !== error) wrong.textContent = error;
    save.hidden = !trainer.any || phase === 'lost';
  };
  for (const event of ['training', 'data', 'state'] as const) app.on(event, sync);
  app.on('model', () => {
    if (app.model) download('model.pt', new Blob([app.model], { type: 'application/octet-stream' }));
    app.model = null;
  });
  sync();
  return h('div', { class: 'outcome' }, wrong, said, save);
}

export function trainingSection(app: App, stopTime: () => void): HTMLElement {
  if (!app.trainer.able)
    return section(
      t('section.training'),
      'training',
      h('p', { class: 'note' }, t('train.none')),
      h('code', { class: 'command' }, COMMAND),
    );
  return section(t('section.training'), 'training', buttons(app, stopTime), progress(app), outcome(app), settings(app));
}
