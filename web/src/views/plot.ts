/** Work and precision: every setting that was tried, its evaluations against its distance to the exact flow. */

import type { App } from '../app/app.ts';
import type { Trial } from '../app/jobs.ts';
import { problemKey } from '../app/problems.ts';
import { shown, t } from '../texts/i18n.ts';
import { help } from './controls.ts';
import { h } from './dom.ts';

const [WIDTH, HEIGHT] = [320, 220];
const BOX = { left: 44, right: 10, top: 10, bottom: 32 };
const SPACE = 'http://www.w3.org/2000/svg';

function svg(tag: string, attributes: Record<string, string | number>, text = ''): SVGElement {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text) element.textContent = text;
  return element;
}

/** Powers of ten, or of two, that enclose numbers. */
function decades(values: number[], base: number): [number, number] {
  const logs = values.map((value) => Math.log(value) / Math.log(base));
  const [low, high] = [Math.floor(Math.min(...logs) + 1e-9), Math.ceil(Math.max(...logs) - 1e-9)];
  return [low, high > low ? high : low + 1];
}

const MARKS: ((x: number, y: number) => string)[] = [
  (x, y) => `M${x - 4} ${y}a4 4 0 1 0 8 0a4 4 0 1 0-8 0`,
  (x, y) => `M${x - 3.6} ${y - 3.6}h7.2v7.2h-7.2z`,
  (x, y) => `M${x} ${y - 4.6}l4.6 8h-9.2z`,
  (x, y) => `M${x} ${y - 5}l5 5-5 5-5-5z`,
];

function draw(trials: Trial[], latest: Trial | undefined): SVGElement {
  const plot = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img' });
  const [left, right, top, bottom] = [BOX.left, WIDTH - BOX.right, BOX.top, HEIGHT - BOX.bottom];
  const [x0, x1] = trials.length
    ? decades(
        trials.map((trial) => trial.nfe),
        2,
      )
    : [1, 7];
  const [y0, y1] = trials.length
    ? decades(
        trials.map((trial) => trial.error),
        10,
      )
    : [-4, 0];
  const px = (nfe: number) => left + ((Math.log2(nfe) - x0) / (x1 - x0)) * (right - left);
  const py = (error: number) => bottom - ((Math.log10(error) - y0) / (y1 - y0)) * (bottom - top);
  for (let k = x0; k <= x1; k++) {
    plot.append(svg('line', { class: 'grid', x1: px(2 ** k), x2: px(2 ** k), y1: top, y2: bottom }));
    plot.append(svg('text', { x: px(2 ** k), y: bottom + 14, 'text-anchor': 'middle' }, String(2 ** k)));
  }
  for (let k = y0; k <= y1; k++) {
    plot.append(svg('line', { class: 'grid', x1: left, x2: right, y1: py(10 ** k), y2: py(10 ** k) }));
    plot.append(
      svg(
        'text',
        { x: left - 6, y: py(10 ** k) + 4, 'text-anchor': 'end' },
        k >= -2 && k <= 2 ? String(10 ** k) : shown(10 ** k).replace('1.0·', ''),
      ),
    );
  }
  plot.append(
    svg('text', { class: 'axis', x: (left + right) / 2, y: HEIGHT - 3, 'text-anchor': 'middle' }, t('plot.x')),
  );
  const names = [...new Set(trials.map((trial) => trial.name))];
  for (const [i, name] of names.entries()) {
    const own = trials.filter((trial) => trial.name === name).sort((a, b) => a.nfe - b.nfe);
    const group = svg('g', { class: `series series-${i % 8}` });
    group.append(svg('polyline', { points: own.map((trial) => `${px(trial.nfe)},${py(trial.error)}`).join(' ') }));
    for (const trial of own) {
      const mark = svg('path', {
        d: MARKS[i % MARKS.length](px(trial.nfe), py(trial.error)),
        class: trial === latest ? 'latest' : '',
      });
      mark.append(svg('title', {}, `${name}: ${trial.nfe} → ${shown(trial.error)}`));
      group.append(mark);
    }
    plot.append(group);
  }
  plot.setAttribute(
    'aria-label',
    trials.length
      ? trials.map((trial) => `${trial.name} ${trial.nfe}: ${shown(trial.error)}`).join('; ')
      : t('plot.empty'),
  );
  return plot;
}

export function workPrecision(app: App): HTMLElement {
  const holder = h('div', { class: 'plot' });
  const legend = h('ul', { class: 'legend' });
  const about = help('plot');
  const clear = h(
    'button',
    {
      type: 'button',
      class: 'plain',
      onclick: () => {
        app.jobs.trials = [];
        sync();
      },
    },
    t('clear'),
  );
  let written = '';
  const sync = () => {
    const trials = app.jobs.trials.filter(
      (trial) => trial.problem === problemKey(app, 'a') || trial.problem === problemKey(app, 'b'),
    );
    const key = JSON.stringify(trials);
    if (key === written) return;
    written = key;
    holder.replaceChildren(draw(trials, trials.at(-1)));
    const names = [...new Set(trials.map((trial) => trial.name))];
    legend.replaceChildren(...names.map((name, i) => h('li', { class: `series-${i % 8}` }, name)));
    clear.hidden = !trials.length;
  };
  app.on('figures', sync);
  app.on('state', sync);
  sync();
  return h(
    'section',
    { class: 'card', id: 'plot', 'aria-labelledby': 'plot-title' },
    h('h2', { id: 'plot-title' }, t('section.plot'), about?.button ?? null, clear),
    about?.text ?? null,
    h('p', { class: 'note' }, t('plot.y')),
    holder,
    legend,
  );
}
