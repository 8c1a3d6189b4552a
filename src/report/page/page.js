// What a page can do where scripts run. Without them it is whole, and stands still.
'use strict';
(() => {
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};
const button = (text, properties) => make('button', {type: 'button', ...properties}, text);

// Paths are copied.

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page that is a file, in some browsers
    const field = make('textarea', {value: text, className: 'unseen'});
    (document.querySelector('dialog[open]') ?? document.body).append(field);
    field.select();
    document.execCommand('copy');
    field.remove();
  }
}
for (const code of all('code.path')) {
  const name = code.textContent;
  const copies = button('copy', {className: 'small', title: 'Copy the path'});
  copies.setAttribute('aria-label', `Copy the path of ${name}`);
  copies.dataset.path = code.dataset.path;
  code.after(copies);
}
document.addEventListener('click', async event => {
  const copies = event.target.closest('button[data-path]');
  if (!copies) return;
  await copy(copies.dataset.path);
  copies.textContent = 'copied';
  setTimeout(() => { copies.textContent = 'copy'; }, 1500);
});

// Tables are sorted: first by what is worst, then the other way round.

const value = cell => cell.dataset.value ?? cell.textContent.trim();
function sort(table, column, header) {
  const now = header.getAttribute('aria-sort');
  const first = header.dataset.first ?? 'ascending';
  const other = first === 'ascending' ? 'descending' : 'ascending';
  const direction = now === first ? other : first;
  for (const th of all('thead th', table)) th.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', direction);
  const rows = all('tbody tr', table).map(row => [row, value(row.cells[column])]);
  const numeric = header.classList.contains('number');
  const order = numeric ? (a, b) => a - b
                        : new Intl.Collator(undefined, {numeric: true}).compare;
  const key = text => numeric ? Number.parseFloat(text.replaceAll(',', '')) : text;
  const sign = direction === 'ascending' ? 1 : -1;
  rows.sort(([, a], [, b]) => {
    const [x, y] = [key(a), key(b)];
    if (numeric && (Number.isNaN(x) || Number.isNaN(y)))  // what has no figure stands last
      return Number.isNaN(x) - Number.isNaN(y);
    return sign * order(x, y);
  });
  table.tBodies[0].append(...rows.map(([row]) => row));
}
for (const table of all('table.sorts'))
  all('thead th', table).forEach((header, column) => {
    const sorts = button(header.textContent);
    header.replaceChildren(sorts);
    sorts.addEventListener('click', () => sort(table, column, header));
  });

// Photos are enlarged, one after the other.

const figures = () => all('.zooms figure:has(button.frame)').filter(f => f.checkVisibility());
const dialog = make('dialog', {});
dialog.setAttribute('aria-label', 'A photo, enlarged');
let shown = null;
function show(figure) {
  shown = figure;
  const frame = make('div', {className: 'frame'}, ...all('img', figure).map(i => i.cloneNode()));
  const caption = figure.querySelector('figcaption').cloneNode(true);
  dialog.querySelector('figure').replaceChildren(frame, caption);
  if (!dialog.open) dialog.showModal();
}
function step(by) {
  const list = figures();
  if (list.length) show(list[(list.indexOf(shown) + by + list.length) % list.length]);
}
if (all('.zooms').length) {
  dialog.append(make('figure', {}), make('div', {className: 'bar'},
    button('Previous', {onclick: () => step(-1)}), button('Next', {onclick: () => step(1)}),
    button('Close', {onclick: () => dialog.close()})));
  document.querySelector('main').append(dialog);
  dialog.addEventListener('keydown', event => {
    if (event.key === 'ArrowLeft') step(-1);
    if (event.key === 'ArrowRight') step(1);
  });
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
  for (const frame of all('.zooms div.frame:has(img)')) {
    const zooms = make('button', {type: 'button', className: 'frame', title: 'Enlarge'},
      ...frame.childNodes);
    frame.replaceWith(zooms);
    zooms.addEventListener('click', () => show(zooms.closest('figure')));
  }
}

// On paper everything is open.

let closed = [];
addEventListener('beforeprint', () => {
  closed = all('details:not([open])');
  for (const details of closed) details.open = true;
});
addEventListener('afterprint', () => {
  for (const details of closed) details.open = false;
});

// Mistakes of one label, one prediction, or a cell of the confusion matrix.

const filter = document.getElementById('filter');
if (filter) {
  const {label, predicted} = filter.elements;
  const section = filter.closest('section');
  const apply = () => {
    const wanted = label.value !== '' || predicted.value !== '';
    const fits = e => (label.value === '' || e.dataset.label === label.value)
      && (predicted.value === '' || e.dataset.predicted === predicted.value);
    let rows = 0, photos = 0;
    for (const e of all('[data-label]', section)) {
      e.hidden = !fits(e);
      if (e.hidden) continue;
      if (e.tagName === 'TR') rows++; else photos++;
    }
    for (const group of all('.group', section))
      group.hidden = !all('[data-label]', group).some(e => !e.hidden);
    if (wanted) for (const details of all('details', section)) details.open = true;
    const name = select => select.selectedOptions[0].textContent;
    filter.querySelector('output').textContent = wanted
      ? `Label: ${name(label)}; classified as: ${name(predicted)}. ` +
        `${photos} ${photos === 1 ? 'photo' : 'photos'} on this page, ${rows} in the table of mistakes.`
      : '';
  };
  const choose = (l, p) => {
    label.value = l;
    predicted.value = p;
    apply();
    section.scrollIntoView();
    label.focus({preventScroll: true});
  };
  filter.hidden = false;
  filter.addEventListener('change', apply);
  filter.addEventListener('reset', () => setTimeout(apply));
  filter.addEventListener('submit', event => event.preventDefault());
  for (const row of all('tr[data-shows]')) {
    const [l, p] = row.dataset.shows.split(' ');
    row.cells[0].append(' ', button('photos', {className: 'small', onclick: () => choose(l, p)}));
  }
  const matrix = document.querySelector('.confusion');
  if (matrix) grid(matrix, choose);
}

/// Cells are reached with the arrows, and chosen with Enter or a click.
function grid(table, choose) {
  const columns = all('thead th', table);
  const cells = all('tbody tr', table).map(row => all('td', row));
  const words = cell => {
    const row = cell.parentElement.querySelector('th'), column = columns[cell.cellIndex - 1];
    return `${row.title}, classified as ${column.title}: ${cell.textContent || 0}`;
  };
  table.classList.add('live');
  table.setAttribute('role', 'grid');
  let current = cells[0][0];
  current.tabIndex = 0;
  const go = cell => {
    current.tabIndex = -1;
    current = cell;
    current.tabIndex = 0;
  };
  table.addEventListener('pointerover', ({target}) => {
    if (target.matches('tbody td')) target.title = words(target);
  });
  const open = cell => {
    if (cell.textContent) choose(cell.parentElement.dataset.class, columns[cell.cellIndex - 1].dataset.class);
  };
  table.addEventListener('click', ({target}) => {
    if (target.matches('tbody td')) { go(target); open(target); }
  });
  table.addEventListener('keydown', event => {
    const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
    if (event.key === 'Enter') return open(current);
    if (!steps[event.key]) return;
    const [down, right] = steps[event.key];
    const row = all('tbody tr', table).indexOf(current.parentElement);
    const next = cells[row + down]?.[current.cellIndex - 1 + right];
    if (!next) return;
    event.preventDefault();
    go(next);
    next.focus();
  });
}
})();
