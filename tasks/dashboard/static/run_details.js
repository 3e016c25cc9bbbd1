// What is known of the selection, or with none of the run: texts of users are texts here, never markup.

import {
  CountsBar, Refusal, Status, Time, duration, getJson, html, link, number, page, useEffect, useState,
} from "./lib.js";
import { NO_ITEM } from "./run_model.js";
import { progressOf } from "./run_graph.js";
import { Why } from "./run_why.js";

/** What a task logs while it runs is looked for so often. */
const LOGS_MS = 2000;

export function Details({ run, version, selection, select, showItems, place }) {
  const row = selection ? run.find(selection.action, selection.item) : -1;
  const state = row < 0 ? "" : `${run.status[row]} ${run.attempt[row]}`;
  const name = selection ? run.actions[selection.action].name : "";
  const [found, setFound] = useState(null);
  const logsMore = found?.task?.status === "running" && found.name === name && found.item === selection?.item;
  useEffect(() => {
    if (!selection) return undefined;
    const stop = new AbortController();
    setFound((before) => (before && before.name === name && before.item === selection.item ? before : null));
    const read = () => getJson(link("api", "run", page.run, "task"), { action: name, item: selection.item }, { signal: stop.signal })
      .then((task) => setFound({ name, item: selection.item, task }))
      .catch((error) => error instanceof Refusal && setFound({ name, item: selection.item, error: error.message }));
    read();
    // what it logs meanwhile is no change of the run
    const timer = logsMore ? setInterval(() => document.hidden || read(), LOGS_MS) : 0;
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  }, [name, selection?.item, state, logsMore]);

  const title = selection ? (selection.item === NO_ITEM ? name : `${name}[${selection.item}]`) : "This run";
  return html`<aside class="flow-card run-details" ref=${place} tabindex="-1" aria-labelledby="run-details-title">
    <header class="run-card-head">
      <h3 id="run-details-title" class="run-plain">${title}</h3>
      ${selection && html`<button type="button" class="btn btn-sm btn-outline-secondary" aria-label="Close the details" title="Escape" onClick=${() => select(null)}>×</button>`}
    </header>
    <div class="run-details-body">
      ${!selection ? html`<${OfRun} run=${run} select=${select} />`
        : found?.error ? html`<p class="flow-note is-error">${found.error}</p>`
        : !found?.task ? html`<p class="flow-faint">…</p>`
        : html`<${OfTask} run=${run} version=${version} task=${found.task} selection=${selection} showItems=${showItems} select=${select} />`}
    </div>
  </aside>`;
}

function OfTask({ run, task, selection, showItems, select }) {
  const isEach = task.item === null && run.actions[selection.action].for_each;
  const progress = progressOf(run, selection.action);
  const live = run.find(selection.action, selection.item);
  const needs = run.actions[selection.action].needs;
  const { definition } = task;
  return html`
    <p class="run-details-status"><${Status} status=${isEach ? progress.status : task.status} />
      ${task.attempt > 1 && html`<span class="run-badge">attempt ${task.attempt}</span>`}</p>
    ${task.error && html`<${ErrorOf} error=${task.error} />`}
    ${task.status !== "succeeded" && html`<${Why} run=${run} selection=${selection} state=${task.status} />`}
    ${isEach && progress.size !== null && html`<div class="run-block">
      <${CountsBar} counts=${{ succeeded: progress.succeeded, failed: progress.failed, skipped: progress.skipped, running: progress.running,
        pending: Math.max(0, progress.size - progress.done - progress.running) }} />
      <p class="run-items">${number(progress.done)} of ${number(progress.size)} items have ended${progress.failed ? html`, <b class="is-failed">${number(progress.failed)} failed</b>` : ""}</p>
      <button type="button" class="btn btn-sm btn-outline-secondary" onClick=${() => showItems(selection.action)}>Show its items</button>
    </div>`}
    <dl class="run-list">
      ${fact("Waited", task.waited_us === null || task.waited_us === undefined ? null : duration(task.waited_us / 1e6))}
      ${fact("Began", task.started_at && html`<${Time} at=${task.started_at} />`)}
      ${fact("Ended", task.finished_at && html`<${Time} at=${task.finished_at} />`)}
      ${fact("Ran", task.ran_us === null || task.ran_us === undefined ? (live >= 0 && run.start[live] >= 0 && task.status === "running" ? "still runs" : null) : duration(task.ran_us / 1e6))}
      ${fact("Worker", task.worker)}
      ${fact("Queue", task.queue)}
      ${fact("Calls", html`<code>${definition.uses}</code>`)}
      ${needs.length > 0 && fact("Needs", needs.map((place, number_) => html`${number_ ? ", " : ""}<button type="button" class="run-link" onClick=${() => select({ action: place, item: NO_ITEM }, "details")}>${run.actions[place].name}</button>`))}
      ${fact("Rule", definition.trigger_rule)}
    </dl>
    ${!isEach && html`<${Inputs} action=${task.action} item=${selection.item} state=${task.status} />`}
    ${task.result !== null && task.result !== undefined && html`<${Text} title="Result" text=${pretty(task.result)} open note=${cut(task.result, task.result_bytes)} />`}
    ${task.logs?.length > 0 && html`<${Text} title="Logs" text=${task.logs.map(logLine).join("\n")} open note=${task.more_logs && `The first ${number(task.logs.length)} lines; parallelizer logs shows all.`} />`}
    <${Text} title="Definition" text=${JSON.stringify(definition, null, 2)} open=${task.result === undefined || task.result === null} />`;
}

/** What the task was called with, or why nobody can say. */
function Inputs({ action, item, state }) {
  const [found, setFound] = useState(null);
  const key = `${action} ${item}`;
  useEffect(() => {
    const stop = new AbortController();
    getJson(link("api", "run", page.run, "inputs"), { action, item }, { signal: stop.signal })
      .then((inputs) => setFound({ key, ...inputs }))
      .catch((error) => error instanceof Refusal && setFound({ key, text: null, why: error.message }));
    return () => stop.abort();
  }, [key, state]);
  if (found?.key !== key || (found.text === null && !found.why)) return null;
  if (found.text === null) return html`<p class="flow-faint run-no-inputs">Inputs: not known, ${found.why}.</p>`;
  const part = found.bytes > found.text.length * 4 || found.text.length >= 16_384 ? `The beginning of ${number(found.bytes)} bytes. ` : "";
  return html`<${Text} title="Inputs" text=${found.text} open
    note=${`${part}Computed now from the definition, the payload and the results before it; what looks like a secret is masked.`} />`;
}

function OfRun({ run, select }) {
  const { info } = run;
  return html`
    ${info.error && html`<${ErrorOf} error=${info.error} />`}
    <${Why} run=${run} selection=${null} state=${info.status} select=${select} />
    <dl class="run-list">
      ${fact("Run", html`<code class="run-id">${info.id}</code>`)}
      ${fact("Workflow", `${info.workflow}@${info.version}`)}
      ${fact("Accepted", html`<${Time} at=${info.created_at} />`)}
      ${fact("Ended", info.finished_at && html`<${Time} at=${info.finished_at} />`)}
      ${fact("Priority", info.priority || null)}
      ${fact("Trace", info.trace_id && html`<code class="run-id">${info.trace_id}</code>`)}
    </dl>
    ${info.payload !== null && html`<${Text} title="Payload" text=${pretty(info.payload)} open note=${cut(info.payload, info.payload_size)} />`}
    ${info.output && html`<${Text} title="Output" text=${pretty(info.output)} open />`}
    <p class="flow-faint run-tip-line">Choose an action, a bar or a row to see it here. <kbd>j</kbd> <kbd>k</kbd> go through the rows, <kbd>?</kbd> shows all keys.</p>`;
}

function ErrorOf({ error }) {
  const { type, message, ...rest } = typeof error === "object" ? error : { message: String(error) };
  return html`<div class="run-error"><b>${type ?? "Error"}</b><pre>${typeof message === "string" ? message : JSON.stringify(message)}</pre>
    ${Object.keys(rest).length > 0 && html`<details><summary>More</summary><pre>${JSON.stringify(rest, null, 2)}</pre></details>`}</div>`;
}

function Text({ title, text, note, open = false }) {
  return html`<details class="run-text" open=${open}><summary>${title}</summary>
    <pre tabindex="0">${text}</pre>${note && html`<p class="flow-faint">${note}</p>`}</details>`;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const logLine = ({ at, attempt, level, message, fields }) =>
  [clock.format(at), attempt > 1 ? `attempt ${attempt}` : "", level, message, fields ? JSON.stringify(fields) : ""].filter(Boolean).join("  ");

const fact = (name, value) => value !== null && value !== undefined && value !== false && value !== "" && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // it was cut
  }
}

const cut = (text, size) => (size > text.length * 4 || (size > 65_536 && text.length >= 65_000) ? `The beginning of ${number(size)} bytes.` : null);
