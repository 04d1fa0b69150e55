/** The controls: data, drawing, sampling, conditions, layers. */

import type { App, Tool } from '../app/app.ts';
import type { RunFile } from '../files/run.ts';
import { drawShape } from '../math/shapes.ts';
import { type Key, shown, t } from '../texts/i18n.ts';
import { folded, help, type Option, section, select, slider, toggles } from './controls.ts';
import { h, icon } from './dom.ts';
import { readPalette } from './palette.ts';
import { trainingSection } from './training.ts';
import { openUpload } from './upload.ts';

/** Small pictures of the shapes, one to choose. */
function shapes(app: App): HTMLElement {
  const names = Object.keys(app.shapes());
  const group = h('div', { class: 'shapes', role: 'radiogroup', 'aria-label': t('name.shape') });
  const buttons = names.map((name) => {
    const canvas = h('canvas', { width: 96, height: 96, 'aria-hidden': 'true' });
    const label = t(`shape.${name}` as Key);
    const button = h(
      'button',
      {
        type: 'button',
        role: 'radio',
        title: label,
        'aria-label': label,
        'data-shape': name,
        onclick: () => app.store.set({ shape: name, noise: -1, class: -1 }),
      },
      canvas,
    );
    return { name, canvas, button };
  });
  const paint = () => {
    const { data } = readPalette(document.documentElement);
    for (const { name, canvas } of buttons) {
      const spec = app.shapes()[name];
      const context = canvas.getContext('2d')!;
      context.clearRect(0, 0, 96, 96);
      context.fillStyle = data;
      const { values } = drawShape(spec, 240, Math.min(spec.noise, 0.1 * spec.scale), 1);
      for (let i = 0; i < values.length; i += 2)
        context.fillRect(48 + 19 * values[i] - 1, 48 - 19 * values[i + 1] - 1, 2.2, 2.2);
    }
  };
  const sync = () => {
    const current = names.includes(app.state.shape) ? app.state.shape : '';
    for (const { name, button } of buttons) {
      button.setAttribute('aria-checked', String(name === current));
      button.tabIndex = name === (current || names[0]) ? 0 : -1;
    }
  };
  group.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const at = buttons.findIndex(({ button }) => button === document.activeElement);
    const next = buttons[(Math.max(at, 0) + step + buttons.length) % buttons.length];
    app.store.set({ shape: next.name, noise: -1, class: -1 });
    next.button.focus();
  });
  group.append(...buttons.map(({ button }) => button));
  app.on('state', sync);
  app.on('problem', paint); // also told when the theme changes
  sync();
  paint();
  return group;
}

function drawing(app: App): HTMLElement {
  const tools: Tool[] = ['drag', 'spray', 'line', 'erase'];
  const buttons = tools.map((tool) =>
    h(
      'button',
      { class: 'chip', type: 'button', 'data-tool': tool, onclick: () => setTool(tool) },
      t(`tool.${tool}` as Key),
    ),
  );
  const palette = h('div', { class: 'brushes', role: 'group', 'aria-label': t('brush.class') });
  const size = h('input', {
    type: 'range',
    id: 'brush-size',
    min: 10,
    max: 100,
    value: 35,
    oninput: () => {
      app.drawing.brush.size = Number(size.value) / 100;
    },
  });
  const undo = h(
    'button',
    { type: 'button', class: 'icon', 'aria-label': t('undo'), title: t('undo'), onclick: () => app.drawing.undo() },
    icon('undo'),
  );
  const redo = h(
    'button',
    { type: 'button', class: 'icon', 'aria-label': t('redo'), title: t('redo'), onclick: () => app.drawing.redo() },
    icon('redo'),
  );
  const clear = h(
    'button',
    {
      type: 'button',
      class: 'plain',
      onclick: () => {
        app.drawing.clear();
        if (app.tool === 'drag') setTool('spray');
      },
    },
    t('clear'),
  );
  for (let i = 0; i < 6; i++)
    palette.append(
      h('button', {
        type: 'button',
        class: `brush brush-${i}`,
        'aria-label': t('brush.of', { n: i + 1 }),
        onclick: () => {
          app.drawing.brush.class = i;
          if (i) app.store.set({ classes: true });
          sync();
        },
      }),
    );
  const pens = h(
    'div',
    { class: 'pens' },
    palette,
    h('label', { class: 'brush-size', for: 'brush-size' }, t('brush.size'), size),
  );
  const sync = () => {
    tools.forEach((tool, i) => {
      buttons[i].setAttribute('aria-pressed', String(app.tool === tool));
    });
    [...palette.children].forEach((brush, i) => {
      brush.setAttribute('aria-pressed', String(app.drawing.brush.class === i));
    });
    pens.hidden = app.tool === 'drag';
    undo.disabled = !app.drawing.canUndo;
    redo.disabled = !app.drawing.canRedo;
  };
  const setTool = (tool: Tool) => {
    app.tool = tool;
    if (tool !== 'drag' && !app.state.data) app.store.set({ data: true });
    app.tell('picture');
    sync();
  };
  app.on('data', sync);
  app.on('state', sync);
  sync();
  const about = help('drawing');
  return h(
    'div',
    { class: 'row drawing' },
    h(
      'div',
      { class: 'row-head' },
      h('span', {}, t('name.drawing')),
      about?.button ?? null,
      h('span', { class: 'edit' }, undo, redo, clear),
    ),
    h('div', { class: 'chips', role: 'group', 'aria-label': t('name.drawing') }, ...buttons),
    pens,
    about?.text ?? null,
  );
}

function dataSection(app: App): HTMLElement {
  const note = h('p', { class: 'note' });
  const upload = h(
    'button',
    { type: 'button', class: 'plain', id: 'upload', onclick: () => openUpload(app) },
    icon('upload'),
    t('upload'),
  );
  const run = app.file
    ? h(
        'button',
        {
          type: 'button',
          class: 'plain',
          id: 'run-data',
          onclick: () => app.store.set({ shape: 'run', start: 0, class: -1 }),
        },
        t('run.data'),
      )
    : null;
  const sliders = h(
    'div',
    {},
    slider(app, 'n'),
    slider(app, 'noise', { format: (value) => value.toFixed(3), effective: () => app.noise() }),
    slider(app, 'seed', { dice: true }),
  );
  const sync = () => {
    const { shape } = app.state;
    const count = app.data.labels.length;
    const name =
      shape === ''
        ? t(app.drawing.full ? 'data.full' : 'data.own', { n: count })
        : shape === 'run'
          ? sentence(rowsInside(app.run!))
          : t('data.shape', { name: t(`shape.${shape}` as Key), n: count });
    note.textContent = name;
    sliders.hidden = shape === '' || shape === 'run';
  };
  app.on('state', sync);
  app.on('data', sync);
  sync();
  return section(t('section.data'), 'data', shapes(app), note, run, sliders, drawing(app), upload);
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[a-z]$/.test(text) ? '.' : '。'}`;

/** Say whether the rows that the model was trained on are inside this file, and how many. */
export function rowsInside(run: RunFile): string {
  const n = run.data?.shape[0] ?? 0;
  if (!n) return t('run.none');
  return run.rows && run.rows > n ? t('run.part', { n, all: run.rows }) : t('run.inside', { n });
}

/** The same of a network that was trained in a page, on the points that are shown. */
export function rowsOf(app: App): string {
  if (app.strange) return t('run.none');
  return app.state.shape === '' ? t('run.inside', { n: app.data.labels.length }) : t('run.drawn');
}

function conditions(app: App): HTMLElement {
  const classes = (): Option[] => {
    const names = app.file?.classes ?? [];
    const count = Math.max(app.classes, app.state.shape === 'run' ? names.length : 0);
    return [
      { value: '-1', text: t('class.none') },
      ...Array.from({ length: count }, (_, i) => ({
        value: String(i),
        text: app.state.shape === 'run' && names[i] ? names[i] : t('class.of', { n: i + 1 }),
      })),
    ];
  };
  const strength = slider(app, 'guidance', { format: (value) => value.toFixed(1) });
  const made = section(t('section.class'), 'conditions', select(app, 'class', classes), strength);
  const sync = () => {
    made.hidden = classes().length < 3;
    strength.hidden = app.state.class < 0;
  };
  app.on('data', sync);
  app.on('state', sync);
  sync();
  return made;
}

export function sidebar(app: App, stopTime: () => void): HTMLElement {
  const compare = h(
    'button',
    {
      class: 'switch',
      type: 'button',
      role: 'switch',
      id: 'c-compare',
      onclick: () => app.store.set({ compare: !app.state.compare }),
    },
    h('span', { class: 'knob', 'aria-hidden': 'true' }),
    t('name.compare'),
  );
  const sync = () => compare.setAttribute('aria-checked', String(app.state.compare));
  app.on('state', sync);
  sync();
  const [samples, smax] = [slider(app, 'samples'), slider(app, 'smax', { format: shown })];
  const recorded = () => {
    for (const control of [samples, smax]) control.hidden = app.state.start === 0 && app.recorded !== null;
  };
  app.on('state', recorded);
  recorded();
  const views = select(app, 'view', () =>
    ['scaled', 'true'].map((value) => ({ value, text: t(`view.${value}` as Key) })),
  );
  const metric = select(app, 'metric', () =>
    ['exact', 'sliced'].map((value) => ({ value, text: t(`metric.${value}` as Key) })),
  );
  const compareHelp = help('compare');
  const axes = (app.run?.columns.length ?? 2) > 2 ? select(app, 'axes', () => pairs(app)) : null;
  return h(
    'aside',
    { class: 'controls', 'aria-label': t('controls') },
    dataSection(app),
    app.server ? trainingSection(app, stopTime) : null,
    section(
      t('section.layers'),
      'layers',
      toggles(app, ['data', 'points', 'trails', 'contours', 'field', 'grid', 'classes', 'nearest', 'target'], 'layers'),
      views,
      axes,
    ),
    section(
      t('section.sampling'),
      'sampling',
      h(
        'div',
        { class: 'row' },
        h('div', { class: 'row-head' }, compare, compareHelp?.button ?? null),
        compareHelp?.text ?? null,
      ),
      samples,
      slider(app, 'start', { dice: true }),
      metric,
      folded(t('more'), smax, slider(app, 'smin', { format: (value) => value.toFixed(3) }), slider(app, 'rho')),
    ),
    conditions(app),
    app.server ? null : trainingSection(app, stopTime),
  );
}

function pairs(app: App): Option[] {
  const columns = app.run!.columns;
  return columns.flatMap((x, i) =>
    columns.flatMap((y, j) => (i < j ? [{ value: `${i},${j}`, text: `${x} × ${y}` }] : [])),
  );
}
