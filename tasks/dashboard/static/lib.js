// What all our pages share: rendering, requests, streams, formats, statuses, keys and dialogs.

import { h, render, Fragment } from "./vendor/preact.mjs";
import {
  useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState,
} from "./vendor/hooks.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
export {
  h, render, Fragment, useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState,
};

// The page

const frame = document.getElementById("flow");

/** What the server says of this page: `base` (path of ours), `user`, `whyReadOnly` (empty: may act), and its own. */
export const page = frame.dataset;
export const mayAct = !page.whyReadOnly;

/** A path of ours: `link("run", id)`; each part is escaped. */
export function link(...parts) {
  return [page.base.replace(/\/$/, ""), ...parts.map(encodeURIComponent)].join("/");
}

/** Show a component as the page; its heading for screen readers stays. */
export function showPage(component) {
  const place = document.createElement("div");
  frame.querySelector("noscript")?.remove();
  frame.append(place);
  render(html`<${Fragment}><${component} /><${Dialogs} /></${Fragment}>`, place);
}

// Requests

/** An answer that is not what was asked for; `status` 0: there was none. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("Flower does not answer", 0);
  }
  let value = null;
  try {
    value = await response.json();
  } catch {
    if (response.ok) throw new Refusal("Flower's answer can't be understood", response.status);
  }
  if (!response.ok) throw new Refusal(value?.error || response.statusText || "refused", response.status);
  return value;
}

/** JSON from a path of ours; `query` may have arrays, and leaves out what is empty. Throws Refusal. */
export function getJson(path, query = {}, { signal } = {}) {
  return answer(withQuery(path, query), { signal, headers: { Accept: "application/json" } });
}

/** Have the server do something; throws Refusal. */
export function postJson(path, body = {}) {
  const token = document.cookie.match(/(?:^|;\s*)_xsrf=([^;]*)/)?.[1] ?? "";
  return answer(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-XSRFToken": decodeURIComponent(token) },
  });
}

export function withQuery(path, query) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") parameters.append(name, one);
    }
  }
  const text = parameters.toString();
  return text ? `${path}?${text}` : path;
}

// Streams

/**
 * Server-sent events for as long as the page is seen: one connection, closed while the tab is hidden (browsers have six
 * for all tabs). `events` maps names to functions of the value and the event's id. `onState` hears "live", "waiting"
 * and "over" (signed out, or gone). Returns a function that ends it.
 */
export function openStream(path, events, onState = () => {}) {
  let source = null;
  let ended = false;
  let lastId = "";

  function open() {
    if (ended || source || document.hidden) return;
    source = new EventSource(withQuery(path, { last_event_id: lastId }));
    source.onopen = () => onState("live");
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        onState("over");
      } else {
        onState("waiting");
      }
    };
    for (const [name, hear] of Object.entries(events)) {
      source.addEventListener(name, (event) => {
        if (event.lastEventId) lastId = event.lastEventId;
        hear(JSON.parse(event.data), event.lastEventId);
      });
    }
  }

  function close() {
    source?.close();
    source = null;
  }

  function look() {
    if (!document.hidden) {
      open();
    } else if (source) {
      close();
      onState("waiting");
    }
  }

  document.addEventListener("visibilitychange", look);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", look);
  open();
  return () => {
    ended = true;
    close();
    document.removeEventListener("visibilitychange", look);
    window.removeEventListener("pagehide", close);
    window.removeEventListener("pageshow", look);
  };
}

/** A stream as a hook; `path` null: none. Returns its state. The functions may change from one rendering to the next. */
export function useStream(path, events) {
  const [state, setState] = useState("waiting");
  const newest = useRef(events);
  newest.current = events;
  useEffect(() => {
    if (!path) return undefined;
    const names = Object.keys(newest.current);
    const hear = Object.fromEntries(names.map((name) => [name, (...given) => newest.current[name](...given)]));
    return openStream(path, hear, setState);
  }, [path]);
  return state;
}

const STREAM_WORDS = { live: "Live", waiting: "Connecting…", over: "Signed out, or stopped" };

/** Whether what is seen is the present. */
export function LiveMark({ state, trouble }) {
  const words = trouble || STREAM_WORDS[state];
  const dot = trouble || state === "over" ? "status-dot-error" : state === "live" ? "status-dot-live" : "";
  return html`<div class="refresh-status" role="status">
    <span class=${`status-dot ${dot}`} aria-hidden="true"></span><span>${words}</span>
    ${state === "over" && html`<a href=${location.href}>Reload</a>`}
  </div>`;
}

// Formats

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value) => (value === null || value === undefined ? "–" : whole.format(value));
export const shortNumber = (value) => (value === null || value === undefined ? "–" : short.format(value));

/** Seconds in words: 850 µs, 12.3 ms, 4.2 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${trimmed(seconds * 1000)} ms`;
  if (seconds < 60) return `${trimmed(seconds)} s`;
  const all = Math.round(seconds);
  if (all < 3600) return joined(Math.floor(all / 60), "min", all % 60, "s");
  if (all < 86400) return joined(Math.floor(all / 3600), "h", Math.floor((all % 3600) / 60), "min");
  return joined(Math.floor(all / 86400), "d", Math.floor((all % 86400) / 3600), "h");
}

const trimmed = (value) => (value < 10 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value)));
const joined = (large, largeUnit, small, smallUnit) =>
  small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

/** A moment in local time, with UTC in the tooltip. `at`: ISO text, or ms since the epoch. */
export function Time({ at }) {
  if (at === null || at === undefined) return html`<span class="flow-faint">–</span>`;
  const moment = new Date(at);
  const words = moment.toDateString() === new Date().toDateString() ? clock.format(moment) : day.format(moment);
  return html`<time datetime=${moment.toISOString()} title=${`${moment.toISOString()} (UTC)`}>${words}</time>`;
}

/** The present by the server, ms: `observeServer(ms)` says what it is. */
let skewMs = 0;
export const serverNow = () => Date.now() + skewMs;
export const observeServer = (ms) => {
  skewMs = ms - Date.now();
};

/** Rendered anew every so many seconds, for what counts time. */
export function useTick(seconds, on = true) {
  const [, tick] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => document.hidden || tick(), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds, on]);
}

// Statuses: an icon, a word and a colour, which says nothing that the others don't

const ICONS = {
  pending: "M8 3.2a4.8 4.8 0 1 0 0 9.6 4.8 4.8 0 0 0 0-9.6Zm0 1.4a3.4 3.4 0 1 1 0 6.8 3.4 3.4 0 0 1 0-6.8Z",
  queued: "M2.5 4h11v1.6h-11ZM2.5 7.2h11v1.6h-11ZM2.5 10.4h7V12h-7Z",
  running: "M4.5 2.8 13 8l-8.5 5.2Z",
  suspended: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8Zm0 1.5a4.7 4.7 0 1 1 0 9.4 4.7 4.7 0 0 1 0-9.4Zm-.7 1.5v3.6l2.8 1.7.7-1.1-2.2-1.3V4.8Z",
  paused: "M4 3h2.8v10H4ZM9.2 3H12v10H9.2Z",
  succeeded: "M13.6 4.3 6.4 12.2 2.4 8.4l1.1-1.2 2.8 2.7 6.1-6.7Z",
  failed: "m3.4 4.6 1.2-1.2L8 6.8l3.4-3.4 1.2 1.2L9.2 8l3.4 3.4-1.2 1.2L8 9.2l-3.4 3.4-1.2-1.2L6.8 8Z",
  cancelled: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8ZM4.6 12.5A4.7 4.7 0 0 1 12.5 4.6ZM11.4 3.5 3.5 11.4a4.7 4.7 0 0 0 7.9-7.9Z",
  timed_out: "M4 1.8h8v1.5l-.7.2v1.7L9 8l2.3 2.8v1.7l.7.2v1.5H4v-1.5l.7-.2v-1.7L7 8 4.7 5.2V3.5L4 3.3Z",
  skipped: "M3 3.5 8.5 8 3 12.5Zm6 0h2v9H9Z",
  retry: "M8 2.6A5.4 5.4 0 1 0 13.4 8h-1.5A3.9 3.9 0 1 1 8 4.1v2.2l3.6-3L8 .4Z",
  upstream_failed: "M7.2 2h1.6v6.6l2.3-2.2 1.1 1.1L8 11.6 3.8 7.5l1.1-1.1 2.3 2.2ZM3 12.6h10V14H3Z",
};

export const WORDS = {
  pending: "pending", queued: "queued", running: "running", suspended: "suspended", paused: "paused",
  succeeded: "succeeded", failed: "failed", cancelled: "cancelled", timed_out: "timed out", skipped: "skipped",
  upstream_failed: "upstream failed",
};
export const FINAL = new Set(["succeeded", "failed", "cancelled", "timed_out", "skipped", "upstream_failed"]);

const RETRIABLE = new Set(["failed", "cancelled", "timed_out"]);
/** Whether a run can be retried, as far as is known here. */
export const canRetry = (run) => RETRIABLE.has(run.status) && !run.retried_as;

export function Icon({ name }) {
  return html`<svg class="flow-icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[name] ?? ICONS.pending} /></svg>`;
}

export function Status({ status }) {
  return html`<span class=${`flow-status is-${status}`}><${Icon} name=${status} />${WORDS[status] ?? status}</span>`;
}

/** The colour of a status as it is now in this theme, for a canvas. */
export function colourOf(status) {
  return getComputedStyle(frame).getPropertyValue(`--flow-${status}`).trim();
}

/** Call when the theme changes; returns what ends that. */
export function onTheme(changed) {
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  return () => observer.disconnect();
}

const BAR_ORDER = [
  "succeeded", "failed", "timed_out", "cancelled", "upstream_failed", "skipped", "running", "pending",
];

/** Counts by status as one bar, which says them in words too. */
export function CountsBar({ counts }) {
  const parts = BAR_ORDER.filter((status) => counts[status]).map((status) => [status, counts[status]]);
  const total = parts.reduce((sum, [, count]) => sum + count, 0);
  if (!total) return html`<span class="flow-faint">–</span>`;
  const words = parts.map(([status, count]) => `${number(count)} ${WORDS[status]}`).join(", ");
  return html`<span class="flow-bar" role="img" aria-label=${words} title=${words}>
    ${parts.map(([status, count]) => html`<span class=${`is-${status}`} style=${{ flexGrow: count / total }}></span>`)}
  </span>`;
}

// Announcements: one line a second at most, for those who don't see the page

let spokenAt = 0;
let waiting = null;
export function announce(text) {
  const wait = spokenAt + 1000 - Date.now();
  clearTimeout(waiting);
  if (wait > 0) {
    waiting = setTimeout(() => announce(text), wait);
    return;
  }
  let place = document.getElementById("flow-announcer");
  if (!place) {
    place = document.createElement("div");
    place.id = "flow-announcer";
    place.className = "visually-hidden";
    place.setAttribute("aria-live", "polite");
    document.body.append(place);
  }
  place.textContent = text;
  spokenAt = Date.now();
}

// Dialogs: shown one at a time, above the page

let openDialog = null;
let redraw = () => {};

/** Show content in a dialog; it gets `close`. Resolves with what it is closed with, undefined by Escape. */
export function dialog(title, content) {
  return new Promise((resolve) => {
    openDialog = {
      title, content, close: (value) => {
        openDialog = null;
        redraw();
        resolve(value);
      },
    };
    redraw();
  });
}

/** Ask before something is done: true, or undefined. `act` is the word on the button. */
export function confirm({ title, text, act, danger = false }) {
  return dialog(title, ({ close }) => html`
    <p>${text}</p>
    <div class="flow-dialog-buttons">
      <button type="button" class="btn btn-outline-secondary" onClick=${() => close()}>Back</button>
      <button type="button" class=${`btn ${danger ? "btn-danger" : "btn-primary"}`} autofocus onClick=${() => close(true)}>${act}</button>
    </div>`);
}

function Dialogs() {
  const [, again] = useReducer((count) => count + 1, 0);
  redraw = again;
  const element = useRef(null);
  const shown = openDialog;
  useLayoutEffect(() => {
    if (shown && element.current && !element.current.open) element.current.showModal();
  }, [shown]);
  if (!shown) return null;
  const outside = (event) => event.target === element.current && shown.close();
  return html`<dialog class="flow-dialog" ref=${element} aria-labelledby="flow-dialog-title"
    onCancel=${(event) => { event.preventDefault(); shown.close(); }} onClick=${outside}>
    <div class="flow-dialog-inside">
      <h2 id="flow-dialog-title">${shown.title}</h2>
      <${shown.content} close=${shown.close} />
    </div>
  </dialog>`;
}

/** A short message in the corner, by Flower's own means. */
export function toast(text, isError = false) {
  const place = document.getElementById("toast-container");
  const element = document.createElement("div");
  element.className = `toast show flow-toast ${isError ? "is-error" : ""}`;
  element.setAttribute("role", isError ? "alert" : "status");
  element.textContent = text;
  place.append(element);
  setTimeout(() => element.remove(), isError ? 10_000 : 5_000);
}

// Keys: none of them changes anything but what is seen

const GO = { w: ["Workflows"], l: ["Limits", "limits"], t: ["Throughput", "throughput"] };

/** Keys of this page: `{ "j": [function, "what it does"] }`, beside those of every page. */
export function useKeys(keys) {
  const newest = useRef(keys);
  newest.current = keys;
  useEffect(() => {
    let before = "";
    let timer = null;
    function onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || openDialog) return;
      if (event.target.closest?.("input, textarea, select, [contenteditable]")) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      const key = before === "g" && GO[event.key] ? `g ${event.key}` : event.key;
      clearTimeout(timer);
      before = event.key === "g" ? "g" : "";
      timer = setTimeout(() => { before = ""; }, 1000);
      if (key.startsWith("g ")) {
        location.href = link(...GO[event.key].slice(1));
      } else if (key === "?") {
        showKeys(newest.current);
      } else if (newest.current[key]) {
        // Enter and the space bar belong to whatever has the focus
        if ((key === "Enter" || key === " ") && event.target.closest?.("a, button, summary")) return;
        if (newest.current[key][0](event) === false) return;
      } else {
        return;
      }
      event.preventDefault();
    }
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
}

function showKeys(keys) {
  const lines = [
    ...Object.entries(keys).map(([key, [, words]]) => [key, words]),
    ...Object.entries(GO).map(([key, [title]]) => [`g ${key}`, title]),
    ["?", "these keys"],
  ];
  dialog("Keys", () => html`<dl class="flow-keys">
    ${lines.map(([key, words]) => html`<div><dt>${key.split(" ").map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${words}</dd></div>`)}
  </dl>`);
}
