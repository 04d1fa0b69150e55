/** Texts in the language of the person. */

import type { Texts } from './en.ts';

export type Key = keyof Texts;

let languages: Record<string, Texts> = {};
let texts = {} as Texts;

/** Take the texts of all languages: a block of the page holds them. */
export function addTexts(found: Record<string, Texts>): void {
  languages = found;
}

/** Take a language: the one named, or that of the browser. */
export function setLanguage(name: string): string {
  const wanted = name || (navigator.language.startsWith('zh') ? 'zh' : 'en');
  const found = wanted in languages ? wanted : 'en';
  texts = languages[found];
  document.documentElement.lang = found === 'zh' ? 'zh-CN' : 'en';
  return found;
}

export function t(key: Key, gaps: Record<string, string | number> = {}): string {
  return texts[key].replace(/\{(\w+)\}/g, (_all, name: string) => String(gaps[name] ?? ''));
}

export function has(key: string): key is Key {
  return key in texts;
}

/** A number as a person reads it: three digits. */
export function shown(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e4 || size < 1e-3) {
    const [digits, power] = value.toExponential(1).split('e');
    return `${digits}·10${[...String(Number(power))].map((sign) => SUPER[sign]).join('')}`;
  }
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(size >= 1 ? 2 : 3);
}

const SUPER: Record<string, string> = Object.fromEntries(
  [...'-0123456789'].map((sign, i) => [sign, [...'⁻⁰¹²³⁴⁵⁶⁷⁸⁹'][i]]),
);
