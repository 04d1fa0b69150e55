/** A guided tour of six steps for someone who never saw diffusion. */

import type { App } from '../app/app.ts';
import type { State } from '../app/state.ts';
import { type Key, t } from '../texts/i18n.ts';
import { h, icon } from './dom.ts';
import type { Timeline } from './timeline.ts';

interface Stop {
  /** What is pointed at. */
  at: string;
  state: Partial<State>;
  play?: boolean;
}

const PLAIN: Partial<State> = { compare: false, field: false, trails: false, nearest: false, grid: false, probe: '' };

const STOPS: Stop[] = [
  { at: '#data', state: { ...PLAIN, t: 1, points: false, contours: false, data: true } },
  { at: '#timeline', state: { ...PLAIN, t: 0, points: true, contours: true } },
  { at: '#panel-a', state: { ...PLAIN, t: 0.55, points: true, contours: false, field: true } },
  { at: '#timeline', state: { ...PLAIN, t: 0, trails: true, contours: false, speed: 1 }, play: true },
  {
    at: '#c-compare',
    state: {
      ...PLAIN,
      compare: true,
      t: 1,
      'a.solver': 'auto',
      'a.steps': 8,
      'b.solver': 'euler',
      'b.steps': 8,
      contours: true,
    },
  },
  {
    at: '.drawing',
    state: { ...PLAIN, t: 1, n: 60, smin: 0.005, nearest: true, contours: false, 'a.solver': 'heun', 'a.steps': 30 },
  },
];

export function startTour(app: App, timeline: Timeline): void {
  document.getElementById('tour')?.remove();
  const before = { ...app.state };
  const back = document.activeElement as HTMLElement | null;
  const title = h('h2', { id: 'tour-title', tabindex: -1 });
  const text = h('p', {});
  const count = h('span', { class: 'note' });
  const previous = h('button', { type: 'button', class: 'plain', onclick: () => go(step - 1) }, t('tour.back'));
  const next = h('button', { type: 'button', class: 'primary', onclick: () => go(step + 1) });
  const card = h(
    'div',
    { class: 'tour card', id: 'tour', role: 'dialog', 'aria-labelledby': 'tour-title' },
    h(
      'div',
      { class: 'dialog-head' },
      title,
      h(
        'button',
        { type: 'button', class: 'icon', 'aria-label': t('close'), title: t('close'), onclick: () => end() },
        icon('close'),
      ),
    ),
    text,
    h('div', { class: 'tour-foot' }, count, previous, next),
  );
  let step = -1;
  const unmark = () => {
    for (const spot of document.querySelectorAll('.spot')) spot.classList.remove('spot');
  };
  const end = () => {
    unmark();
    card.remove();
    timeline.stop();
    app.store.set({ ...before, t: 1 });
    back?.focus();
  };
  const go = (wanted: number) => {
    if (wanted >= STOPS.length) {
      end();
      return;
    }
    step = Math.max(0, wanted);
    const { at, state, play } = STOPS[step];
    timeline.stop();
    app.store.set(app.state.shape === 'run' ? { ...state, 'a.solver': before['a.solver'] } : state);
    if (play && !matchMedia('(prefers-reduced-motion: reduce)').matches) timeline.play();
    else if (play) app.store.set({ t: 1 });
    title.textContent = t(`tour.${step}.title` as Key);
    text.textContent = t(`tour.${step}.text` as Key);
    count.textContent = `${step + 1} / ${STOPS.length}`;
    previous.disabled = step === 0;
    next.textContent = t(step === STOPS.length - 1 ? 'tour.done' : 'tour.next');
    unmark();
    const spot = document.querySelector(at);
    spot?.classList.add('spot');
    spot?.scrollIntoView({ block: spot.closest('.controls') ? 'center' : 'nearest' });
    title.focus({ preventScroll: true });
  };
  card.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') end();
    else if (event.key === 'ArrowRight') go(step + 1);
    else if (event.key === 'ArrowLeft') go(step - 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.body.append(card);
  go(0);
}
