// The table of tasks: some thirty rows in the page, however many there are.

import { Icon, Status, WORDS, duration, html, number, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { CODE, NO_ITEM, STATUSES, isBad } from "./run_model.js";

const ROW = 34;
const CARD = 62;
const MOST_SHOWN = 15;
/** Browsers cap the height of an element; more rows than this are not shown at once. */
export const MOST_ROWS = 400_000;
const AROUND = 6;
const SHOWS = [["all", "All"], ["failed", "Failed"], ["running", "Running"], ["slowest", "Slowest"]];

/** `rows`: rows of the run to show; `more`: a function that gets further ones, or null. */
export function Table({ run, rows, now, selection, select, filter, setFilter, counts, more, loading }) {
  const scroller = useRef(null);
  const search = useRef(null);
  const [top, setTop] = useState(0);
  const [narrow, setNarrow] = useState(false);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setNarrow(entry.contentRect.width < 560));
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  const high = narrow ? CARD : ROW;
  const height = Math.min(Math.max(rows.length, 3), narrow ? 8 : MOST_SHOWN) * high;
  const first = Math.max(0, Math.floor(top / high) - AROUND);
  const last = Math.min(rows.length, Math.ceil((top + height) / high) + AROUND);
  useEffect(() => {
    if (more && !loading && last >= rows.length - 20) more();
  }, [last, rows.length, more, loading]);

  const chosen = selection ? run.find(selection.action, selection.item) : -1;
  const place = chosen < 0 ? -1 : rows.indexOf(chosen);
  // what is chosen elsewhere comes into sight here, without a move of the page
  useLayoutEffect(() => {
    const box = scroller.current;
    if (place < 0) return;
    const at = place * high;
    if (at < box.scrollTop || at + high > box.scrollTop + box.clientHeight) box.scrollTop = Math.max(0, at - height / 3);
  }, [chosen, filter.show, high]);

  const shown = [];
  for (let at = first; at < last; at += 1) {
    shown.push(html`<${narrow ? Card : Row} key=${rows[at]} run=${run} row=${rows[at]} at=${at} now=${now} high=${high}
      selected=${rows[at] === chosen} select=${select} />`);
  }
  const of = filter.of >= 0 ? run.actions[filter.of]?.name : null;
  return html`<section class="flow-card run-table" aria-labelledby="run-table-title">
    <header class="run-card-head">
      <h3 id="run-table-title">Tasks</h3>
      <div class="run-chips" role="group" aria-label="Which tasks">
        ${SHOWS.map(([name, word]) => html`<button type="button" class=${`run-chip is-${name}`} aria-pressed=${filter.show === name}
          onClick=${() => setFilter({ show: name })}>${word}${counts[name] !== undefined && html` <b>${number(counts[name])}</b>`}</button>`)}
        ${of !== null && html`<button type="button" class="run-chip" aria-pressed="true" aria-label=${`Only ${of}; show all actions`}
          onClick=${() => setFilter({ of: -1 })}>${of} <span aria-hidden="true">×</span></button>`}
      </div>
      <div class="run-tools">
        <input ref=${search} id="run-search" class="form-control form-control-sm run-search" type="search" value=${filter.text} disabled=${run.paged}
          placeholder="ship or ship[17]" aria-label="Action, or action[item]" onInput=${(event) => setFilter({ text: event.target.value })} />
      </div>
    </header>
    <div class="run-grid" role="grid" aria-label="Tasks" aria-rowcount=${rows.length + 1} aria-colcount="7">
      <div class="run-row run-grid-head" role="row" aria-rowindex="1">
        ${["Task", "Status", "Attempt", "Worker", "Began", "Ran", "Waited"].map((word) => html`<span role="columnheader">${word}</span>`)}
      </div>
      <div class="run-scroll" role="rowgroup" tabindex="0" aria-label="Rows" ref=${scroller} style=${{ height: `${height}px` }}
        onScroll=${(event) => setTop(event.target.scrollTop)}>
        <div role="presentation" style=${{ height: `${rows.length * high}px` }}>${shown}</div>
        ${rows.length === 0 && html`<p class="run-none">${loading ? "…" : "No such tasks."}</p>`}
      </div>
    </div>
    <p class="run-under flow-faint">${number(rows.length)} ${rows.length === 1 ? "task" : "tasks"}${run.paged ? `, more come as you scroll; ${number(run.most)} or more in all` : ""}${
      rows.length >= MOST_ROWS ? "; no more are shown at once, use a filter" : ""}</p>
  </section>`;
}

function Row({ run, row, at, now, high, selected, select }) {
  const { status, name, worker, ran, waited, started } = facts(run, row, now);
  return html`<div class=${`run-row ${selected ? "is-selected" : ""}`} role="row" aria-rowindex=${at + 2} aria-selected=${selected}
    style=${{ transform: `translateY(${at * high}px)`, height: `${high}px` }} onClick=${() => select({ action: run.action[row], item: run.item[row] }, "table")}>
    <span role="gridcell" class="run-name" title=${name}>${name}</span>
    <span role="gridcell"><${Status} status=${status} /></span>
    <span role="gridcell">${run.attempt[row] || ""}</span>
    <span role="gridcell" class="flow-faint run-cut" title=${worker}>${shortWorker(worker)}</span>
    <span role="gridcell">${started}</span>
    <span role="gridcell">${ran}</span>
    <span role="gridcell">${waited}</span>
  </div>`;
}

function Card({ run, row, at, now, high, selected, select }) {
  const { status, name, worker, ran, waited, started } = facts(run, row, now);
  return html`<div class=${`run-row run-task-card ${selected ? "is-selected" : ""}`} role="row" aria-rowindex=${at + 2} aria-selected=${selected}
    style=${{ transform: `translateY(${at * high}px)`, height: `${high}px` }} onClick=${() => select({ action: run.action[row], item: run.item[row] }, "table")}>
    <span role="gridcell" class="run-name">${name}</span>
    <span role="gridcell"><${Status} status=${status} /></span>
    <span role="gridcell" class="run-card-facts flow-faint">${[started && `at ${started}`, ran && `ran ${ran}`, waited && `waited ${waited}`, run.attempt[row] > 1 && `attempt ${run.attempt[row]}`, shortWorker(worker)].filter(Boolean).join(" · ")}</span>
  </div>`;
}

function facts(run, row, now) {
  const ran = run.ran(row, now);
  const start = run.start[row];
  const waited = run.item[row] === NO_ITEM ? start - run.readyAt(row) : NaN;
  const worker = run.workers[run.worker[row]] ?? "";
  return {
    status: STATUSES[run.status[row]], name: run.name(row), worker,
    ran: Number.isNaN(ran) ? "" : duration(Math.max(0, ran) / 1000),
    waited: Number.isNaN(waited) ? "" : duration(Math.max(0, waited) / 1000),
    started: Number.isNaN(start) ? "" : `+${duration(Math.max(0, start) / 1000)}`,
  };
}

/** Without the number that tells a worker from those of the same name before it; the details have all of it. */
const shortWorker = (worker) => worker.replace(/#[^#]*$/, "");

/** How many tasks each filter would show, as far as the page knows. */
export function countsOf(run) {
  const by = new Uint32Array(STATUSES.length);
  for (let row = 0; row < run.count; row += 1) by[run.status[row]] += 1;
  let failed = 0;
  by.forEach((count, code) => {
    if (isBad(code)) failed += count;
  });
  return run.paged ? {} : { all: run.count, failed, running: by[CODE.running] };
}
