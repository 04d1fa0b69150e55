/** Colours of the canvas, read from the style sheet, so that light and dark are told once. */

export interface Palette {
  paper: string;
  line: string;
  ink: string;
  muted: string;
  rule: string;
  data: string;
  sample: string;
  trail: string;
  field: string;
  contour: string;
  shade: [number, number, number];
  probe: string;
  classes: string[];
  /** How strongly points are drawn, 0 to 1. */
  strength: number;
}

export function readPalette(element: Element): Palette {
  const style = getComputedStyle(element);
  const get = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    paper: get('canvas'),
    line: get('canvas-line'),
    ink: get('ink'),
    muted: get('muted'),
    rule: get('rule'),
    data: get('data'),
    sample: get('sample'),
    trail: get('trail'),
    field: get('field'),
    contour: get('contour'),
    shade: get('shade').split(' ').map(Number) as [number, number, number],
    probe: get('probe'),
    classes: Array.from({ length: 8 }, (_, i) => get(`class-${i}`)),
    strength: Number(get('strength')) || 0.8,
  };
}
