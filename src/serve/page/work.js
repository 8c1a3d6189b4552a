// What the page of `graft serve` asks of the server: which models it has, and answers, by requests of
// a few images, a few at a time. It shows nothing itself: it tells `view`.

// All of these stay below the server's own limits (GET models), so that others have room beside us.
const MAX_REQUESTS = 2;     // at a time
const MAX_IMAGES = 16;      // a request: answers come soon, and progress is seen
const MAX_BYTES = 8 << 20;  // a request, unless one image alone is larger
const MAX_EXPLAINED = 4;    // a request: a map takes about as long as ten images
const MAX_TRIES = 8;        // of a request that the server was too busy for, or went away with
const MAX_BROKEN = 3;       // of a request that a living server broke off
const TOP = 5;              // labels an image

/** Filled in by app.js: item(item) and progress() show what is new, models() what can be chosen,
    notice(text, again) what is wrong ('' is nothing), token() asks for one. */
export const view = {};

export const state = {
  token: '',  // never stored
  models: [], model: null, limits: null,  // as GET models has them; the model that is chosen
  items: [],  // {file, name, results, seen, removed, …}: results by the model's name
  explain: false,
};

// Jobs are {name: 'answer' or 'map', items, model, tries}; `again` are those to be sent once more.
const queue = {again: [], running: 0, hold: 0, timer: 0, blocked: true, wake: null,
               stop: new AbortController()};

// ---- the server ----

class RequestError extends Error {
  constructor(status, message, seconds = 0) {
    super(message);
    this.status = status;
    this.seconds = seconds;  // that the server asks to wait
  }
}

// For answers that do not explain themselves, such as those of a proxy in between.
const WORDS = {
  401: 'The server asks for a token.',
  403: 'The server refuses requests from this address; open the page under its own.',
  404: 'The server no longer has this model.',
  413: 'Larger than the server takes.',
  415: 'Not a kind of image that the server reads.',
  422: 'The server cannot read this as an image.',
  502: 'The server is not reached through its proxy.',
  429: 'The server is asked too often.',
  503: 'The server is busy.',
  504: 'The server takes too long to answer its proxy.',
};

/** Throws RequestError for an answer that is an error, TypeError where none comes. */
async function ask(path, options = {}) {
  const headers = state.token ? {Authorization: `Bearer ${state.token}`} : {};
  const response = await fetch(path, {...options, headers, cache: 'no-store'});
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* no answer of Graft's */ }
  if (body && (response.ok || body.predictions)) return body;
  const words = body?.error ?? WORDS[response.status] ??
    `The server answered ${response.status} ${response.statusText}, which this page does not expect.`;
  throw new RequestError(response.status, words, secondsOf(response.headers.get('Retry-After')));
}

/** Retry-After is a number of seconds or a date. */
function secondsOf(header) {
  const seconds = /^\d+$/.test(header ?? '') ? +header : (Date.parse(header) - Date.now()) / 1000;
  return Math.min(Math.max(Number.isFinite(seconds) ? seconds : 1, 1), 60);
}

async function loadModels() {
  const {models, limits} = await ask('models');
  if (!models?.length) throw new RequestError(503, 'The server has no model.');
  Object.assign(state, {models, limits});
  state.model = models.find(m => m.name === state.model?.name) ?? models[0];
  view.models();
}

/** Asks for the models until they are there, or for a token. */
export async function connect() {
  queue.blocked = true;
  for (let wait = 2;; wait = Math.min(2 * wait, 30)) {
    try {
      await loadModels();
      break;
    } catch (error) {
      if (error.status === 401) return view.token();
      view.notice(error.status ? error.message : 'The server does not answer. It is asked again ' +
                  'every few seconds; nothing on this page is lost.', true);
    }
    await new Promise(done => { queue.wake = done; setTimeout(done, wait * 1000); });
  }
  view.notice('');
  queue.blocked = false;
  pump();
}

/** Asks at once, without waiting on. */
export const wake = () => queue.wake?.();

// ---- what is to be known of an image ----

/** status: waiting, sent, later (in a job to be sent once more), done (has a value) or failed. */
const fresh = () => ({status: 'waiting', value: null, error: '', again: false});

/** An item's answer, map of the evidence and correction, of one model. */
export function current(item, model = state.model) {
  if (!item.results.has(model.name))
    item.results.set(model.name, {answer: fresh(), map: fresh(), right: ''});
  return item.results.get(model.name);
}

/** `again`: asking once more may help. */
function fail(item, slot, error, again = false) {
  const prefix = `${item.name}: `;
  Object.assign(slot, {status: 'failed', again,
                       error: error.startsWith(prefix) ? error.slice(prefix.length) : error});
  view.item(item);
}

export function stop() {
  queue.stop.abort();
  queue.stop = new AbortController();
  release();
  for (const job of queue.again.splice(0))
    for (const item of job.items) fail(item, current(item, job.model)[job.name], 'stopped', true);
  for (const item of state.items) {
    const {answer} = current(item);
    if (answer.status === 'waiting') fail(item, answer, 'stopped', true);
  }
}

export function retry() {
  for (const item of state.items) {
    const {answer, map} = current(item);
    for (const slot of [answer, map].filter(s => s.again)) Object.assign(slot, fresh());
    view.item(item);
  }
  pump();
}

// ---- requests ----

export const megabytes = bytes => `${(bytes / (1 << 20)).toFixed(1)} MB`;

/** What an image takes of a request, with the part's headers. */
const bytesOf = item => item.file.size + 3 * item.name.length + 256;

/** The next images in want of something, as many as fit into a request. */
function take(name, most, wanted) {
  const room = Math.min(MAX_BYTES, state.limits.body_bytes);
  const items = [];
  let bytes = 0;
  for (const item of state.items) {
    const slot = current(item)[name];
    if (slot.status !== 'waiting' || !wanted(item)) continue;
    if (bytesOf(item) > state.limits.body_bytes) {
      fail(item, slot, `${megabytes(item.file.size)}: more than the ` +
           `${megabytes(state.limits.body_bytes)} that the server takes`);
      continue;
    }
    bytes += bytesOf(item);
    if (items.length === most || (items.length && bytes > room)) break;
    items.push(item);
  }
  return items.length ? {name, items, model: state.model, tries: 0} : null;
}

function nextJob() {
  while (queue.again.length) {
    const job = queue.again.shift();
    job.items = job.items.filter(item => !item.removed);
    if (job.items.length) return job;
  }
  const {images, explained_images: explained} = state.limits;
  const job = take('answer', Math.min(MAX_IMAGES, images), () => true);
  if (job || !state.explain) return job;
  return take('map', Math.min(MAX_EXPLAINED, images, explained),
              item => item.seen && current(item).answer.status === 'done');
}

/** Sends what may be sent; to be called whenever there may be more of it. */
export function pump() {
  clearTimeout(queue.timer);
  const pause = queue.hold - Date.now();
  if (pause > 0) queue.timer = setTimeout(pump, pause);
  while (!queue.blocked && pause <= 0 && queue.running < MAX_REQUESTS) {
    const job = nextJob();
    if (!job) break;
    ++queue.running;
    send(job).finally(() => { --queue.running; pump(); });
  }
  view.progress();
}

async function send(job) {
  const slotOf = item => current(item, job.model)[job.name];
  const form = new FormData();
  for (const item of job.items) {
    form.append('images', item.file, item.name);
    slotOf(item).status = 'sent';
    view.item(item);
  }
  const query = new URLSearchParams({model: job.model.name, top: TOP, explain: job.name === 'map'});
  const {signal} = queue.stop;
  try {
    const answer = await ask(`predict?${query}`, {method: 'POST', body: form, signal});
    if (answer.predictions?.length !== job.items.length)
      throw new RequestError(500, 'The server’s answer is not about the images sent.');
    release();
    await Promise.all(job.items.map((item, i) =>
      accept(job, item, slotOf(item), {...answer.predictions[i], version: answer.version})));
    if (answer.version !== state.models.find(m => m.name === job.model.name)?.version)
      await loadModels().catch(() => {});  // the model was replaced, perhaps with other labels
  } catch (error) {
    await recover(error, job, slotOf, signal);
  }
}

async function accept(job, item, slot, prediction) {
  if (prediction.error) return fail(item, slot, prediction.error);
  if (job.name === 'answer') {
    slot.value = prediction;
  } else {
    if (!prediction.explanation) return fail(item, slot, 'the server sent no map of the evidence');
    // Not by fetch(), which the page's policy allows for the server alone.
    const bytes = atob(prediction.explanation.slice(prediction.explanation.indexOf(',') + 1));
    slot.value = await thumbnail(new Blob([Uint8Array.from(bytes, c => c.charCodeAt(0))]));
    if (!slot.value) return fail(item, slot, 'the browser cannot read it');
  }
  slot.status = 'done';
  view.item(item);
}

/** What becomes of a request that failed: again, later, in halves, or an error at each image. */
async function recover(error, job, slotOf, signal) {
  const failAll = (text, again) => job.items.forEach(item => fail(item, slotOf(item), text, again));
  if (signal.aborted) return failAll('stopped', true);
  if (error instanceof RequestError) {
    if (error.status === 401) {
      later(job);
      queue.blocked = true;
      return view.token();
    }
    if (error.status === 503 && ++job.tries < MAX_TRIES) {
      later(job);
      queue.hold = Date.now() + error.seconds * 1000;
      return view.notice(`${error.message.replace(/\.$/, '')}; the next try is in ` +
                         `${Math.round(error.seconds)} s.`);
    }
    release();
    if (error.status === 413 && job.items.length > 1) return halve(job);
    return failAll(error.message, error.status >= 500 || error.status === 429);
  }
  // No answer: a file that went away, a server that did, or one that broke off.
  const readable = await Promise.all(job.items.map(isReadable));
  job.items.filter((_, i) => !readable[i]).forEach(item => fail(
    item, slotOf(item), 'the file was moved, changed or deleted since; add it again'));
  job.items = job.items.filter((_, i) => readable[i]);
  const alive = await fetch('healthz', {cache: 'no-store'}).then(() => true, () => false);
  if (!job.items.length) return;
  if (alive && job.items.length > 1) return halve(job);
  if (++job.tries < (alive ? MAX_BROKEN : MAX_TRIES)) later(job);
  else failAll(alive ? 'the server broke off; perhaps the image is too large for it'
                     : 'the server went away with this image, several times', true);
  if (!alive && !queue.blocked) connect();
}

function later(job) {
  queue.again.push(job);
  for (const item of job.items) {
    current(item, job.model)[job.name].status = 'later';
    view.item(item);
  }
}

/** One image is too much for the server: the others shall not suffer. A server may also break off
    instead of reading what it refuses. */
function halve(job) {
  const half = job.items.length >> 1;
  for (const items of [job.items.slice(0, half), job.items.slice(half)])
    later({...job, items});
}

function release() {
  if (queue.hold) view.notice('');
  queue.hold = 0;
}

const isReadable = item => item.file.slice(0, 1).arrayBuffer().then(() => true, () => false);

// ---- thumbnails ----

const worker = {thread: null, next: 0, waiting: new Map()};

/** The address of a small copy of an image; '' for what the browser cannot read. */
export function thumbnail(file) {
  if (!worker.thread) {
    worker.thread = new Worker('thumbnail.js');
    worker.thread.onmessage = ({data}) => {
      worker.waiting.get(data.id)(data.blob ? URL.createObjectURL(data.blob) : '');
      worker.waiting.delete(data.id);
    };
    worker.thread.onerror = () => {  // out of memory, at worst; the next image has a new worker
      for (const done of worker.waiting.values()) done('');
      worker.waiting.clear();
      worker.thread = null;
    };
  }
  return new Promise(done => {
    worker.waiting.set(++worker.next, done);
    worker.thread.postMessage({id: worker.next, file});
  });
}
