// The list of runs: filters in the URL, pages by place, live counts, and what may be done to several runs at once.

import {
  announce, canRetry, confirm, CountsBar, duration, FINAL, getJson, html, Icon, link, LiveMark, mayAct, number, observeServer, page,
  postJson, serverNow, showPage, Status, Time, toast, useEffect, useKeys, useMemo, useRef, useState, useStream, useTick,
  withQuery, WORDS,
} from "./lib.js";

const STATUSES = ["running", "queued", "suspended", "paused", "failed", "timed_out", "cancelled", "succeeded"];
const TIMES = [["", "Any time"], ["900", "Last 15 minutes"], ["3600", "Last hour"], ["86400", "Last 24 hours"], ["604800", "Last 7 days"]];
const ACTIONS = {
  cancel: { word: "Cancel", doing: "Cancelling", fits: (run) => !FINAL.has(run.status), danger: true,
    text: "Nothing more of them begins, and what runs is told to end. This can't be taken back." },
  pause: { word: "Pause", doing: "Pausing", fits: (run) => !FINAL.has(run.status) && run.status !== "paused",
    text: "Branches that run go on to their end, and nothing more begins until they are resumed." },
  resume: { word: "Resume", doing: "Resuming", fits: (run) => run.status === "paused",
    text: "They go on where they stopped." },
  retry: { word: "Retry", doing: "Retrying", fits: canRetry,
    text: "What succeeded in them is taken over, and all else runs again. The list shows each retry as a new run." },
};
const AT_ONCE = 20;

// Filters

function filtersOfUrl() {
  const given = new URLSearchParams(location.search);
  return {
    status: given.getAll("status").filter((one) => STATUSES.includes(one)),
    workflow: given.get("workflow") ?? "",
    search: given.get("search") ?? "",
    last: given.get("last") ?? "",
    before: given.get("before") ?? "",
  };
}

const sameFilters = (one, other) => withQuery("", one) === withQuery("", other);
const asked = ({ last, ...rest }) => ({ ...rest, since: last ? Math.round(serverNow() - Number(last) * 1000) : "" });

function useFilters() {
  const [filters, setFilters] = useState(filtersOfUrl);
  useEffect(() => {
    const back = () => setFilters(filtersOfUrl());
    window.addEventListener("popstate", back);
    return () => window.removeEventListener("popstate", back);
  }, []);
  function change(some) {
    const next = { ...filters, before: "", ...some };
    if (sameFilters(next, filters)) return;
    history.pushState(null, "", withQuery(location.pathname, next));
    setFilters(next);
  }
  return [filters, change];
}

// The page

function Runs() {
  const [filters, change] = useFilters();
  const [found, setFound] = useState(null);
  const [trouble, setTrouble] = useState("");
  const [live, setLive] = useState(null);
  const [selected, setSelected] = useState(() => new Set());
  const [focus, setFocus] = useState(-1);
  const [round, again] = useState(0);
  const names = useNames();
  const search = useRef(null);

  useEffect(() => {
    const abort = new AbortController();
    setTrouble("");
    getJson(link("api", "runs"), asked(filters), { signal: abort.signal }).then(
      (answer) => {
        observeServer(answer.now);
        setFound({ ...answer, since: asked(filters).since });
        setSelected(new Set());
        setFocus(-1);
        setLive((before) => before && { ...before, newer: 0 });
        announce(answer.runs.length ? `${answer.runs.length} runs${answer.more ? ", and more" : ""}` : "no runs");
      },
      (error) => error.name === "AbortError" || setTrouble(error.message),
    );
    return () => abort.abort();
  }, [filters, round]);

  const stream = found && withQuery(link("stream", "runs"), {
    ...asked(filters), before: "", since: found.since,
    top: filters.before ? "" : found.runs[0]?.place ?? `${found.now * 1000},`,
    ids: found.runs.map((run) => run.id).join(","),
  });
  const path = useMemo(() => stream, [found]);
  const state = useStream(path, {
    runs(news) {
      setTrouble("");
      setLive(news);
      const changed = new Map(news.runs.map((run) => [run.id, run]));
      setFound((before) => before && { ...before, runs: before.runs.map((run) => changed.get(run.id) ?? run) });
    },
    trouble({ message }) { setTrouble(message); },
  });

  const runs = found?.runs ?? [];
  const chosen = runs.filter((run) => selected.has(run.id));
  useTick(1, runs.some((run) => run.started && !run.finished));
  const move = (by) => setFocus((before) => Math.max(0, Math.min(runs.length - 1, before + by)));
  useKeys({
    "/": [() => search.current?.focus(), "search"],
    j: [() => move(1), "next run"],
    k: [() => move(-1), "run before"],
    Enter: [() => (runs[focus] ? (location.href = link("run", runs[focus].id)) : false), "open the run"],
    x: [() => (runs[focus] && mayAct ? toggle(runs[focus].id) : false), "select the run"],
    n: [() => again((count) => count + 1), "show new runs"],
  });

  function toggle(id) {
    setSelected((before) => {
      const next = new Set(before);
      if (!next.delete(id)) next.add(id);
      return next;
    });
  }

  async function act(name, all) {
    const { word, doing, fits, text, danger } = ACTIONS[name];
    const some = all.filter(fits);
    const what = some.length === 1 ? `1 run` : `${number(some.length)} runs`;
    const others = all.length - some.length;
    const yes = await confirm({
      title: some.length === 1 ? `${word} this run of ${some[0].workflow}?` : `${word} ${what}?`,
      text: `${some.length === 1 ? text.replace("them", "it").replace("they are", "it is").replace("They go on where they", "It goes on where it") : text}${others ? ` ${number(others)} others that are selected stay as they are.` : ""}`,
      act: some.length === 1 ? word : `${word} ${what}`,
      danger,
    });
    if (!yes) return;
    const answers = [];
    try {
      for (let start = 0; start < some.length; start += AT_ONCE) {
        announce(`${doing} ${number(start)} of ${number(some.length)}`);
        const ids = some.slice(start, start + AT_ONCE).map((run) => run.id);
        answers.push(...(await postJson(link("api", "act"), { action: name, ids })).answers);
      }
    } catch (error) {
      toast(`${word}: ${error.message}`, true);
    }
    if (!answers.length) return;
    const done = answers.filter((answer) => answer.found === "done").length;
    toast(answers.length === 1 ? answers[0].message : `${word}: ${number(done)} of ${what} done; the others were so before, or have ended`);
    setSelected(new Set());
  }

  return html`
    <header class="flow-head">
      <div class="flow-title" aria-hidden="true">Workflows</div>
      ${found && html`<${LiveMark} state=${state} trouble=${trouble && state === "live" ? "Out of date" : ""} />`}
    </header>
    <${Filters} filters=${filters} change=${change} names=${names} search=${search} />
    <${Chips} filters=${filters} change=${change} live=${live} />
    ${trouble && html`<p class="flow-note is-error" role="alert">${trouble}</p>`}
    ${!mayAct && html`<p class="flow-faint flow-small">${page.whyReadOnly}</p>`}
    ${live?.newer > 0 && html`<button type="button" class="flow-new" onClick=${() => again((count) => count + 1)}>
      ${live.newer >= live.most_newer ? `${number(live.most_newer)} or more` : number(live.newer)} new – show</button>`}
    ${chosen.length > 0 && html`<div class="flow-selection" role="toolbar" aria-label="Selected runs">
      <strong>${number(chosen.length)} selected</strong>
      ${Object.entries(ACTIONS).map(([name, { word, fits, danger }]) => {
        const count = chosen.filter(fits).length;
        return html`<button type="button" class=${`btn btn-sm ${danger ? "btn-outline-danger" : "btn-outline-secondary"}`}
          disabled=${!count} onClick=${() => act(name, chosen)}>${word} ${count || ""}</button>`;
      })}
      <button type="button" class="btn btn-sm btn-link" onClick=${() => setSelected(new Set())}>Clear</button>
    </div>`}
    ${found && (runs.length ? html`<${Table} ...${{ runs, selected, setSelected, toggle, focus, act }} />` : html`<${Nothing} filters=${filters} change=${change} />`)}
    <nav class="flow-pages" aria-label="Pages">
      ${filters.before && html`<button type="button" class="btn btn-outline-secondary" onClick=${() => change({ before: "" })}>Newest</button>`}
      ${found?.more && html`<button type="button" class="btn btn-outline-secondary" onClick=${() => { change({ before: runs.at(-1).place }); window.scrollTo(0, 0); }}>Older</button>`}
    </nav>`;
}

function useNames() {
  const [names, setNames] = useState([]);
  useEffect(() => {
    getJson(link("api", "workflows")).then((answer) => setNames(answer.names), () => {});
  }, []);
  return names;
}

function Filters({ filters, change, names, search }) {
  const changed = (name) => (event) => change({ [name]: event.target.value.trim() });
  const isSet = filters.search || filters.workflow || filters.last || filters.status.length;
  return html`<form class="flow-filters" role="search" aria-label="Runs" onSubmit=${(event) => event.preventDefault()}>
    <label><span class="visually-hidden">Search by id</span>
      <${Field} field=${search} type="search" placeholder="Run id, run_id or task id" value=${filters.search} onChange=${changed("search")} /></label>
    <label><span class="visually-hidden">Workflow</span>
      <${Field} list="flow-names" placeholder="Any workflow" value=${filters.workflow} onChange=${changed("workflow")} /></label>
    <datalist id="flow-names">${names.map((name) => html`<option value=${name}></option>`)}</datalist>
    <label><span class="visually-hidden">Started</span>
      <select class="form-select" value=${filters.last} onChange=${changed("last")}>
        ${TIMES.map(([value, words]) => html`<option value=${value} selected=${value === filters.last}>${words}</option>`)}
      </select></label>
    ${isSet ? html`<button type="button" class="btn btn-link" onClick=${() => change({ search: "", workflow: "", last: "", status: [] })}>Clear</button>` : null}
  </form>`;
}

/** A field of text; what is being written stays when the page is rendered meanwhile. */
function Field({ field, value, onChange, ...others }) {
  const [draft, setDraft] = useState(null);
  const done = (event) => {
    setDraft(null);
    onChange(event);
  };
  return html`<input ref=${field} class="form-control" value=${draft ?? value} maxlength="300" spellcheck="false"
    onInput=${(event) => setDraft(event.target.value)} onChange=${done} ...${others} />`;
}

function Chips({ filters, change, live }) {
  const toggle = (status) => change({
    status: filters.status.includes(status) ? filters.status.filter((one) => one !== status) : [...filters.status, status],
  });
  return html`<div class="flow-chips" role="group" aria-label="Statuses">
    ${STATUSES.map((status) => {
      const count = live?.counts[status];
      const words = count === undefined ? "" : count >= live.most_counted ? `${number(live.most_counted)}+` : number(count);
      return html`<button type="button" class=${`flow-chip is-${status} ${count ? "" : "is-empty"}`}
        aria-pressed=${filters.status.includes(status)} onClick=${() => toggle(status)}>
        <${Icon} name=${status} /><span>${WORDS[status]}</span> <span class="flow-count">${words}</span></button>`;
    })}
  </div>`;
}

function Nothing({ filters, change }) {
  const isSet = filters.search || filters.workflow || filters.last || filters.status.length || filters.before;
  return html`<div class="flow-card flow-nothing">
    <p><strong>${isSet ? "No run is like that." : "No run has been started yet."}</strong></p>
    ${isSet ? html`<button type="button" class="btn btn-outline-secondary" onClick=${() => change({ search: "", workflow: "", last: "", status: [] })}>Show all runs</button>`
      : html`<p class="flow-faint">Start one: <code>parallelizer run workflow.yaml</code>, or <code>run_workflow.delay(…)</code></p>`}
  </div>`;
}

function Table({ runs, selected, setSelected, toggle, focus, act }) {
  const all = runs.every((run) => selected.has(run.id));
  const box = useRef(null);
  useEffect(() => {
    if (box.current) box.current.indeterminate = selected.size > 0 && !all;
  });
  return html`<div class="flow-card"><table class="flow-table flow-runs">
    <thead><tr>
      ${mayAct && html`<th class="flow-narrow" scope="col"><input ref=${box} class="form-check-input" type="checkbox" aria-label="Select all on this page" checked=${all}
        onChange=${() => setSelected(all ? new Set() : new Set(runs.map((run) => run.id)))} /></th>`}
      <th scope="col">Status</th><th scope="col">Workflow</th><th scope="col">Run</th><th scope="col">Started</th>
      <th scope="col" class="flow-right">Took</th><th scope="col">Tasks</th><th scope="col">Waits for</th>
      ${mayAct && html`<th scope="col"><span class="visually-hidden">Actions</span></th>`}
    </tr></thead>
    <tbody>${runs.map((run, place) => html`<${Row} key=${run.id} ...${{ run, toggle, act }} isSelected=${selected.has(run.id)} hasFocus=${place === focus} />`)}</tbody>
  </table></div>`;
}

function Row({ run, isSelected, hasFocus, toggle, act }) {
  const element = useRef(null);
  useEffect(() => {
    if (hasFocus) element.current.scrollIntoView({ block: "nearest" });
  }, [hasFocus]);
  const path = link("run", run.id);
  const open = (event) => {
    if (event.target.closest("a, button, input, label") || String(getSelection())) return;
    location.href = path;
  };
  const took = run.started === null ? null : ((run.finished ?? Math.max(serverNow(), run.started)) - run.started) / 1000;
  return html`<tr ref=${element} class=${`${isSelected ? "is-selected" : ""} ${hasFocus ? "has-focus" : ""}`} onClick=${open}>
    ${mayAct && html`<td class="flow-narrow"><input class="form-check-input" type="checkbox" aria-label=${`Select run ${run.id}`}
      checked=${isSelected} onChange=${() => toggle(run.id)} /></td>`}
    <td><${Status} status=${run.status} /></td>
    <td class="flow-name">${run.workflow}<span class="flow-faint">@${run.version}</span></td>
    <td><a class="flow-mono" href=${path} title=${run.id}>${run.id.slice(0, 8)}</a></td>
    <td data-label="started"><${Time} at=${run.started ?? run.created} /></td>
    <td class="flow-right" data-label="took">${duration(took)}</td>
    <td class="flow-tasks"><${Tasks} run=${run} /></td>
    <td class="flow-why">${run.waits_for.join("; ")}</td>
    ${mayAct && html`<td class="flow-acts">
      ${["pause", "resume", "cancel", "retry"].filter((name) => ACTIONS[name].fits(run)).map((name) => html`<button type="button"
        class=${`flow-act ${ACTIONS[name].danger ? "is-danger" : ""}`} title=${ACTIONS[name].word} aria-label=${`${ACTIONS[name].word} run ${run.id}`}
        onClick=${() => act(name, [run])}><${Icon} name=${{ pause: "paused", resume: "running", cancel: "cancelled", retry: "retry" }[name]} /></button>`)}
    </td>`}
  </tr>`;
}

function Tasks({ run }) {
  const total = Object.values(run.counts).reduce((sum, count) => sum + count, 0);
  const bad = (run.counts.failed ?? 0) + (run.counts.timed_out ?? 0);
  if (!total) return html`<span class="flow-faint">–</span>`;
  return html`<span class="flow-progress"><${CountsBar} counts=${run.counts} />
    <span class="flow-total">${bad > 0 && html`<span class="flow-bad">${number(bad)} failed</span> of `}${number(total)}</span></span>`;
}

showPage(Runs);
