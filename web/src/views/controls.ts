/** Controls made from the table of properties: label, sentence and formula on demand, the input itself. */

import type { App } from '../app/app.ts';
import { canShow } from '../app/problems.ts';
import { type ChoiceName, type FlagName, type Name, type NumberName, PROPERTIES } from '../app/state.ts';
import { has, type Key, t } from '../texts/i18n.ts';
import { h, icon } from './dom.ts';

const base = (name: string) => name.replace(/^[ab]\./, '');
let serial = 0;

/** The name of a control in the language of the person; that of Python where there is none. */
const nameOf = (name: string) => (has(`name.${name}`) ? t(`name.${name}` as Key) : name.replace('train.', ''));

/** The "?" of a control, and the sentence with its formula that it opens; `otherwise` where the texts have none. */
export function help(name: string, otherwise = ''): { button: HTMLElement; text: HTMLElement } | null {
  const [key, formula] = [`help.${name}`, `formula.${name}`];
  const sentence = has(key) ? t(key) : otherwise;
  if (!sentence) return null;
  const id = `help-${serial++}`;
  const text = h('div', { class: 'help', id, hidden: true }, h('p', {}, sentence));
  if (has(formula)) text.append(h('p', { class: 'formula' }, t(formula)));
  const label = nameOf(name);
  const button = h(
    'button',
    {
      class: 'what',
      type: 'button',
      'aria-expanded': 'false',
      'aria-controls': id,
      'aria-label': t('explain', { name: label }),
      title: t('explain', { name: label }),
      onclick: () => {
        text.hidden = !text.hidden;
        button.setAttribute('aria-expanded', String(!text.hidden));
      },
    },
    '?',
  );
  return { button, text };
}

function row(app: App, name: string, id: string, input: HTMLElement, value: HTMLElement | null): HTMLElement {
  const about = help(base(name), app.registry.training?.[name.replace('train.', '')]?.help);
  const head = h('div', { class: 'row-head' }, h('label', { for: id }, nameOf(base(name))));
  if (about) head.append(about.button);
  if (value) head.append(value);
  return h('div', { class: 'row', 'data-name': name }, head, input, about?.text ?? null);
}

export interface SliderOptions {
  format?: (value: number) => string;
  /** The value that is shown where the state leaves it open. */
  effective?: () => number;
  dice?: boolean;
}

export function slider(app: App, name: NumberName, options: SliderOptions = {}): HTMLElement {
  const { low, high, step, log } = PROPERTIES[name] as { low: number; high: number; step: number; log: boolean };
  const format = options.format ?? ((value: number) => String(value));
  const id = `c-${name}`;
  const lowest = Math.max(low, log ? step : low);
  const toPlace = (value: number) =>
    log ? Math.log(value / lowest) / Math.log(high / lowest) : (value - low) / (high - low);
  const toValue = (place: number) => {
    const raw = log ? lowest * (high / lowest) ** place : low + place * (high - low);
    const rounded = step ? (Math.round(raw / step) * step).toFixed(6) : raw.toPrecision(2);
    return Math.min(high, Math.max(low, Number(rounded)));
  };
  const ticks = log ? 400 : Math.max(1, Math.round((high - low) / step));
  const input = h('input', { type: 'range', id, min: 0, max: ticks, step: 1 });
  const output = h('output', { for: id });
  const sync = () => {
    const value = options.effective?.() ?? Number(app.state[name]);
    const place = Math.round(toPlace(value) * ticks);
    if (toValue(Number(input.value) / ticks) !== value) input.value = String(place);
    output.textContent = format(value);
    input.setAttribute('aria-valuetext', format(value));
    input.style.setProperty('--fill', `${toPlace(value) * 100}%`);
  };
  input.addEventListener('input', () => {
    let value = toValue(Number(input.value) / ticks);
    const before = options.effective?.() ?? Number(app.state[name]);
    // A step of the keyboard must always move on: a whole number, or the second digit.
    if (log && value === before && document.activeElement === input) {
      const direction = Math.sign(Number(input.value) - Math.round(toPlace(before) * ticks));
      const unit = step || 10 ** (Math.floor(Math.log10(before)) - 1);
      value = Math.min(high, Math.max(low, Number((before + direction * unit).toFixed(8))));
    }
    app.store.set({ [name]: value });
  });
  app.on('state', sync);
  app.on('data', sync);
  sync();
  const made = row(app, name, id, input, output);
  if (options.dice) {
    const label = t('another');
    made.querySelector('.row-head')!.append(
      h(
        'button',
        {
          class: 'dice',
          type: 'button',
          'aria-label': `${t(`name.${name}` as Key)}: ${label}`,
          title: label,
          onclick: () => app.store.set({ [name]: 1 + (Number(app.state[name]) % high) }),
        },
        icon('dice'),
      ),
    );
  }
  return made;
}

export interface Option {
  value: string;
  text: string;
  group?: string;
}

export function select(
  app: App,
  name: ChoiceName | 'class',
  options: () => Option[],
  shownValue?: () => string,
): HTMLElement {
  const id = `c-${name}`;
  const input = h('select', {
    id,
    onchange: () => app.store.set({ [name]: name === 'class' ? Number(input.value) : input.value }),
  });
  let written = '';
  const sync = () => {
    const all = options();
    const key = JSON.stringify(all);
    if (key !== written) {
      written = key;
      input.replaceChildren();
      const groups = new Map<string, HTMLElement>();
      for (const { value, text, group } of all) {
        const option = h('option', { value }, text);
        if (!group) input.append(option);
        else {
          if (!groups.has(group)) {
            const made = h('optgroup', { label: group });
            groups.set(group, made);
            input.append(made);
          }
          groups.get(group)!.append(option);
        }
      }
    }
    input.value = shownValue?.() ?? String(app.state[name]);
  };
  app.on('state', sync);
  app.on('data', sync);
  sync();
  return row(app, name, id, h('div', { class: 'select' }, input), null);
}

export function toggle(app: App, name: FlagName): HTMLElement {
  const mark = h('span', { class: `mark mark-${name}`, 'aria-hidden': 'true' });
  const button = h(
    'button',
    {
      class: 'chip',
      type: 'button',
      id: `c-${name}`,
      'data-name': name,
      onclick: () => app.store.set({ [name as 'data']: !app.state[name] }),
    },
    mark,
    t(`name.${name}` as Key),
  );
  const sync = () => {
    button.setAttribute('aria-pressed', String(app.state[name]));
    button.disabled = !canShow(app, name);
  };
  app.on('state', sync);
  app.on('data', sync);
  sync();
  return button;
}

/** Chips that share one place for their explanations, which open with the "?" at the end. */
export function toggles(app: App, names: FlagName[], about: string): HTMLElement {
  const explained = help(about);
  const list = h('dl', {});
  for (const name of names)
    list.append(
      h('dt', {}, t(`name.${name}` as Key)),
      h('dd', {}, t(`help.${name}` as Key)),
      ...(has(`formula.${name}`) ? [h('dd', { class: 'formula' }, t(`formula.${name}` as Key))] : []),
    );
  explained?.text.append(list);
  return h(
    'div',
    { class: 'row' },
    h(
      'div',
      { class: 'chips', role: 'group', 'aria-label': t(`name.${about}` as Key) },
      ...names.map((name) => toggle(app, name)),
      explained?.button ?? null,
    ),
    explained?.text ?? null,
  );
}

/** A folded part. */
export function folded(title: string, ...children: HTMLElement[]): HTMLElement {
  return h('details', { class: 'more' }, h('summary', {}, title), ...children);
}

export function section(title: string, id: string, ...children: (HTMLElement | null)[]): HTMLElement {
  return h(
    'section',
    { class: 'card', id, 'aria-labelledby': `${id}-title` },
    h('h2', { id: `${id}-title` }, title),
    ...children,
  );
}

export type { Name };
