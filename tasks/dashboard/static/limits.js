// Limits: what is limited, how much of it is in use, who holds it, who waits and who has it next; live.

import {
  duration, Fragment, html, link, LiveMark, number, showPage, useKeys, useRef, useState, useStream, useTick, withQuery,
} from "./lib.js";
import { Chart } from "./chart.js";

const SECONDS = 120;
/** So many are shown of one limit, at most. */
const MOST_HOLDERS = 100;
const MOST_WAITING = 20;
const MEANING = {
  global: "branches at once, of all workflows",
  sessions: "runs at once, of all workflows",
  workflow: "branches at once, of this workflow",
  key: "branches at once, with this concurrency key",
  session: "branches at once, of this run",
};

function meaning(name) {
  if (name.startsWith("sessions:workflow:")) return "runs at once, of this workflow";
  if (name.startsWith("sessions:key:")) return "runs at once, with this concurrency key";
  return MEANING[name.split(":", 1)[0]];
}

function Limits() {
  const [opened, setOpened] = useState(() => new URLSearchParams(location.search).get("open") ?? "");
  const [all, setAll] = useState(null);
  const [trouble, setTrouble] = useState("");
  const history = useRef(new Map());
  const state = useStream(withQuery(link("stream", "limits"), { open: opened }), {
    limits(news) {
      const now = Date.now();
      for (const limit of [...news.limits, ...news.sessions]) remember(history.current, limit, now);
      setTrouble("");
      setAll(news);
    },
    trouble({ message }) { setTrouble(message); },
  });
  useTick(1);
  useKeys({});

  function open(name) {
    const next = name === opened ? "" : name;
    window.history.replaceState(null, "", withQuery(location.pathname, { open: next }));
    setOpened(next);
  }

  const table = (title, limits, of) => html`<section class="flow-card" aria-labelledby=${`flow-${of}`}>
    <h2 id=${`flow-${of}`}>${title}</h2>
    <table class="flow-table flow-limits">
      <thead><tr><th scope="col">Limit</th><th scope="col" class="flow-use">In use</th><th scope="col">Last 2 minutes</th>
        <th scope="col" class="flow-right">Waiting</th><th scope="col" class="flow-right">Longest wait</th><th scope="col">Set by</th></tr></thead>
      <tbody>${limits.map((limit) => html`<${Limit} key=${limit.name} ...${{ limit, open }} points=${history.current.get(limit.name) ?? []}
        detail=${opened === limit.name ? all.opened : null} isOpen=${opened === limit.name} />`)}</tbody>
    </table></section>`;

  return html`
    <header class="flow-head"><div class="flow-title" aria-hidden="true">Limits</div><${LiveMark} state=${state} trouble=${trouble ? "Out of date" : ""} /></header>
    ${trouble && html`<p class="flow-note is-error" role="alert">${trouble}</p>`}
    ${all && html`<${Fragment}>
      ${table("Limits of the fleet, workflows and keys", all.limits, "fleet")}
      ${all.left_out > 0 && html`<p class="flow-faint flow-small">${number(all.left_out)} more, for which fewer wait, are not shown; <code>parallelizer limits</code> has all.</p>`}
      ${all.sessions.length > 0 && table("Runs at their own limit", all.sessions, "runs")}
      <${Queues} queues=${all.queues} />
      ${all.rates.length > 0 && html`<${Rates} rates=${all.rates} />`}
    </${Fragment}>`}`;
}

function remember(history, { name, in_use: inUse }, now) {
  const points = history.get(name) ?? [];
  history.set(name, points);
  points.push([now, inUse]);
  while (points[0][0] < now - SECONDS * 1000) points.shift();
}

function Limit({ limit, points, detail, isOpen, open }) {
  const { name, limit: most, in_use: inUse, waiting, workflow } = limit;
  const now = Date.now();
  const used = most ? Math.min(1, inUse / most) : 0;
  const isFull = most !== null && inUse >= most;
  const series = [{ points, colour: isFull ? "--flow-wait" : "--flow-running", fill: true }];
  if (most) series.push({ points: [[now - SECONDS * 1000, most], [now, most]], colour: "--flow-queued", dashed: true });
  const top = Math.max(most ?? 0, ...points.map(([, value]) => value), 1) * 1.1;
  const title = name.startsWith("session:") ? `${workflow || "run"} ${name.slice(8, 16)}` : name;
  return html`<${Fragment}>
    <tr class=${isOpen ? "is-selected" : ""}>
      <td class="flow-name"><button type="button" class="flow-opens" aria-expanded=${isOpen} onClick=${() => open(name)}>
        <span class="flow-caret" aria-hidden="true"></span>${title}</button><small class="flow-faint">${meaning(name)}</small></td>
      <td class="flow-use"><span class="flow-number">${number(inUse)}${most === null ? "" : html`<span class="flow-faint"> of ${number(most)}</span>`}</span>
        ${most === null ? html`<small class="flow-faint">no limit</small>` : html`<span class="flow-meter" aria-hidden="true"><span class=${isFull ? "is-full" : ""} style=${{ width: `${used * 100}%` }}></span></span>`}</td>
      <td class="flow-spark"><${Chart} series=${series} from=${now - SECONDS * 1000} to=${now} most=${top} height=${36} /></td>
      <td class="flow-right" data-label="waiting">${waiting ? html`<strong>${number(waiting)}</strong>` : "0"}</td>
      <td class="flow-right" data-label="longest wait">${limit.longest_wait_seconds === null ? "" : duration(limit.longest_wait_seconds)}</td>
      <td class="flow-faint" data-label="set by">${limit.set_by}</td>
    </tr>
    ${isOpen && html`<tr class="flow-detail"><td colspan="6">${detail ? html`<${Detail} detail=${detail} inUse=${inUse} waiting=${waiting} />` : "…"}</td></tr>`}
  </${Fragment}>`;
}

const Run = ({ run }) => html`<a href=${link("run", run.id)} title=${run.id}>${run.workflow || "run"} <span class="flow-mono">${run.id.slice(0, 8)}</span></a>`;

function Detail({ detail, inUse, waiting }) {
  const { holders, line } = detail;
  return html`<div class="flow-columns">
    <section><h3>Held by${holders.length >= MOST_HOLDERS && inUse > MOST_HOLDERS ? ` (the first ${holders.length} of ${number(inUse)})` : ""}</h3>
      ${holders.length ? html`<table class="flow-table"><thead><tr><th scope="col">Run</th><th scope="col">Worker</th><th scope="col" class="flow-right">For</th><th scope="col" class="flow-right">Lease left</th></tr></thead>
      <tbody>${holders.map((holder) => html`<tr><td><${Run} run=${holder} /></td><td class="flow-faint">${holder.worker || (holder.runner ? "on its way" : "")}</td>
        <td class="flow-right">${duration(holder.held_seconds)}</td><td class="flow-right">${holder.lease_seconds === null ? "" : holder.lease_seconds < 0 ? html`<span class="flow-bad">over</span>` : duration(holder.lease_seconds)}</td></tr>`)}</tbody></table>`
      : html`<p class="flow-faint">Nobody.</p>`}</section>
    <section><h3>Next${line.length >= MOST_WAITING && waiting > MOST_WAITING ? ` (the first ${line.length} of ${number(waiting)})` : ""}</h3>
      ${line.length ? html`<ol class="flow-line">${line.map((run) => html`<li><${Run} run=${run} /></li>`)}</ol>` : html`<p class="flow-faint">Nobody waits.</p>`}</section>
  </div>`;
}

function Queues({ queues }) {
  return html`<section class="flow-card" aria-labelledby="flow-queues"><h2 id="flow-queues">Queues</h2>
    ${queues.length ? html`<table class="flow-table flow-limits">
      <thead><tr><th scope="col">Queue</th><th scope="col" class="flow-use">Slots in use</th><th scope="col">Workers</th><th scope="col" class="flow-right">Runs waiting</th><th scope="col">Next</th></tr></thead>
      <tbody>${queues.map((queue) => html`<tr key=${queue.name}>
        <td class="flow-name">${queue.name}${queue.slots === 0 && html`<small class="flow-bad">no worker serves it</small>`}</td>
        <td class="flow-use"><span class="flow-number">${number(queue.in_flight)}<span class="flow-faint"> of ${number(queue.slots)}</span></span>
          <span class="flow-meter" aria-hidden="true"><span class=${queue.in_flight >= queue.slots ? "is-full" : ""} style=${{ width: `${queue.slots ? Math.min(100, (queue.in_flight / queue.slots) * 100) : 0}%` }}></span></span></td>
        <td data-label="workers"><${Workers} workers=${queue.workers} /></td>
        <td class="flow-right" data-label="waiting">${queue.waiting ? html`<strong>${number(queue.waiting)}</strong>` : "0"}</td>
        <td class="flow-nexts">${queue.next.map((run) => html`<${Run} run=${run} /> `)}</td></tr>`)}</tbody></table>`
    : html`<p class="flow-nothing">No worker runs, and nothing waits for one.</p>`}</section>`;
}

function Workers({ workers }) {
  const names = Object.entries(workers);
  const words = names.map(([name, slots]) => `${name}: ${slots}`).join("\n");
  return html`<span title=${words}>${number(names.length)}</span>`;
}

function Rates({ rates }) {
  return html`<section class="flow-card" aria-labelledby="flow-rates"><h2 id="flow-rates">Rate limits</h2>
    <table class="flow-table flow-limits"><thead><tr><th scope="col">Limit</th><th scope="col">The next call may begin</th></tr></thead>
    <tbody>${rates.map(({ name, wait_seconds: wait }) => html`<tr key=${name}><td class="flow-name">${name}</td>
      <td data-label="next call">${wait > 0 ? `in ${duration(wait)}` : "now"}</td></tr>`)}</tbody></table></section>`;
}

showPage(Limits);
