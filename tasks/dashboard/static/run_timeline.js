// The timeline: a canvas of lanes or actions over time, and a brush over the whole run.

import {
  duration, getJson, html, link, number, onTheme, page, useEffect, useLayoutEffect, useReducer, useRef, useState,
} from "./lib.js";
import {
  ACTION_HEIGHT, AXIS, BRUSH, coloursNow, drawActions, drawAxis, drawBrush, drawLanes, outline, prepare,
} from "./run_draw.js";
import { NO_ITEM, STATUSES } from "./run_model.js";
import { densities, densitiesOf, slotGrid, total } from "./run_paint.js";

const MOST_HEIGHT = 340;
const LEGEND = [["lane-wait", "waits"], ["lane-running", "runs"], ["lane-succeeded", "succeeded"], ["lane-failed", "failed"]];

/** `window_`: [from, to] in ms or null for the whole run; `now`: a function. */
export function Timeline({ run, version, now, selection, select, by, setBy, window_, setWindow }) {
  const [hide, setHide] = useState(false);
  const [size, setSize] = useState(null);
  const [hover, setHover] = useState(null);
  const [counted, setCounted] = useState({ whole: null, part: null });
  const [theme, themed] = useReducer((count) => count + 1, 0);
  const box = useRef(null);
  const canvas = useRef(null);
  const brush = useRef(null);
  const scroller = useRef(null);
  const drag = useRef(null);
  const mode = run.paged ? "action" : by;
  const until = run.last(now());
  const [from, to] = window_ ?? [0, until];
  const gutter = size && size.width < 560 ? 84 : 150;
  const width = size ? Math.max(50, Math.floor(size.width - gutter)) : 0;
  const shown = run.actions.map((_, place) => place).sort((a, b) => run.actions[a].level - run.actions[b].level || a - b);
  const lanes = mode === "slot" ? laneOrder(run) : shown;
  const laneHeight = mode === "slot" ? Math.min(18, Math.max(5, Math.floor(240 / Math.max(lanes.length, 1)))) : ACTION_HEIGHT;
  const contentHeight = Math.max(lanes.length * laneHeight, laneHeight);
  const height = Math.min(contentHeight, MOST_HEIGHT);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setSize({ width: entry.contentRect.width }));
    observer.observe(box.current);
    const end = onTheme(themed);
    return () => {
      observer.disconnect();
      end();
    };
  }, []);

  // A run that is too large for columns is counted by the server, for the window and for the brush.
  useEffect(() => {
    if (!run.paged || !width) return undefined;
    const stop = new AbortController();
    const ask = (first, last) => getJson(link("api", "run", page.run, "density"), {
      from: Math.floor(first * 1000), to: Math.ceil(last * 1000), bins: Math.min(width, 1000),
    }, { signal: stop.signal });
    const asked = ask(0, until);
    Promise.all([asked, window_ ? ask(from, to) : asked])
      .then(([whole, part]) => setCounted({ whole, part }))
      .catch((error) => error.name === "AbortError" || setCounted({ whole: null, part: null, error: error.message }));
    return () => stop.abort();
  }, [run.paged, width, from, window_ ? to : 0, version]);

  const draw = () => {
    if (!width) return;
    const colours = coloursNow();
    const top = scroller.current?.scrollTop ?? 0;
    const context = prepare(canvas.current, size.width, height + AXIS);
    drawAxis(context, colours, gutter, width, from, to, height + AXIS);
    context.save();
    context.beginPath();
    context.rect(0, AXIS, size.width, height);
    context.clip();
    context.translate(0, AXIS - top);
    if (mode === "slot") {
      drawLanes(context, colours, run, lanes, laneHeight, gutter, width, slotGrid(run, from, to, width, now(), hide));
    } else {
      const found = run.paged ? densitiesOf(run, counted.part) : densities(run, from, to, width, now(), hide);
      drawActions(context, colours, run, lanes, gutter, width, found, from, to, now(), selection);
    }
    outline(context, colours, run, lanes, laneHeight, gutter, width, from, to, now(), selection, mode);
    context.restore();
    const brushed = prepare(brush.current, size.width, BRUSH);
    const sum = total(run.paged ? densitiesOf(run, counted.whole) : densities(run, 0, until, width, now(), false), width);
    drawBrush(brushed, colours, gutter, width, sum, from / until, to / until, window_ !== null);
  };
  const newest = useRef(draw);
  newest.current = draw;
  useLayoutEffect(() => newest.current(), [run, version, size, by, window_, selection, hide, counted, theme]);
  // bars of what runs grow between the frames
  useEffect(() => {
    if (run.info.finished_at !== null) return undefined;
    const timer = setInterval(() => document.hidden || newest.current(), 1000);
    return () => clearInterval(timer);
  }, [run.info.finished_at]);

  const timeAt = (x, first = from, last = to) => first + ((x - gutter) / width) * (last - first);
  const clamp = ([first, last]) => {
    const least = Math.min(0.05, until);
    const length = Math.min(Math.max(last - first, least), until);
    const begin = Math.min(Math.max(0, first), until - length);
    return length >= until * 0.999 ? null : [begin, begin + length];
  };
  const zoom = (factor, at = (from + to) / 2) => setWindow(clamp([at - (at - from) * factor, at + (to - at) * factor]));

  function hit(event) {
    const place = canvas.current.getBoundingClientRect();
    const x = event.clientX - place.left;
    const y = event.clientY - place.top - AXIS + (scroller.current?.scrollTop ?? 0);
    const lane = lanes[Math.floor(y / laneHeight)];
    if (lane === undefined || y < 0) return null;
    if (x < gutter) return mode === "action" ? { action: lane, item: NO_ITEM, x, y } : null;
    const at = timeAt(x);
    const slack = ((to - from) / width) * 2;
    let best = -1;
    let distance = Infinity;
    for (let row = 0; row < run.count; row += 1) {
      if (mode === "slot" ? run.slot[row] !== lane : run.action[row] !== lane || run.isWhole(row)) continue;
      const end = Number.isNaN(run.end[row]) ? now() : run.end[row];
      if (!(run.start[row] <= at + slack && end >= at - slack)) continue;
      const away = at < run.start[row] ? run.start[row] - at : at > end ? at - end : 0;
      if (away < distance) {
        best = row;
        distance = away;
      }
    }
    if (best >= 0) return { row: best, action: run.action[best], item: run.item[best], x, y };
    return mode === "action" ? { action: lane, item: NO_ITEM, x, y } : null;
  }

  const onMove = (event) => {
    const held = drag.current;
    if (held) {
      const moved = event.clientX - held.x;
      if (Math.abs(moved) > 3) held.moved = true;
      if (held.moved && window_) {
        const by_ = (-moved / width) * (held.to - held.from);
        setWindow(clamp([held.from + by_, held.to + by_]) ?? window_);
      }
      return;
    }
    if (event.pointerType !== "touch") setHover(hit(event));
  };
  const onDown = (event) => {
    if (event.button !== 0) return;
    drag.current = { x: event.clientX, from, to, moved: false };
    if (window_) canvas.current.setPointerCapture(event.pointerId);
  };
  const onUp = (event) => {
    const held = drag.current;
    drag.current = null;
    if (!held || held.moved) return;
    const found = hit(event);
    if (found) select({ action: found.action, item: found.item }, "timeline");
  };
  const onWheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const at = timeAt(event.clientX - canvas.current.getBoundingClientRect().left);
    zoom(Math.exp(event.deltaY * 0.004), at);
  };
  useEffect(() => {
    const element = canvas.current;
    const wheel = (event) => wheelNow.current(event);
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  const wheelNow = useRef(onWheel);
  wheelNow.current = onWheel;

  const brushDown = (event) => {
    brush.current.setPointerCapture(event.pointerId);
    const place = brush.current.getBoundingClientRect();
    drag.current = { brush: timeAt(event.clientX - place.left, 0, until), left: place.left };
  };
  const brushMove = (event) => {
    if (drag.current?.brush === undefined) return;
    const at = timeAt(event.clientX - drag.current.left, 0, until);
    const ends = [Math.min(drag.current.brush, at), Math.max(drag.current.brush, at)];
    if (ends[1] - ends[0] > until / width * 4) setWindow(clamp(ends));
  };
  const brushUp = () => {
    drag.current = null;
  };

  const words = mode === "slot"
    ? `${number(lanes.length)} ${lanes.length === 1 ? "slot" : "slots"} of ${number(run.workers.length)} ${run.workers.length === 1 ? "worker" : "workers"}`
    : `${number(lanes.length)} actions`;
  return html`<section class="flow-card run-timeline" aria-labelledby="run-timeline-title">
    <header class="run-card-head">
      <h3 id="run-timeline-title">Timeline</h3>
      <div class="run-legend" aria-hidden="true">
        ${LEGEND.map(([name, word]) => html`<span><i class=${`run-swatch is-${name}`}></i>${word}</span>`)}
      </div>
      <div class="run-tools">
        <div class="btn-group btn-group-sm" role="group" aria-label="Rows of the timeline">
          ${[["slot", "By slot"], ["action", "By action"]].map(([name, word]) => html`<button type="button"
            class=${`btn btn-outline-secondary ${mode === name ? "active" : ""}`} aria-pressed=${mode === name}
            disabled=${run.paged && name === "slot"} onClick=${() => setBy(name)}
            title=${run.paged && name === "slot" ? `Above ${number(run.most)} tasks there are no slots` : ""}>${word}</button>`)}
        </div>
        <label class="run-check"><input type="checkbox" checked=${hide} disabled=${run.paged} onChange=${(event) => setHide(event.target.checked)} /> Hide succeeded</label>
        <div class="btn-group btn-group-sm" role="group" aria-label="Zoom">
          <button type="button" class="btn btn-outline-secondary" aria-label="Closer" onClick=${() => zoom(0.5)}>+</button>
          <button type="button" class="btn btn-outline-secondary" aria-label="Further" disabled=${!window_} onClick=${() => zoom(2)}>−</button>
          <button type="button" class="btn btn-outline-secondary" disabled=${!window_} onClick=${() => setWindow(null)}>Whole run</button>
        </div>
      </div>
    </header>
    <p class="visually-hidden">A drawing of ${words} over time. The table below holds the same facts.</p>
    <div class="run-canvases" ref=${box} aria-hidden="true">
      <div class="run-scroller" ref=${scroller} onScroll=${() => newest.current()} style=${{ height: `${height + AXIS}px` }}>
        <div style=${{ height: `${contentHeight + AXIS}px` }}>
          <canvas ref=${canvas} class="run-canvas" onPointerMove=${onMove} onPointerLeave=${() => setHover(null)}
            onPointerDown=${onDown} onPointerUp=${onUp} onDblClick=${(event) => zoom(0.25, timeAt(event.offsetX))}></canvas>
        </div>
      </div>
      ${hover && html`<${Hint} run=${run} hover=${hover} now=${now()} width=${size.width} top=${scroller.current?.scrollTop ?? 0} />`}
      <canvas ref=${brush} class="run-brush" onPointerDown=${brushDown} onPointerMove=${brushMove} onPointerUp=${brushUp}
        onDblClick=${() => setWindow(null)}></canvas>
    </div>
    <p class="run-under flow-faint">${counted.error ?? `${words}. Drag over the strip to see a part of the run, double click to see all of it; Ctrl and the wheel zoom.`}</p>
  </section>`;
}

function Hint({ run, hover, now, width, top }) {
  const row = hover.row ?? run.find(hover.action, hover.item);
  const left = Math.min(Math.max(hover.x + 14, 0), Math.max(width - 250, 0));
  const style = { transform: `translate(${left}px, ${hover.y - top + AXIS + 14}px)` };
  if (row < 0) return html`<div class="run-hint" style=${style}><b>${run.actions[hover.action].name}</b></div>`;
  const ran = run.ran(row, now);
  const waited = run.item[row] === NO_ITEM ? run.start[row] - run.readyAt(row) : NaN;
  return html`<div class="run-hint" style=${style}>
    <b>${run.name(row)}</b> <span class=${`is-${STATUSES[run.status[row]]}`}>${STATUSES[run.status[row]].replace("_", " ")}</span>
    ${!Number.isNaN(ran) && html`<div>ran ${duration(ran / 1000)}${waited > 0.5 ? `, waited ${duration(waited / 1000)}` : ""}</div>`}
    ${run.attempt[row] > 1 && html`<div>attempt ${run.attempt[row]}</div>`}
    ${run.workers[run.worker[row]] && html`<div class="flow-faint">${run.workers[run.worker[row]]}</div>`}
  </div>`;
}

/** Lanes of one worker together, workers by name. */
function laneOrder(run) {
  return run.laneWorker.map((_, lane) => lane).sort((a, b) => {
    const one = run.workers[run.laneWorker[a]] ?? "";
    const other = run.workers[run.laneWorker[b]] ?? "";
    return one < other ? -1 : one > other ? 1 : a - b;
  });
}
