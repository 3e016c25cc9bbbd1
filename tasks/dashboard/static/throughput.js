// Throughput: how much the fleet does, how long branches wait, what fails; the last minutes, hour or day.

import {
  duration, Fragment, html, link, LiveMark, number, shortNumber, showPage, useKeys, useState, useStream, withQuery,
} from "./lib.js";
import { Chart } from "./chart.js";

const SPANS = [["300", "5 minutes"], ["3600", "1 hour"], ["86400", "24 hours"]];
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const perSecond = (value) => (value === null || value === undefined ? "–" : value > 0 && value < 10 ? value.toFixed(1) : shortNumber(value));

function Throughput() {
  const [span, setSpan] = useState(() => {
    const given = new URLSearchParams(location.search).get("span");
    return SPANS.some(([value]) => value === given) ? given : SPANS[0][0];
  });
  const [seen, setSeen] = useState(null);
  const [trouble, setTrouble] = useState("");
  const state = useStream(withQuery(link("stream", "throughput"), { span }), {
    throughput(news) { setTrouble(""); setSeen(news); },
    trouble({ message }) { setTrouble(message); },
  });
  useKeys({});

  function choose(value) {
    window.history.replaceState(null, "", withQuery(location.pathname, { span: value }));
    setSpan(value);
  }

  return html`
    <header class="flow-head"><div class="flow-title" aria-hidden="true">Throughput</div>
      <div class="flow-switch" role="group" aria-label="Time span">${SPANS.map(([value, words]) => html`<button type="button"
        aria-pressed=${value === span} onClick=${() => choose(value)}>${words}</button>`)}</div>
      <${LiveMark} state=${state} trouble=${trouble ? "Out of date" : ""} /></header>
    ${trouble && html`<p class="flow-note is-error" role="alert">${trouble}</p>`}
    ${seen && html`<${Fragment}><${Cards} seen=${seen} /><${Charts} seen=${seen} /><${Repairs} repairs=${seen.repairs} /></${Fragment}>`}`;
}

const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

function Cards({ seen }) {
  const { now, totals, points } = seen;
  const newest = points.findLast((point) => point.branches !== null);
  const failed = totals?.failed ?? 0;
  const share = totals?.branches ? ` · ${((100 * failed) / totals.branches).toFixed(failed ? 1 : 0)} %` : "";
  const card = (label, value, more, look = "") => html`<article class=${`metric-card ${look}`}>
    <p class="metric-label">${label}</p><p class="metric-value">${value}</p><p class="flow-faint flow-small flow-more">${more}</p></article>`;
  return html`<section class="metric-grid" aria-label="Now">
    ${card("Branches per second", perSecond(newest?.branches), totals ? `${counted(totals.branches, "branch", "branches")}, ${counted(totals.runs, "run")} in this time` : "no sample yet", "metric-card-success")}
    ${card("Start wait, p95", duration(newest?.p95), `p50 ${duration(newest?.p50)} · in this time p95 ${duration(totals?.p95)}`)}
    ${card("Permits in use", number(now.permits), `${counted(now.slots, "slot")} of ${counted(now.workers, "worker")} · ${number(now.waiting)} ${now.waiting === 1 ? "run waits" : "runs wait"}`, "metric-card-active")}
    ${card("Failed branches", number(failed), `in this time${share} · ${counted(totals?.retried ?? 0, "further attempt")}`, "metric-card-danger")}
  </section>`;
}

function Charts({ seen }) {
  const { points, time, span } = seen;
  const from = time - span * 1000;
  // where nothing waited there is nothing to tell, but no gap
  const column = (name) => points.filter((point) => point[name] !== null || point.branches === null).map((point) => [point.at, point[name]]);
  const marks = points.filter((point, place) => place && point.workers !== points[place - 1].workers).map((point) => point.at);
  const chart = (title, series, y) => html`<section class="flow-card flow-plot">
    <h2>${title}</h2>
    <ul class="flow-legend">${series.map(({ words, colour, name, dashed }) => html`<li><span class=${dashed ? "is-dashed" : ""} style=${{ color: `var(${colour})` }} aria-hidden="true"></span>${words} <strong>${y(points.at(-1)?.[name] ?? null)}</strong></li>`)}</ul>
    <${Chart} series=${series.map((one) => ({ ...one, points: column(one.name) }))} from=${from} to=${time} marks=${marks} height=${170}
      axis=${{ x: (at) => clock.format(at), y }} label=${`${title}: ${series.map(({ words, name }) => summary(words, column(name), y)).join("; ")}`} />
  </section>`;
  return html`<div class="flow-plots">
    ${chart("Branches per second", [
      { name: "branches", words: "ended", colour: "--flow-succeeded", fill: true },
      { name: "failed", words: "failed", colour: "--flow-failed" },
    ], perSecond)}
    ${chart("Wait before a branch starts (items aside)", [
      { name: "p95", words: "p95", colour: "--flow-wait", fill: true },
      { name: "p50", words: "p50", colour: "--flow-running" },
    ], (value) => duration(value))}
    ${chart("Permits in use", [
      { name: "permits", words: "in use", colour: "--flow-running", fill: true },
      { name: "slots", words: "slots", colour: "--flow-queued", dashed: true },
    ], shortNumber)}
    ${chart("Waiting runs", [{ name: "waiting", words: "for a slot, or queued", colour: "--flow-suspended", fill: true }], shortNumber)}
    ${chart("Lag of the record", [{ name: "lag", words: "oldest status update not in PostgreSQL yet", colour: "--flow-timed_out", fill: true }], (value) => duration(value))}
  </div>
  <p class="flow-faint flow-small">Dotted lines: a worker came or went. Samples are ten seconds apart, made by the workers; a gap means that none ran.</p>`;
}

function summary(words, points, format) {
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  if (!values.length) return `${words}: nothing`;
  return `${words} from ${format(Math.min(...values))} to ${format(Math.max(...values))}, now ${format(values.at(-1))}`;
}

/** What was amiss, by the cause that it is counted under. */
const REPAIRED = {
  worker: "workers gone", lease: "runners at work gone", message: "messages gone", completion: "completions sent again",
  end: "ends found late", header: "runs whose runners never came", runner: "runs without a runner", permit: "runs passed over at a limit",
  admission: "queued runs passed over", "wake-up": "wake-ups missing", "time limit": "time limits missing",
};

function Repairs({ repairs }) {
  const found = Object.entries(repairs).sort(([, one], [, other]) => other - one);
  return html`<section class="flow-card" aria-labelledby="flow-repairs"><h2 id="flow-repairs">Repaired since the start</h2>
    ${found.length ? html`<ul class="flow-facts">${found.map(([cause, count]) => html`<li><span class="flow-faint">${REPAIRED[cause] ?? cause}</span> <strong>${number(count)}</strong></li>`)}</ul>`
    : html`<p class="flow-facts flow-faint">Nothing was lost, and nothing stood still.</p>`}</section>`;
}

showPage(Throughput);
