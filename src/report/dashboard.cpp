#include "graft/dashboard.h"

#include <chrono>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/fail.h"
#include "base/limits.h"
#include "report/html.h"
#include "report/loopback_server.h"

namespace graft {
namespace {

constexpr int kThreads = 3;  // of the server

constexpr std::string_view kPage = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>@TITLE@</title>
<link rel="icon" href="data:,">
<style>
:root{color-scheme:light dark;--fg:#1c1e21;--bg:#fff;--dim:#5f6670;--line:#d9dce1;--box:#f5f6f8;
--train:#0072b2;--val:#d55e00}
@media(prefers-color-scheme:dark){:root{--fg:#e4e6ea;--bg:#16181b;--dim:#9aa1ab;--line:#363a41;
--box:#1f2226;--train:#56b4e9;--val:#e69f00}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1rem;margin:.2rem 0}
.dim{color:var(--dim)}
progress{width:100%;height:.8rem;accent-color:var(--train)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem;
margin-top:1rem}
.charts section{background:var(--box);border-radius:8px;padding:.6rem .8rem}
svg{width:100%;height:auto;display:block}
text{font:13px system-ui,sans-serif;fill:currentColor}
</style>
</head>
<body>
<h1>@TITLE@</h1>
<p id="status" role="status">waiting for the first step …</p>
<progress id="bar" max="1" value="0" aria-label="this epoch"></progress>
<p id="best" class="dim"></p>
<div class="charts" id="charts"></div>
<script>
'use strict';
const W = 640, H = 300, L = 56, R = 12, T = 12, B = 34;
const specs = [
  ['Loss', ['loss', 'val_loss']], ['Accuracy', ['accuracy', 'val_accuracy']],
  ['Learning rate', ['learning_rate']]];
const names = {loss: 'training', val_loss: 'validation', accuracy: 'training',
  val_accuracy: 'validation', learning_rate: ''};
function clock(s) {
  s = Math.round(s);
  const two = n => String(n).padStart(2, '0');
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`
                   : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
function element(name, attributes, text) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  if (text !== undefined) e.textContent = text;
  return e;
}
function chart(title, keys, run) {
  const section = document.createElement('section');
  const heading = document.createElement('h2');
  heading.textContent = title;
  section.append(heading);
  const svg = element('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img'});
  const last = run.history.at(-1);
  svg.append(element('title', {}, title + keys.map(
    k => `, ${names[k]} ${last[k].toPrecision(4)}`).join('') + ` at epoch ${last.epoch}`));
  const all = run.history.flatMap(r => keys.map(k => r[k])).filter(Number.isFinite);
  let low = Math.min(...all), high = Math.max(...all);
  const least = 1e-9 * Math.max(1, Math.abs(high));
  if (high - low < least) { low -= Math.max(0.5, least); high += Math.max(0.5, least); }
  const x = e => L + (run.epochs > 1 ? (e - 1) / (run.epochs - 1) : 0) * (W - L - R);
  const y = v => T + (high - v) / (high - low) * (H - T - B);
  for (let i = 0; i <= 4; i++) {
    const v = low + (high - low) * i / 4;
    svg.append(element('line', {x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: 'currentColor',
      'stroke-opacity': 0.15}));
    svg.append(element('text', {x: L - 6, y: y(v) + 4, 'text-anchor': 'end'},
      Number(v.toPrecision(3))));
  }
  const step = Math.max(1, Math.ceil(run.epochs / 10));
  for (let e = 1; e <= run.epochs; e += step)
    svg.append(element('text', {x: x(e), y: H - 14, 'text-anchor': 'middle'}, e));
  keys.forEach((k, i) => {
    const colour = i ? 'var(--val)' : 'var(--train)';
    const points = run.history.map(r => `${x(r.epoch).toFixed(1)},${y(r[k]).toFixed(1)}`);
    svg.append(element('polyline', {points: points.join(' '), fill: 'none', stroke: colour,
      'stroke-width': 2.5}));
    if (names[k]) {
      const label = element('text', {x: L + 8 + i * 90, y: T + 12}, names[k]);
      label.style.fill = colour;
      svg.append(label);
    }
    if (points.length === 1)
      svg.append(element('circle', {cx: x(1), cy: y(run.history[0][k]), r: 3.5, fill: colour}));
  });
  section.append(svg);
  return section;
}
let shown = -1;
async function refresh() {
  let run;
  try {
    run = await (await fetch('run.json', {cache: 'no-store'})).json();
  } catch {
    document.getElementById('status').textContent = 'training has ended, or was stopped';
    return;
  }
  const now = run.now;
  if (now) {
    const rate = now.done / Math.max(now.seconds, 1e-3);
    const left = (run.epochs - now.epoch + 1 - now.done / now.images) * now.images / rate;
    document.getElementById('status').textContent =
      `epoch ${now.epoch} of ${run.epochs}, ${now.done} of ${now.images} images, ` +
      `${rate.toFixed(0)} a second, loss ${now.loss.toFixed(4)}, ` +
      `accuracy ${now.accuracy.toFixed(4)}, about ${clock(left)} left`;
    document.getElementById('bar').value = now.done / now.images;
  }
  if (run.best)
    document.getElementById('best').textContent = `best: epoch ${run.best.epoch}, ` +
      `validation accuracy ${run.best.val_accuracy.toFixed(4)}`;
  if (run.history.length !== shown && run.history.length) {
    shown = run.history.length;
    document.getElementById('charts').replaceChildren(
      ...specs.map(([title, keys]) => chart(title, keys, run)));
  }
  setTimeout(refresh, 1000);
}
refresh();
</script>
</body>
</html>
)html";

/// The page under a title, which may hold anything, the place holder too.
std::string page_with(const std::string& title) {
  constexpr std::string_view kTitle = "@TITLE@";
  std::string page;
  std::string_view rest = kPage;
  for (size_t at = rest.find(kTitle); at != std::string_view::npos; at = rest.find(kTitle)) {
    page += rest.substr(0, at);
    page += html::escape(title);
    rest.remove_prefix(at + kTitle.size());
  }
  return page.append(rest);
}

nlohmann::json to_json(const EpochRecord& r) {
  return {{"epoch", r.epoch},
          {"loss", r.loss},
          {"accuracy", r.accuracy},
          {"val_loss", r.val_loss},
          {"val_accuracy", r.val_accuracy},
          {"learning_rate", r.learning_rate}};
}

}  // namespace

struct Dashboard::State {
  std::mutex mutex;  // guards what follows
  nlohmann::json run = {{"epochs", 0}, {"history", nlohmann::json::array()}};
  std::chrono::steady_clock::time_point epoch_start;
  int epoch = 0;
  LoopbackServer server;  // last: its threads read the rest
};

Dashboard::Dashboard(int port, const std::string& title) : state_(std::make_unique<State>()) {
  constexpr int kMaxPort = 65'535;
  if (port < 1 || port > kMaxPort)
    fail(ErrorKind::usage, "`dashboard`: port {} is not from 1 to {}", port, kMaxPort);
  if (startable_threads(kThreads) < kThreads)
    fail(ErrorKind::io,
         "`dashboard`: the limit on processes (ulimit -u, or a control group's) leaves no threads "
         "for it; raise the limit, or leave it out");
  State& s = *state_;
  s.server.Get("/", [page = page_with(title)](const httplib::Request&, httplib::Response& reply) {
    reply.set_header("Content-Security-Policy",
                     "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                     "img-src data:; connect-src 'self'");
    reply.set_content(page, "text/html; charset=utf-8");
  });
  s.server.Get("/run.json", [&s](const httplib::Request&, httplib::Response& reply) {
    reply.set_header("Cache-Control", "no-store");
    const std::lock_guard lock(s.mutex);
    reply.set_content(s.run.dump(), "application/json");
  });
  if (!s.server.start(port))
    fail(ErrorKind::io, "`dashboard`: port {} of 127.0.0.1 cannot be had; choose another", port);
}

Dashboard::~Dashboard() = default;

void Dashboard::past_epoch(const EpochRecord& record, bool best) { epoch(record, best); }

void Dashboard::begin(int epochs) {
  const std::lock_guard lock(state_->mutex);
  state_->run["epochs"] = epochs;
}

void Dashboard::step(const EpochProgress& p) {
  const std::lock_guard lock(state_->mutex);
  if (p.epoch != state_->epoch) {
    state_->epoch = p.epoch;
    state_->epoch_start = std::chrono::steady_clock::now();
  }
  const std::chrono::duration<double> taken =
      std::chrono::steady_clock::now() - state_->epoch_start;
  state_->run["now"] = {{"epoch", p.epoch}, {"done", p.done},         {"images", p.images},
                        {"loss", p.loss},   {"accuracy", p.accuracy}, {"seconds", taken.count()}};
}

void Dashboard::epoch(const EpochRecord& record, bool best) {
  const std::lock_guard lock(state_->mutex);
  state_->run["history"].push_back(to_json(record));
  if (best) state_->run["best"] = to_json(record);
}

}  // namespace graft
