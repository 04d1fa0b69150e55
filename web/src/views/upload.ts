/**
 * A table of one's own: choose a file, look at it, pick the columns. It never leaves this page, unless a server reads
 * what the page cannot.
 */

import type { App } from '../app/app.ts';
import { MOST_OWN } from '../app/drawing.ts';
import {
  cellOf,
  chosen,
  classesOf,
  fromServer,
  LIMITS,
  readTable,
  type SentTable,
  type Table,
  TableError,
} from '../files/table.ts';
import { askTable, kindFor, Refusal } from '../server/protocol.ts';
import { type Key, t } from '../texts/i18n.ts';
import { openDialog } from './dialog.ts';
import { h } from './dom.ts';

const PREVIEW = 6;

function sentence(error: unknown): string {
  if (error instanceof TableError) return t(error.key as Key, error.gaps);
  if (error instanceof Refusal) return error.message || t('upload.unreached');
  return t('error.binary');
}

function preview(table: Table): HTMLElement {
  const rows = Array.from({ length: Math.min(PREVIEW, table.rows) }, (_, i) =>
    h('tr', {}, ...table.columns.map((_name, j) => h('td', {}, cellOf(table, i, j).slice(0, 24)))),
  );
  return h(
    'div',
    { class: 'preview', tabindex: 0, role: 'region', 'aria-label': t('upload.preview') },
    h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ...table.columns.map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', {}, ...rows),
    ),
  );
}

function picker(
  label: string,
  id: string,
  options: [string, string][],
): { row: HTMLElement; input: HTMLSelectElement } {
  const input = h('select', { id }, ...options.map(([value, text]) => h('option', { value }, text)));
  return {
    row: h(
      'div',
      { class: 'row' },
      h('div', { class: 'row-head' }, h('label', { for: id }, label)),
      h('div', { class: 'select' }, input),
    ),
    input,
  };
}

/** Let a person choose a table; or look at one that came with the page. */
export function openUpload(app: App, sent: SentTable | null = null): void {
  const { server } = app;
  const own = '.csv,.tsv,.txt,.npy';
  const limit = server?.limits.upload_bytes ?? LIMITS.bytes;
  const most = Math.round(limit / 2 ** 20);
  const message = h('p', { class: 'error', role: 'alert' });
  const body = h('div', { class: 'upload-body' });
  const file = h('input', {
    type: 'file',
    id: 'file',
    accept: server ? `${own},.npz,.parquet,.gz` : own,
    onchange: () => read(),
  });
  const zone = h('label', { class: 'drop', for: 'file' }, t(server ? 'upload.hint.server' : 'upload.hint'), file);
  const dialog = openDialog(
    t('upload.title'),
    'upload-dialog',
    h('p', { class: 'note' }, server ? t('upload.note.server', { most }) : t('upload.note')),
    zone,
    message,
    body,
  );
  zone.addEventListener('dragover', (event) => event.preventDefault());
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length) show(event.dataTransfer.files[0]);
  });
  const read = () => {
    if (file.files?.length) show(file.files[0]);
  };

  async function show(given: File): Promise<void> {
    message.textContent = '';
    body.replaceChildren();
    try {
      const kind = server && kindFor(given.name);
      if (given.size > (kind ? limit : LIMITS.bytes))
        throw new TableError('error.large', { most: kind ? `${most} MB` : '20 MB' });
      choose(kind ? await askTable(server.token, kind, given) : readTable(given.name, await given.arrayBuffer()));
    } catch (error) {
      message.textContent = sentence(error);
    }
  }

  function choose(table: Table): void {
    const numeric = table.columns.flatMap((_, j) => (table.numbers[j].some(Number.isFinite) ? [j] : []));
    if (numeric.length < 2) throw new TableError('error.narrow');
    const columns = numeric.map((j): [string, string] => [String(j), table.columns[j]]);
    const classes = table.columns.flatMap((name, j): [string, string][] => {
      const found = classesOf(table, j);
      return found && found.length > 1 ? [[String(j), name]] : [];
    });
    const [x, y] = [picker(t('upload.x'), 'column-x', columns), picker(t('upload.y'), 'column-y', columns)];
    const label = picker(t('upload.class'), 'column-class', [['-1', t('upload.none')], ...classes]);
    y.input.value = columns[1][0];
    const use = h(
      'button',
      {
        type: 'button',
        class: 'primary',
        id: 'use',
        onclick: () => {
          try {
            const points = chosen(
              table,
              Number(x.input.value),
              Number(y.input.value),
              Number(label.input.value),
              MOST_OWN,
              app.state.seed,
            );
            app.drawing.replace(points);
            app.store.set({ classes: Number(label.input.value) >= 0, data: true });
            dialog.close();
          } catch (error) {
            message.textContent = sentence(error);
          }
        },
      },
      t('upload.use'),
    );
    body.replaceChildren(
      h(
        'p',
        { class: 'note' },
        t('upload.found', { rows: table.all ?? table.rows, columns: table.columns.length }),
        ' ',
        (table.all ?? table.rows) > MOST_OWN ? t('upload.some', { n: MOST_OWN }) : null,
      ),
      preview(table),
      h('div', { class: 'pickers' }, x.row, y.row, label.row),
      use,
    );
  }

  if (sent)
    try {
      choose(fromServer(sent));
    } catch (error) {
      message.textContent = sentence(error);
    }
}
