// Asks every second how far the run has come. What is drawn comes from the server as it stands.
'use strict';
const at = id => document.getElementById(id);
const two = n => String(n).padStart(2, '0');
const count = n => n.toLocaleString('en');
const fixed = x => x == null ? 'none' : x.toFixed(4);  // JSON has no infinity
function clock(seconds) {
  const s = Math.max(0, Math.round(seconds));
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
                   : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
/// "312 of 1,800 images, 85 a second, about 0:18 left"
function pace({done, total, unit, seconds}, withTime = true) {
  let text = `${count(done)} of ${count(total)} ${unit}`;
  if (seconds < 0.5 || done === 0) return text;
  const rate = done / seconds;
  text += `, ${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))} a second`;
  return withTime && done < total ? `${text}, about ${clock((total - done) / rate)} left` : text;
}

const titles = {features: 'Images and features', training: 'Training', evaluation: 'Evaluation',
  report: 'Report'};
function stages(run) {
  at('stages').replaceChildren(...Object.keys(titles).map(stage => {
    const item = document.createElement('li');
    const seconds = run.stages[stage];
    item.textContent = titles[stage] + (seconds === undefined ? '' : ` ${clock(seconds)}`);
    if (stage === run.stage && !run.finished) item.setAttribute('aria-current', 'step');
    return item;
  }));
}
function say(text) {  // only what is new is read out
  if (at('stage').textContent !== text) at('stage').textContent = text;
}

/// "45 %, 0:12 so far, about 1:20 left"; where training may stop early "at most 1:20 left"
function wholeText(run) {
  if (run.finished) return `${clock(run.seconds)} in all`;
  const left = run.left == null ? '' :
    `, ${run.may_stop_early ? 'at most' : 'about'} ${clock(run.left)} left`;
  return `${Math.floor(run.share * 100)} %, ${clock(run.seconds)} so far${left}` +
    (left && run.later ? ` in this phase, then ${run.later} epochs of another` : '');
}
/// Of one of a stage's tasks, and of all of them where there are several.
function taskText(task, work) {
  if (!work || work.total <= task.total) return `${task.task}: ${pace(task)}`;
  const left = work.left == null ? '' : `, about ${clock(work.left)} left`;
  return `${task.task}: ${pace(task, false)}; in all ${count(work.done)} of ${count(work.total)}${left}`;
}
function progress(run) {
  const {now, task, work} = run;
  at('whole').value = run.finished ? 1 : run.share;
  at('whole-text').textContent = wholeText(run);
  at('task').textContent = 'This stage';
  if (run.stage === 'training' && now) {
    at('task').textContent = `Epoch ${now.epoch}`;
    at('bar').value = now.done / now.images;
    at('status').textContent = `epoch ${now.epoch} of ${run.epochs}: ` +
      pace({done: now.done, total: now.images, unit: 'images', seconds: now.seconds}) +
      `${now.done === now.images ? ', validating' : ''}; loss ${fixed(now.loss)}, accuracy ${fixed(now.accuracy)}`;
  } else if (task) {
    const {done, total} = work ?? task;
    at('bar').value = total ? done / total : 0;
    at('status').textContent = taskText(task, work);
  } else {
    at('bar').value = 0;
    at('status').textContent = '';
  }
}

async function piece(path, into) {
  at(into).innerHTML = await (await fetch(path, {cache: 'no-store'})).text();
}
async function finish({report, path, best_epoch, test_accuracy}) {
  say(`Done: best epoch ${best_epoch}` +
    (test_accuracy == null ? '' : `, test accuracy ${fixed(test_accuracy)}`) + '.');
  at('status').textContent = 'training has ended';
  at('bar').value = 1;
  at('path').textContent = path;
  if (report) {
    // The program ends now: the page keeps the report.
    const text = await (await fetch('report.html', {cache: 'no-store'})).blob();
    at('report').href = URL.createObjectURL(text);
    at('report').hidden = false;
  }
  await fetch('goodbye', {cache: 'no-store'}).catch(() => {});  // it may have gone already
}

let epochs = -1, gallery = -1, ended = false, failures = 0;
async function refresh() {
  try {
    const run = await (await fetch('run.json', {cache: 'no-store'})).json();
    stages(run);
    progress(run);
    if (!run.finished) say(titles[run.stage] ? `${titles[run.stage]} …` : 'Waiting for the run to begin …');
    if (run.best)
      at('best').textContent = `best: epoch ${run.best.epoch}, ` +
        `validation accuracy ${fixed(run.best.val_accuracy)}` +
        (run.best.why ? ` (${run.best.why})` : '');
    if (run.history.length && run.history.length !== epochs) {
      epochs = run.history.length;
      await piece('curves', 'charts');
    }
    if (run.gallery !== gallery) {
      gallery = run.gallery;
      await piece('mistakes', 'mistakes');
    }
    ended = Boolean(run.finished);
    if (ended) return await finish(run.finished);
    failures = 0;
    // Near the end more often, not to miss it.
    setTimeout(refresh, run.stage === 'evaluation' || run.stage === 'report' ? 250 : 1000);
  } catch {
    if (ended) return;
    if (++failures < 3) return setTimeout(refresh, 500);
    say('The run has ended, or was stopped.');
    at('status').textContent = 'training has ended, or was stopped';
  }
}
refresh();
