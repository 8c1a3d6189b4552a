// The page of `graft serve`: images come and go, answers are shown, corrected and downloaded; work.js
// gets them. Texts of others (names, labels, the server's errors) become text nodes only, never HTML.

import {connect, current, pump, retry, state, stop, thumbnail, view, wake} from './work.js';

const MAX_LISTED = 2000;      // images on the page; more are work for `graft predict`
const MAX_EAGER_LABELS = 12;  // longer lists are filled in when they are first used

// ---- what is shown ----

const $ = id => document.getElementById(id);
const copy = id => $(id).content.firstElementChild.cloneNode(true);
const percent = p => p > 0 && p < .001 ? '< 0.1 %' : `${(p * 100).toFixed(1)} %`;
const counted = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
const itemOf = new Map();  // by card and row
const watcher = new IntersectionObserver(look, {rootMargin: '200px'});
let sorting = {key: '', down: false};
let busy = false;  // as last shown

/** Live regions speak when their text changes; the same again is not said twice. */
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function notify(text, again = false) {
  if (!again && document.activeElement === $('again')) $('files').focus();
  $('notice').hidden = !text;
  $('again').hidden = !again;
  say('notice-text', text);
}

function askForToken() {
  notify('');
  $('headline').textContent = '';
  $('token-error').textContent = state.token ? 'The server does not take this token.' : '';
  $('token-form').hidden = false;
  $('token').focus();
}

function showModels() {
  $('add').hidden = false;
  if ($('token-form').contains(document.activeElement)) $('files').focus();
  $('token-form').hidden = true;
  const {name, backbone, labels, card} = state.model;
  $('model').replaceChildren(...state.models.map(m => new Option(m.name, m.name)));
  $('model').value = name;
  $('chooser').hidden = state.models.length < 2;
  const few = labels.slice(0, 12).join(', ');
  $('headline').textContent = `${name}: ${backbone}, ${counted(labels.length, 'label')}: ${few}` +
    (labels.length > 12 ? ', …' : '');
  $('model-card').replaceChildren(...card.flatMap(([heading, text]) => {
    const [term, value] = [document.createElement('dt'), document.createElement('dd')];
    term.textContent = heading;
    value.textContent = text;
    return [term, value];
  }));
  $('about').hidden = false;
  state.items.forEach(show);  // the labels to choose from may be others
}

const stale = new Set();

/** Elements are brought up to date together, a few times a second. */
function show(item) {
  if (!stale.size) setTimeout(showStale, 50);
  stale.add(item);
}

function showStale() {
  const items = [...stale];
  stale.clear();
  for (const item of items) item.removed ? revoke(item) : showItem(item);
  if ($('view-table').checked) showOrder();
  showProgress();
}

/** What is to be said of an image where it has no label, or no map, yet. */
function describe({answer, map}) {
  if (answer.status === 'failed') return answer.error;
  if (answer.status === 'sent') return 'being classified …';
  if (answer.status !== 'done') return 'waiting …';
  if (!state.explain || map.status === 'done') return '';
  return map.status === 'failed' ? `no evidence shown: ${map.error}` : 'looking for the evidence …';
}

function showItem(item) {
  const {answer, map} = current(item);
  const text = describe({answer, map});
  const note = item.card.querySelector('.state');
  note.textContent = text;
  note.className = `state ${[answer.status, map.status].includes('failed') ? 'bad' : 'dim'}`;
  const evidence = state.explain && map.value;
  showPicture(item.card, evidence || item.thumbnail,
              evidence ? `${item.name}, evidence for ${answer.value.label}` : item.name);
  item.card.querySelector('.frame span').textContent = item.thumbnail === '' ? 'no preview' : '…';
  showBars(item.card.querySelector('.bars'), answer.value?.top ?? []);
  if (item.row || $('view-table').checked) showRow(item, text);
  showCorrection(item);
}

function showBars(bars, top) {
  bars.hidden = !top.length;
  while (bars.children.length > top.length) bars.lastElementChild.remove();
  while (bars.children.length < top.length) bars.append(copy('bar-template'));
  top.forEach(({label, probability}, i) => {
    const bar = bars.children[i];
    bar.querySelector('.name').textContent = label;
    bar.querySelector('.value').textContent = percent(probability);
    bar.querySelector('i').style.width = `${probability * 100}%`;
  });
}

function showPicture(parent, address, alternative) {
  const image = parent.querySelector('img');
  image.hidden = !address;
  image.alt = alternative;
  if (address && image.getAttribute('src') !== address) image.src = address;
  const stand = parent.querySelector('.frame span');
  if (stand) stand.hidden = !!address;
}

function showRow(item, text) {
  if (!item.row) {
    item.row = copy('row-template');
    item.row.querySelector('th span').textContent = item.name;
    wire(item, item.row);
  }
  const {answer} = current(item);
  const [label, number] = item.row.querySelectorAll('td');
  label.textContent = answer.value?.label ?? text;
  label.classList.toggle('bad', answer.status === 'failed');
  label.colSpan = answer.value ? 1 : 3;
  number.hidden = number.nextElementSibling.hidden = !answer.value;
  number.textContent = answer.value ? percent(answer.value.probability) : '';
  showPicture(item.row, item.thumbnail, '');
}

/** The choice of the right label, on the card and in the row. */
function showCorrection(item) {
  const {answer, right} = current(item);
  item.card.querySelector('.labelled').hidden = !answer.value;
  if (!answer.value) return;
  const label = right || answer.value.label;
  const words = right ? 'Corrected to' : 'Right label';
  for (const part of [item.card, item.row].filter(Boolean)) {
    const select = part.querySelector('select');
    const made = `${state.model.name} ${state.model.version}`;
    if (select.dataset.made !== made) {
      select.dataset.made = made;
      select.dataset.full = '';
      select.replaceChildren();
      if (state.model.labels.length <= MAX_EAGER_LABELS) fill(select);
    }
    if (![...select.options].some(o => o.value === label)) select.add(new Option(label, label));
    select.value = label;
    part.classList.toggle('corrected', !!right);
    select.setAttribute('aria-label', `${words}, ${item.name}`);
  }
  item.card.querySelector('.labelled span').textContent = words;
}

function fill(select) {
  if (select.dataset.full) return;
  const chosen = select.value;
  select.replaceChildren(...state.model.labels.map(l => new Option(l, l)));
  select.dataset.full = 'yes';
  if (chosen) select.value = chosen;
}

function showProgress() {
  const slots = state.model ? state.items.map(item => current(item)) : [];
  const count = (list, status) => list.filter(slot => slot.status === status).length;
  const answers = slots.map(result => result.answer);
  const [done, failed] = [count(answers, 'done'), count(answers, 'failed')];
  const total = answers.length, unfinished = done + failed < total;
  const again = slots.filter(r => r.answer.again || r.map.again).length;
  const corrected = slots.filter(result => result.right).length;
  $('results').hidden = !total;
  $('bar').value = total ? (done + failed) / total : 0;
  $('count').textContent = `${(done + failed).toLocaleString('en')} of ${counted(total, 'image')}`;
  $('retry').textContent = `Try ${counted(again, 'image')} again`;
  $('csv').disabled = !(done + failed);
  $('corrections').disabled = !corrected;
  $('corrections').textContent =
    corrected ? `Download ${counted(corrected, 'correction')} (CSV)` : 'Download corrections (CSV)';
  // What goes away must not take the focus with it.
  if ([!unfinished && $('stop'), !again && $('retry')].includes(document.activeElement))
    $('results-heading').focus();
  $('working').hidden = !unfinished;
  $('retry').hidden = !again;
  if (unfinished && !busy) say('status', `Classifying ${counted(total, 'image')} …`);
  if (!unfinished && busy && total) say('status', summary(done, failed));
  busy = unfinished;
}

function summary(done, failed) {
  const only = state.items.length === 1 && current(state.items[0]).answer.value;
  if (only) return `${state.items[0].name}: ${only.label}, ${percent(only.probability)}.`;
  return [done && `${counted(done, 'image')} classified`,
          failed && `${counted(failed, 'image')} not, for the reasons given`]
    .filter(Boolean).join('; ') + '.';
}

// ---- table ----

const collator = new Intl.Collator('en', {numeric: true});

/** Items as the table is sorted; what has no value comes last either way. */
function ordered() {
  const {key, down} = sorting;
  if (!key) return state.items;
  const value = item => key === 'name' ? item.name : key === 'right' ? current(item).right || null :
    current(item).answer.value?.[key] ?? null;
  return state.items.map(item => [value(item), item]).sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return (down ? -1 : 1) * (typeof a === 'number' ? a - b : collator.compare(a, b));
  }).map(([, item]) => item);
}

function showOrder() {
  const rows = ordered().map(item => item.row).filter(Boolean);
  if (rows.length === $('rows').children.length && rows.every((r, i) => r === $('rows').children[i]))
    return;
  const focused = document.activeElement;
  $('rows').replaceChildren(...rows);
  if (focused !== document.activeElement) focused.focus({preventScroll: true});
}

function sortBy(header) {
  const {key} = header.dataset;
  sorting = {key, down: sorting.key === key && !sorting.down};
  for (const th of document.querySelectorAll('thead th')) th.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', sorting.down ? 'descending' : 'ascending');
  showOrder();
}

// ---- downloads ----

/** RFC 4180: CRLF, quotes around what has quotes, commas or line ends. */
function csvOf(rows) {
  const field = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  return rows.map(row => row.map(value => field(String(value))).join(',') + '\r\n').join('');
}

/** Spreadsheets compute what begins like a formula. */
const isFormula = text => /^\s*[=+\-@]|^[\t\r\n]/.test(text);
const inert = text => isFormula(text) ? `'${text}` : text;

function save(text, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/csv;charset=utf-8'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function saveResults() {
  const rows = ordered().map(item => {
    const {answer, right} = current(item);
    const {label = '', probability = '', version = ''} = answer.value ?? {};
    return [inert(item.name), inert(label), probability, inert(right), inert(answer.error),
            inert(state.model.name), version];
  });
  save(csvOf([['name', 'label', 'probability', 'your_label', 'error', 'model', 'version'], ...rows]),
       'results.csv');
}

/** A manifest as `graft train` reads them: paths and labels must stay what they are. */
function saveCorrections() {
  const uses = new Map();  // of a name
  for (const {name} of state.items) uses.set(name, (uses.get(name) ?? 0) + 1);
  const corrected = state.items.filter(item => current(item).right);
  const sure = corrected.filter(({name}) => uses.get(name) === 1);
  const doubtful = new Set(corrected.map(({name}) => name).filter(name => uses.get(name) > 1));
  const rows = sure.map(item => [isFormula(item.name) ? `./${item.name}` : item.name,
                                 current(item).right]);
  let said = '';
  if (sure.length) {
    save(csvOf([['path', 'label'], ...rows]), 'corrections.csv');
    said = `${counted(sure.length, 'correction')} saved as corrections.csv. `;
  }
  if (doubtful.size)
    said += `Left out, as several images have this name: ${[...doubtful].join(', ')}. Rename them, ` +
      'or drop their folder as a whole.';
  say('saved', said.trim());
}

// ---- images come and go ----

/** Adds {file, name, made}; `made` are images that are no files yet (pasted, photographed). */
function add(found) {
  const known = new Set(state.items.map(identity));
  const fit = found.filter(item => !known.has(identity(item)) && known.add(identity(item)));
  const taken = fit.slice(0, MAX_LISTED - state.items.length);
  for (const {file, name, made} of taken) {
    const item = {file, name, results: new Map(), card: copy('card-template'), row: null,
                  thumbnail: null, seen: false, removed: false};
    item.card.querySelector('h3').textContent = name;
    item.card.querySelector('.remove').setAttribute('aria-label', `Remove ${name}`);
    item.card.querySelector('.remove').onclick = () => remove(item);
    if (made) {
      const link = item.card.querySelector('a');
      Object.assign(link, {href: URL.createObjectURL(file), download: name, hidden: false});
      link.setAttribute('aria-label', `Save ${name}`);
    }
    wire(item, item.card);
    state.items.push(item);
    showItem(item);
  }
  $('cards').append(...state.items.slice(state.items.length - taken.length).map(item => item.card));
  if ($('view-table').checked) showOrder();
  busy = false;
  pump();
  const same = found.length - fit.length, many = fit.length - taken.length;
  if (many) say('status', `This page takes ${MAX_LISTED.toLocaleString('en')} images; the rest is ` +
                          'left out. graft predict takes any number.');
  else if (same && !taken.length) say('status', `${counted(same, 'image')} already here.`);
  else if (!found.length) say('status', 'There are no images in that.');
}

const identity = ({file, name}) => JSON.stringify([name, file.size, file.lastModified]);

function wire(item, part) {
  const select = part.querySelector('select');
  select.onfocus = select.onpointerdown = () => fill(select);
  select.onchange = () => {
    const result = current(item);
    result.right = select.value === result.answer.value.label ? '' : select.value;
    showCorrection(item);
    showProgress();
  };
  itemOf.set(part, item);
  watcher.observe(part);
}

/** Thumbnails and maps are made of what is looked at. */
function look(entries) {
  for (const {target, isIntersecting} of entries) {
    const item = itemOf.get(target);
    if (!item) continue;
    if (target === item.card) item.seen = isIntersecting;
    if (isIntersecting && item.thumbnail === null) {
      item.thumbnail = undefined;  // on its way
      thumbnail(item.file).then(address => { item.thumbnail = address; show(item); });
    }
  }
  if (state.explain) pump();
}

function forget(item) {
  item.removed = true;
  for (const part of [item.card, item.row].filter(Boolean)) {
    itemOf.delete(part);
    watcher.unobserve(part);
    part.remove();
  }
  revoke(item);
}

/** Frees the copies of an image that is no longer shown, also those that come late. */
function revoke(item) {
  for (const address of [item.thumbnail, item.card.querySelector('a').href,
                         ...[...item.results.values()].map(result => result.map.value)])
    if (address) URL.revokeObjectURL(address);
}

function remove(item) {
  const next = (item.card.nextElementSibling ?? item.card.previousElementSibling);
  (next?.querySelector('.remove') ?? $('files')).focus();
  forget(item);
  state.items = state.items.filter(other => other !== item);
  say('status', `${item.name} removed.`);
  pump();
}

/** Files, and the images in folders with the folder's name before theirs. */
async function filesIn(entry, path = '') {
  if (entry instanceof File) return [{file: entry, name: entry.name}];
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return !path || file.type.startsWith('image/') ? [{file, name: path + file.name}] : [];
  }
  const found = [], entries = entry.createReader();
  for (;;) {  // some at a time, until none come
    const some = await new Promise((done, failed) => entries.readEntries(done, failed));
    if (!some.length || found.length > MAX_LISTED) return found;
    for (const child of some.sort((a, b) => collator.compare(a.name, b.name)))
      found.push(...await filesIn(child, `${path}${entry.name}/`));
  }
}

/** A name that no other image has, for one that was no file: browsers call all such the same. */
function named(file, what, i = 0) {
  if (what === 'pasted' && !/^image\.\w+$/.test(file.name)) return {file, name: file.name};
  const kind = {'image/jpeg': 'jpg', 'image/webp': 'webp'}[file.type] ?? 'png';
  const time = new Date().toISOString().replace(/\D/g, '').slice(0, 17);
  return {file, name: `${what}-${time}${i ? `-${i + 1}` : ''}.${kind}`, made: true};
}

function start() {
  Object.assign(view, {item: show, progress: showProgress, models: showModels, notice: notify,
                       token: askForToken});
  $('files').onchange = () => {
    add([...$('files').files].map(file => ({file, name: file.name})));
    $('files').value = '';  // the same may be chosen again
  };
  $('camera').onchange = () => {
    add([...$('camera').files].map(file => named(file, 'photo')));
    $('camera').value = '';
  };
  document.onpaste = event => {
    const files = [...event.clipboardData.files];
    if ($('add').hidden || (!files.length && event.target.matches('input'))) return;
    event.preventDefault();
    add(files.map((file, i) => named(file, 'pasted', i)));
  };
  document.ondragover = event => {
    if (!event.dataTransfer.types.includes('Files')) return;
    event.preventDefault();
    document.body.classList.add('over');
  };
  document.ondragleave = event => {
    if (!event.relatedTarget) document.body.classList.remove('over');
  };
  document.ondrop = async event => {
    event.preventDefault();  // else the browser would open the file
    document.body.classList.remove('over');
    const entries = [...event.dataTransfer.items].filter(item => item.kind === 'file')
      .map(item => item.webkitGetAsEntry?.() ?? item.getAsFile());
    if ($('add').hidden) return;
    const found = await Promise.all(entries.map(entry => filesIn(entry).catch(() => [])));
    add(found.flat());
  };
  $('token-form').onsubmit = event => {
    event.preventDefault();
    const token = $('token').value.trim();
    if (!/^[!-~]+$/.test(token))  // nothing else can stand in a request's header
      return say('token-error', 'A token has letters, digits and signs of ASCII, and no spaces.');
    state.token = token;
    connect();
  };
  $('model').onchange = () => {
    state.model = state.models.find(m => m.name === $('model').value);
    busy = false;
    showModels();
    pump();
  };
  $('explain').onchange = () => {
    state.explain = $('explain').checked;
    $('legend').hidden = !state.explain;
    state.items.forEach(show);
    pump();
  };
  $('view-images').onchange = $('view-table').onchange = () => {
    const table = $('view-table').checked;
    $('cards').hidden = $('evidence').hidden = table;
    $('table').hidden = !table;
    state.items.forEach(showItem);
    showOrder();
  };
  for (const th of document.querySelectorAll('thead th'))
    th.querySelector('button').onclick = () => sortBy(th);
  $('stop').onclick = stop;
  $('retry').onclick = retry;
  $('clear').onclick = () => {
    state.items.splice(0).forEach(forget);
    $('files').focus();
    say('status', 'All images removed.');
    showProgress();
  };
  $('again').onclick = wake;
  $('csv').onclick = saveResults;
  $('corrections').onclick = saveCorrections;
  connect();
}

start();
