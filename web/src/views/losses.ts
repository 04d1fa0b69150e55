/** The loss of a training against its steps, beside that of the exact optimum. */

import type { Trainer } from '../server/training.ts';
import { shown, t } from '../texts/i18n.ts';
import type { Palette } from './palette.ts';

export interface Scale {
  low: number;
  high: number;
  ticks: number[];
  log: boolean;
}

const STEPS = [1, 2, 5];

/** Return the range that losses are drawn in, with its ticks: logarithmic where they are positive. */
export function scaleOf(values: number[]): Scale {
  const found = values.filter(Number.isFinite);
  if (!found.length) return { low: 0, high: 1, ticks: [], log: false };
  let [low, high] = [Math.min(...found), Math.max(...found)];
  const log = low > 0;
  // Below the lowest, which is the optimum's, there is room for its name.
  const [down, up] = [0.2, 0.05];
  if (log) {
    const ratio = Math.max(high / low, 1.2);
    [low, high] = [low / ratio ** down, high * ratio ** up];
  } else {
    const range = high - low || 1;
    [low, high] = [low - down * range, high + up * range];
  }
  const inside = (value: number) => value >= low && value <= high;
  if (log && high / low > 4) {
    const ticks: number[] = [];
    const wide = high / low > 100;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const step of wide ? [1] : STEPS) ticks.push(Number(`${step}e${power}`));
    return { low, high, ticks: ticks.filter(inside), log };
  }
  const raw = (high - low) / 4;
  const power = Math.floor(Math.log10(raw));
  const step = Number(`${[...STEPS, 10].find((size) => size * 10 ** power >= raw * 0.999)}e${power}`);
  const ticks: number[] = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(Number((k * step).toPrecision(6)));
  return { low, high, ticks, log };
}

const BOX = { left: 40, right: 8, top: 8, bottom: 18 };

/** What the picture says, for those who do not see it. */
export function lossesInWords({ losses, optimal }: Trainer): string {
  const last = losses.at(-1);
  if (!last) return t('train.curve.empty');
  const beside = optimal === null ? '' : t('train.optimal', { value: shown(optimal) });
  return `${t('train.curve', { loss: shown(last.loss), step: last.step })} ${beside}`.trim();
}

export function drawLosses(canvas: HTMLCanvasElement, trainer: Trainer, palette: Palette): void {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  const sharp = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(height * sharp);
  const context = canvas.getContext('2d')!;
  context.scale(sharp, sharp);
  const { losses, optimal, steps } = trainer;
  const { low, high, ticks, log } = scaleOf([
    ...losses.map(({ loss }) => loss),
    ...(optimal === null ? [] : [optimal]),
  ]);
  const [left, right, top, bottom] = [BOX.left, width - BOX.right, BOX.top, height - BOX.bottom];
  const place = log ? Math.log : (value: number) => value;
  const px = (step: number) => left + (step / Math.max(steps, 1)) * (right - left);
  const py = (loss: number) => bottom - ((place(loss) - place(low)) / (place(high) - place(low))) * (bottom - top);
  context.font = '11px system-ui, sans-serif';
  context.textBaseline = 'middle';
  context.lineWidth = 1;
  context.strokeStyle = palette.rule;
  context.fillStyle = palette.muted;
  context.textAlign = 'right';
  context.beginPath();
  for (const tick of ticks) {
    if (optimal !== null && tick < optimal) continue; // there stands its name
    const y = Math.round(py(tick)) + 0.5;
    context.moveTo(left, y);
    context.lineTo(right, y);
    context.fillText(String(tick), left - 6, y);
  }
  context.stroke();
  context.textBaseline = 'alphabetic';
  context.fillText(String(steps), right, height - 3);
  context.textAlign = 'left';
  context.fillText('0', left, height - 3);
  if (optimal !== null) {
    const y = py(optimal);
    context.strokeStyle = context.fillStyle = palette.data;
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(left, y);
    context.lineTo(right, y);
    context.stroke();
    context.setLineDash([]);
    context.textAlign = 'right';
    context.fillText(t('train.optimal', { value: shown(optimal) }), right, y + 13);
  }
  context.strokeStyle = palette.sample;
  context.lineWidth = 2;
  context.lineJoin = 'round';
  context.beginPath();
  for (const { step, loss } of losses) if (Number.isFinite(loss)) context.lineTo(px(step), py(loss));
  context.stroke();
  const last = losses.at(-1);
  if (!last) return;
  context.fillStyle = palette.sample;
  context.beginPath();
  context.arc(px(last.step), py(last.loss), 3, 0, 2 * Math.PI);
  context.fill();
}
