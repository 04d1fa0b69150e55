/** A dialog of the browser's own, with a title and a way out. */

import { t } from '../texts/i18n.ts';
import { h, icon } from './dom.ts';

export function openDialog(title: string, id: string, ...children: (HTMLElement | null)[]): HTMLDialogElement {
  document.getElementById(id)?.remove();
  const dialog = h(
    'dialog',
    { id, 'aria-labelledby': `${id}-title` },
    h(
      'div',
      { class: 'dialog-head' },
      h('h2', { id: `${id}-title` }, title),
      h(
        'button',
        { type: 'button', class: 'icon', 'aria-label': t('close'), title: t('close'), onclick: () => dialog.close() },
        icon('close'),
      ),
    ),
    ...children,
  );
  dialog.addEventListener('close', () => dialog.remove());
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
