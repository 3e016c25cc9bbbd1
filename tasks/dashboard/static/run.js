// The page of one run: graph, timeline, table and details of one selection, which is in the URL.

import {
  CountsBar, LiveMark, Refusal, Status, Time, announce, canRetry, confirm, duration, getJson, html, link, mayAct, number,
  observeServer, page, postJson, serverNow, showPage, toast, useCallback, useEffect, useKeys, useMemo, useReducer, useRef, useState,
  useStream, useTick, WORDS,
} from "./lib.js";
import { Details } from "./run_details.js";
import { Graph } from "./run_graph.js";
import { NO_ITEM, Run } from "./run_model.js";
import { MOST_ROWS, Table, countsOf } from "./run_table.js";
import { Timeline } from "./run_timeline.js";

const api = (...parts) => link("api", "run", page.run, ...parts);
/** A run that changes faster than frames can tell is read anew, this often at most. */
const REREAD_MS = 3000;
/** A run that ended longer ago does not change any more. */
const SETTLED_MS = 60_000;
const PAGE_ROWS = 400;

function Page() {
  const [run, setRun] = useState(null);
  const [error, setError] = useState(null);
  const [trouble, setTrouble] = useState("");
  const [ended, setEnded] = useState(false);
  const [version, bump] = useReducer((count) => count + 1, 0);
  const newest = useRef(null);
  const reading = useRef(null);
  const took = useRef(0);

  const read = useCallback(() => {
    if (reading.current) return reading.current;
    const began = performance.now();
    reading.current = getJson(api())
      .then((picture) => {
        observeServer(picture.now);
        took.current = performance.now() - began;
        if (newest.current) newest.current.load(picture);
        else newest.current = new Run(picture);
        const settled = picture.run.finished_at !== null && picture.now - picture.run.finished_at > SETTLED_MS;
        setEnded((before) => before || settled);
        setRun(newest.current);
        setError(null);
        bump();
      })
      .catch((refusal) => {
        if (!(refusal instanceof Refusal)) throw refusal;
        setError(refusal);
      })
      .finally(() => {
        reading.current = null;
      });
    return reading.current;
  }, []);
  useEffect(() => {
    read();
  }, []);

  // the mark of the first picture; afterwards the stream knows where it is
  const stream = run && !ended ? api("events", run.firstMark ??= run.mark) : null;
  const state = useStream(stream, {
    frame: (frame, mark) => {
      observeServer(frame.now);
      setTrouble("");
      const before = run.info.status;
      run.apply(frame, mark);
      if (run.info.status !== before) announce(`The run is ${WORDS[run.info.status]}`);
      bump();
    },
    gap: read,
    end: () => {
      setEnded(true);
      read();
    },
    trouble: ({ message }) => setTrouble(message),
  });
  useEffect(() => {
    if (!run?.behind || ended) return undefined;
    const timer = setInterval(() => document.hidden || read(), Math.max(REREAD_MS, took.current * 5));
    return () => clearInterval(timer);
  }, [run?.behind, ended]);

  if (error && !run) {
    return html`<div class="flow-note is-error" role="alert"><p>${error.message}</p>
      <button type="button" class="btn btn-sm btn-outline-secondary" onClick=${read}>Try again</button> <a href=${link()}>All runs</a></div>`;
  }
  if (!run) return html`<p class="flow-faint" role="status">Reading the run…</p>`;
  return html`<${Whole} run=${run} version=${version} state=${ended ? "ended" : state} trouble=${trouble || (error?.message ?? "")} reread=${read} />`;
}

function Whole({ run, version, state, trouble, reread }) {
  const [selection, setSelection] = useState(() => selectionIn(run, new URLSearchParams(location.search)));
  const [filter, setFilter_] = useState(() => filterIn(run, new URLSearchParams(location.search)));
  const [by, setBy] = useState(() => (new URLSearchParams(location.search).get("by") === "action" ? "action" : "slot"));
  const [window_, setWindow] = useState(null);
  const details = useRef(null);
  const fitted = useRef(null);
  const now = useCallback(() => serverNow() - run.origin, [run]);
  const setFilter = (change) => setFilter_((before) => ({ ...before, ...change }));

  const select = useCallback((chosen) => {
    setSelection((before) => (before && chosen && before.action === chosen.action && before.item === chosen.item ? before : chosen));
  }, []);

  useEffect(() => {
    const query = new URLSearchParams();
    if (selection) {
      query.set("action", run.actions[selection.action].name);
      if (selection.item !== NO_ITEM) query.set("item", selection.item);
    }
    if (filter.show !== "all") query.set("show", filter.show);
    if (filter.of >= 0) query.set("of", run.actions[filter.of].name);
    if (by !== "slot") query.set("by", by);
    const text = query.toString();
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  }, [selection, filter.show, filter.of, by]);
  useEffect(() => {
    document.title = `${run.info.workflow}: ${WORDS[run.info.status]} · Flower`;
  }, [run.info.status]);

  const paged = usePages(run, filter, version);
  const rows = useMemo(
    () => (run.paged ? paged.rows : run.view(filter, now())),
    [run, filter, run.paged ? paged.rows : version],
  );
  const counts = useMemo(() => countsOf(run), [run, version]);

  const step = (by_) => {
    const at = selection ? rows.indexOf(run.find(selection.action, selection.item)) : -1;
    const row = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? (by_ > 0 ? 0 : rows.length - 1) : at + by_))];
    if (row !== undefined) select({ action: run.action[row], item: run.item[row] });
  };
  useKeys({
    j: [() => step(1), "next row"],
    k: [() => step(-1), "row before"],
    Enter: [() => (selection ? details.current?.focus() : false), "go to the details"],
    Escape: [() => select(null), "choose nothing"],
    f: [() => fitted.current?.(), "whole graph"],
    "/": [() => document.getElementById("run-search")?.focus(), "find a task"],
  });
  const showItems = (action) => {
    setFilter({ of: action, show: "all", text: "" });
    document.querySelector(".run-table")?.scrollIntoView({ block: "nearest" });
  };

  return html`<div class="run-page">
    <${Head} run=${run} version=${version} state=${state} trouble=${trouble} now=${now} reread=${reread} />
    <div class="run-columns">
      <div class="run-main">
        <${Graph} run=${run} version=${version} selection=${selection} select=${select} fitted=${fitted} />
        <${Timeline} run=${run} version=${version} now=${now} selection=${selection} select=${select} by=${by} setBy=${setBy} window_=${window_} setWindow=${setWindow} />
        <${Table} run=${run} rows=${rows} now=${now()} selection=${selection} select=${select} filter=${filter} setFilter=${setFilter} counts=${counts}
          more=${run.paged ? paged.more : null} loading=${paged.loading} />
      </div>
      <${Details} run=${run} version=${version} selection=${selection} select=${select} showItems=${showItems} place=${details} />
    </div>
  </div>`;
}

/** Rows of a run that is too large to be held whole, a page at a time. */
function usePages(run, filter) {
  const [pages, setPages] = useState({ rows: [], next: null, over: false, loading: false });
  const asked = useRef(null);
  const ask = (before) => {
    const stop = new AbortController();
    asked.current = stop;
    setPages({ ...before, loading: true });
    getJson(api("tasks"), {
      limit: PAGE_ROWS, after: before.next && JSON.stringify(before.next), action: filter.of >= 0 ? run.actions[filter.of].name : "",
      status: { failed: ["failed", "timed_out", "upstream_failed"], running: ["running"] }[filter.show],
      by: filter.show === "slowest" ? "slowest" : "",
    }, { signal: stop.signal })
      .then((page_) => {
        const rows = before.rows.concat(page_.rows.map((values) => run.put(...values)));
        setPages({ rows, next: page_.next, over: !page_.next || rows.length >= MOST_ROWS, loading: false });
      })
      .catch((error) => error.name === "AbortError" || setPages({ ...before, over: true, loading: false }));
  };
  useEffect(() => {
    if (!run.paged) return undefined;
    ask({ rows: [], next: null, over: false });
    return () => asked.current?.abort();
  }, [run, run.paged, filter.show, filter.of]);
  return { ...pages, more: pages.over || pages.loading || !pages.next ? null : () => ask(pages) };
}

function selectionIn(run, query) {
  const action = run.actions.findIndex(({ name }) => name === query.get("action"));
  const item = query.has("item") ? Number(query.get("item")) : NO_ITEM;
  return action < 0 || !Number.isInteger(item) || item < NO_ITEM ? null : { action, item };
}

function filterIn(run, query) {
  const show = ["failed", "running", "slowest"].includes(query.get("show")) ? query.get("show") : "all";
  return { show, of: run.actions.findIndex(({ name }) => name === query.get("of")), text: "" };
}

const ACTS = {
  pause: { word: "Pause", text: "Nothing more of it begins; what runs goes on to its end." },
  resume: { word: "Resume", text: "What is ready goes on at once." },
  cancel: { word: "Cancel", danger: true, text: "Nothing more of it begins, and what runs is told to end. This can't be taken back." },
  retry: { word: "Retry", text: "Another run takes over what succeeded, and runs all else." },
};

function Head({ run, version, state, trouble, now, reread }) {
  const { info } = run;
  const isOver = info.finished_at !== null;
  useTick(1, !isOver);
  const [, redraw] = useReducer((count) => count + 1, 0);
  const started = info.started_at ?? info.created_at;
  const seconds = ((isOver ? info.finished_at : serverNow()) - started) / 1000;
  const running = run.progress.reduce((sum, one) => sum + one[5], 0);
  const counts = { ...info.counts };
  if (running) counts.running = running;
  if (info.ready) counts.pending = info.ready;
  const act = async (name) => {
    const { word, text, danger } = ACTS[name];
    const left = info.in_use ? ` ${number(info.in_use)} ${info.in_use === 1 ? "branch runs" : "branches run"} at this moment.` : "";
    if (!(await confirm({ title: `${word} this run of ${info.workflow}?`, text: text + left, act: `${word} the run`, danger }))) return;
    try {
      const { answers } = await postJson(link("api", "act"), { action: name, ids: [info.id] });
      toast(answers[0].message, ["unknown", "refused"].includes(answers[0].found));
      if (answers[0].retry) {
        info.retried_as = answers[0].retry;
        redraw();
      } else reread();
    } catch (refusal) {
      toast(refusal.message, true);
    }
  };
  const order = ["failed", "timed_out", "cancelled", "running", "succeeded", "skipped", "upstream_failed"];
  return html`<header class="run-head">
    <nav aria-label="Where this is" class="run-crumbs"><a href=${link()}>Workflows</a> <span aria-hidden="true">/</span> <span>${info.workflow}</span></nav>
    <div class="run-title">
      <h2>${info.workflow}<span class="flow-faint">@${info.version}</span></h2>
      <div class="run-status" role="status"><${Status} status=${info.status} /></div>
      ${state !== "ended" && html`<${LiveMark} state=${state} trouble=${trouble} />`}
      <div class="run-acts">
        ${mayAct && !isOver && html`
          ${info.status === "paused"
            ? html`<button type="button" class="btn btn-outline-secondary" onClick=${() => act("resume")}>Resume</button>`
            : html`<button type="button" class="btn btn-outline-secondary" onClick=${() => act("pause")}>Pause</button>`}
          <button type="button" class="btn btn-outline-danger" onClick=${() => act("cancel")}>Cancel</button>`}
        ${mayAct && canRetry(info) && html`<button type="button" class="btn btn-outline-secondary" onClick=${() => act("retry")}>Retry failed</button>`}
        ${!mayAct && !isOver && html`<span class="flow-faint" title=${page.whyReadOnly}>read-only</span>`}
      </div>
    </div>
    <dl class="run-facts">
      <div><dt>Began</dt><dd><${Time} at=${started} /></dd></div>
      <div><dt>${isOver ? "Took" : "Runs for"}</dt><dd>${duration(seconds)}</dd></div>
      ${["retry_of", "retried_as"].filter((one) => info[one]).map((one) => html`<div><dt>${one === "retry_of" ? "Retry of" : "Retried as"}</dt>
        <dd><a class="flow-mono" href=${link("run", info[one])} title=${info[one]}>${info[one].slice(0, 8)}</a></dd></div>`)}
      ${info.limit !== null && html`<div><dt>Permits</dt><dd>${number(info.in_use)} of ${number(info.limit)}
        <span class="run-meter" aria-hidden="true"><i style=${{ width: `${Math.min(100, (100 * info.in_use) / Math.max(info.limit, 1))}%` }}></i></span></dd></div>`}
      ${info.ready ? html`<div><dt>Ready, and wait</dt><dd>${number(info.ready)}</dd></div>` : null}
      ${info.deferred ? html`<div><dt>Wait for a time</dt><dd>${number(info.deferred)}</dd></div>` : null}
      <div class="run-counts"><dt>Tasks</dt><dd>
        <span class="run-count-words">${order.filter((status) => counts[status]).map((status) => html`<span class=${`flow-status is-${status}`}><b>${number(counts[status])}</b> ${WORDS[status]}</span>`)}</span>
        <${CountsBar} counts=${counts} /></dd></div>
    </dl>
    ${info.waits_for.length > 0 && html`<ul class="flow-note run-waits">${info.waits_for.map((why) => html`<li>${why}</li>`)}</ul>`}
  </header>`;
}

showPage(Page);
