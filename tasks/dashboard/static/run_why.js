// Why the selection, or the run, stands as it does: causes in words, and where the time of a run went.

import { Refusal, duration, getJson, html, link, number, page, useEffect, useState, useTick } from "./lib.js";
import { NO_ITEM } from "./run_model.js";

/** How often it is asked again while the run goes on. */
const AGAIN_MS = 3000;
const MOST_CAUSES = 4;
const PARTS = {
  running: "running", permits: "waiting for permits", queueing: "queueing", retries: "retries", rate_limits: "rate limits",
  overhead: "overhead",
};

export function Why({ run, selection, state, select }) {
  const [found, setFound] = useState(null);
  const goesOn = run.info.finished_at === null;
  useTick(AGAIN_MS / 1000, goesOn);
  const action = selection ? run.actions[selection.action].name : "";
  const item = selection && selection.item !== NO_ITEM ? selection.item : "";
  const key = `${action} ${item}`;
  useEffect(() => {
    const stop = new AbortController();
    getJson(link("api", "run", page.run, "why"), { action, item }, { signal: stop.signal })
      .then((why) => setFound({ key, why }))
      .catch((error) => error instanceof Refusal && setFound({ key, why: null }));
    return () => stop.abort();
  }, [key, state, goesOn ? Math.floor(Date.now() / AGAIN_MS) : 0]);
  if (!found?.why || found.key !== key) return null;
  const { causes, time_spent: spent } = found.why;
  const told = causes.filter(({ code }) => code !== "succeeded");
  return html`${told.length > 0 && html`<section class="run-why" aria-label="Why">
      <h4>Why</h4>
      <ul>${told.slice(0, MOST_CAUSES).map((cause) => html`<li>${cause.sentence}.${cause.remedy && html`<div class="flow-faint">${cause.remedy}</div>`}</li>`)}</ul>
      ${told.length > MOST_CAUSES && html`<p class="flow-faint">and ${number(told.length - MOST_CAUSES)} more</p>`}
    </section>`}
    ${spent && html`<${Spent} run=${run} spent=${spent} select=${select} />`}`;
}

function Spent({ run, spent, select }) {
  const parts = Object.entries(spent.shares).filter(([, share]) => share >= 0.005).sort(([, a], [, b]) => b - a);
  const words = parts.map(([part, share]) => `${Math.round(share * 100)} % ${PARTS[part] ?? part}`).join(", ");
  const place = (task) => {
    const [, name, item] = task.match(/^(.*?)(?:\[(\d+)\])?$/);
    const action = run.actions.findIndex((one) => one.name === name);
    return action < 0 ? null : { action, item: item === undefined ? NO_ITEM : Number(item) };
  };
  return html`<section class="run-why" aria-label="Where the time went">
    <h4>Where the time went</h4>
    <div class="run-shares" role="img" aria-label=${words}>${parts.map(([part, share]) => html`<i class=${`is-${part}`} style=${{ flexGrow: share }}></i>`)}</div>
    <ul class="run-share-words">${parts.map(([part, share]) => html`<li><i class=${`run-swatch is-${part}`}></i>${Math.round(share * 100)} % ${PARTS[part] ?? part}</li>`)}</ul>
    <details class="run-text"><summary>Critical path, ${duration(spent.total_seconds)}</summary>
      <ol class="run-path">${spent.path.map((step) => {
        const target = place(step.task);
        return html`<li>${target ? html`<button type="button" class="run-link" onClick=${() => select(target, "details")}>${step.task}</button>` : step.task}
          <span class="flow-faint"> ${duration(step.running)}</span></li>`;
      })}</ol></details>
  </section>`;
}
