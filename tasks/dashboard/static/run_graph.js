// The graph of a run: an SVG that can be moved and zoomed, or on a phone a list; each action with how far it is.

import { Icon, WORDS, html, number, shortNumber, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { NO_ITEM, STATUSES } from "./run_model.js";

const HEIGHT = 46;
const GAP_ACROSS = 54;
const GAP_DOWN = 16;
const MARGIN = 14;
const LEAST_SCALE = 0.08;
const MOST_SCALE = 2;
/** Below this scale nobody could read the names. */
const READABLE = 0.6;

/** How far an action is, from its line of the progress. */
export function progressOf(run, place) {
  const [code, size, succeeded, failed, skipped, running] = run.progress[place] ?? [0, null, 0, 0, 0, 0];
  const done = succeeded + failed + skipped;
  const isEach = run.actions[place].for_each;
  let words = WORDS[STATUSES[code]];
  if (isEach && size !== null) {
    if (done < size) words = `${shortOrWhole(done)} / ${shortOrWhole(size)}${failed ? `, ${shortOrWhole(failed)} failed` : ""}`;
    else words = failed ? `${shortOrWhole(failed)} of ${shortOrWhole(size)} failed` : `${number(size)} ${size === 1 ? "item" : "items"}`;
  }
  return { status: STATUSES[code], size, done, succeeded, failed, skipped, running, words, isEach };
}

const shortOrWhole = (value) => (value < 100_000 ? number(value) : shortNumber(value));

export function Graph({ run, version, selection, select, fitted }) {
  const box = useRef(null);
  const [size, setSize] = useState(null);
  const [view, setView] = useState(null);
  const drag = useRef(null);
  const longest = run.actions.reduce((most, action) => Math.max(most, action.name.length), 0);
  const nodeWidth = Math.min(250, Math.max(150, longest * 7.4 + 46));
  const { levels, rows } = run.graph;
  const whole = {
    width: 2 * MARGIN + levels * (nodeWidth + GAP_ACROSS) - GAP_ACROSS,
    height: 2 * MARGIN + rows * (HEIGHT + GAP_DOWN) - GAP_DOWN,
  };
  const corner = (level, row) => [MARGIN + level * (nodeWidth + GAP_ACROSS), MARGIN + row * (HEIGHT + GAP_DOWN)];

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setSize({ width: entry.contentRect.width, height: entry.contentRect.height }));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  const fit = () => size && {
    scale: Math.min(1, size.width / whole.width, size.height / whole.height), x: 0, y: 0, whole: true,
  };
  useEffect(() => {
    if (fitted.current === null) fitted.current = () => setView(null);
    return () => {
      fitted.current = null;
    };
  }, []);
  let shown = view ?? fit();
  if (shown?.whole) {
    // readable at first: what does not fit is reached by moving
    const scale = view === null && shown.scale < READABLE && run.actions.length < 60 ? READABLE : shown.scale;
    shown = {
      scale,
      x: Math.max(0, (size.width - whole.width * scale) / 2),
      y: Math.max(0, (size.height - whole.height * scale) / 2),
    };
  }

  const zoomAt = (factor, x, y) => {
    const scale = Math.min(MOST_SCALE, Math.max(LEAST_SCALE, shown.scale * factor));
    const by = scale / shown.scale;
    setView({ scale, x: x - (x - shown.x) * by, y: y - (y - shown.y) * by });
  };
  const onWheel = (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const place = box.current.getBoundingClientRect();
    zoomAt(Math.exp(-event.deltaY * 0.004), event.clientX - place.left, event.clientY - place.top);
  };
  const wheel = useRef(onWheel);
  wheel.current = onWheel;
  useEffect(() => {
    const element = box.current;
    const turned = (event) => wheel.current(event);
    element.addEventListener("wheel", turned, { passive: false });
    return () => element.removeEventListener("wheel", turned);
  }, []);
  const onDown = (event) => {
    if (event.button === 0) drag.current = { x: event.clientX, y: event.clientY, view: shown, id: event.pointerId };
  };
  const onMove = (event) => {
    const held = drag.current;
    if (!held) return;
    const [x, y] = [event.clientX - held.x, event.clientY - held.y];
    if (!held.moved && Math.hypot(x, y) < 4) return;
    if (!held.moved) box.current.setPointerCapture(held.id);
    held.moved = true;
    setView({ ...held.view, x: held.view.x + x, y: held.view.y + y });
  };
  const onUp = () => {
    drag.current = null;
  };

  const tall = Math.min(420, Math.max(150, whole.height));
  return html`<section class="flow-card run-graph" aria-labelledby="run-graph-title">
    <header class="run-card-head">
      <h3 id="run-graph-title">Graph</h3>
      <span class="flow-faint">${number(run.actions.length)} ${run.actions.length === 1 ? "action" : "actions"}</span>
      <div class="run-tools btn-group btn-group-sm" role="group" aria-label="Zoom of the graph">
        <button type="button" class="btn btn-outline-secondary" aria-label="Closer" onClick=${() => zoomAt(1.3, size.width / 2, size.height / 2)}>+</button>
        <button type="button" class="btn btn-outline-secondary" aria-label="Further" onClick=${() => zoomAt(1 / 1.3, size.width / 2, size.height / 2)}>−</button>
        <button type="button" class="btn btn-outline-secondary" title="f" onClick=${() => setView(null)}>Fit</button>
      </div>
    </header>
    <div class="run-graph-box" ref=${box} style=${{ height: `${tall}px` }} onPointerDown=${onDown} onPointerMove=${onMove}
      onPointerUp=${onUp} onPointerCancel=${onUp}>
      ${shown && html`<svg width="100%" height="100%" role="group" aria-label="Actions and what they need">
        <g transform=${`translate(${shown.x} ${shown.y}) scale(${shown.scale})`}>
          <${Edges} run=${run} version=${version} corner=${corner} nodeWidth=${nodeWidth} selection=${selection} />
          ${run.actions.map((action, place) => {
            const [x, y] = corner(action.level, action.row);
            return html`<${Node} key=${place} run=${run} place=${place} x=${x} y=${y} width=${nodeWidth}
              selected=${selection?.action === place} select=${select} />`;
          })}
        </g>
      </svg>`}
    </div>
    <${ActionList} run=${run} selection=${selection} select=${select} />
  </section>`;
}

function Edges({ run, corner, nodeWidth, selection }) {
  const path = ([from, to, passages]) => {
    let [x, y] = corner(run.actions[from].level, run.actions[from].row);
    x += nodeWidth;
    y += HEIGHT / 2;
    const parts = [`M${x} ${y}`];
    const reach = (toX, toY) => {
      const middle = (x + toX) / 2;
      parts.push(y === toY ? `H${toX}` : `C${middle} ${y} ${middle} ${toY} ${toX} ${toY}`);
      [x, y] = [toX, toY];
    };
    for (const [level, row] of passages) {
      const [left, top] = corner(level, row);
      reach(left, top + HEIGHT / 2);
      parts.push(`H${left + nodeWidth}`);
      x = left + nodeWidth;
    }
    const [left, top] = corner(run.actions[to].level, run.actions[to].row);
    reach(left - 5, top + HEIGHT / 2);
    return parts.join("");
  };
  const kind = ([from, to]) => {
    if (selection && (selection.action === from || selection.action === to)) return "is-near";
    return progressOf(run, from).status === "pending" ? "is-pending" : "";
  };
  return html`<defs><marker id="run-tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="6" markerHeight="6" orient="auto">
      <path class="run-tip" d="M0 1L5 4L0 7z" /></marker></defs>
    ${run.graph.edges.map((edge) => html`<path class=${`run-edge ${kind(edge)}`} marker-end="url(#run-tip)" d=${path(edge)} />`)}`;
}

function Node({ run, place, x, y, width, selected, select }) {
  const { name, uses } = run.actions[place];
  const state = progressOf(run, place);
  const room = Math.floor((width - 40) / 7.2);
  const choose = () => select({ action: place, item: NO_ITEM }, "graph");
  const onKey = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    choose();
  };
  const share = state.isEach && state.size ? state.done / state.size : null;
  return html`<g class=${`run-node is-${state.status} ${selected ? "is-selected" : ""}`} transform=${`translate(${x} ${y})`}
    role="button" tabindex="0" aria-pressed=${selected} aria-label=${`${name}: ${state.words}`} onClick=${choose} onKeyDown=${onKey}>
    <title>${`${name}: ${uses}`}</title>
    ${state.isEach && html`<rect class="run-node-behind" x="4" y="4" width=${width} height=${HEIGHT} rx="8" />`}
    <rect class="run-node-box" width=${width} height=${HEIGHT} rx="8" />
    <svg class="run-node-icon" x="11" y="9" width="14" height="14" viewBox="0 0 16 16"><${Icon} name=${state.status} /></svg>
    <text class="run-node-name" x="32" y="20">${name.length > room ? `${name.slice(0, room - 1)}…` : name}</text>
    <text class="run-node-words" x="32" y="36">${state.words}</text>
    ${share !== null && html`<rect class="run-node-bar" x="1" y=${HEIGHT - 4} width=${width - 2} height="3" />
      <rect class="run-node-done" x="1" y=${HEIGHT - 4} width=${Math.max((width - 2) * share, 1)} height="3" />`}
    ${state.failed > 0 && state.size && html`<rect class="run-node-failed" x="1" y=${HEIGHT - 4} width=${Math.max(((width - 2) * state.failed) / state.size, 3)} height="3" />`}
  </g>`;
}

/** What stands in for the graph where there is no room for one. */
function ActionList({ run, selection, select }) {
  const order = run.actions.map((_, place) => place).sort((a, b) => run.actions[a].level - run.actions[b].level || a - b);
  return html`<ul class="run-actions">
    ${order.map((place) => {
      const state = progressOf(run, place);
      const { name, level } = run.actions[place];
      return html`<li key=${place}><button type="button" class=${`run-action is-${state.status}`} aria-pressed=${selection?.action === place}
        style=${{ paddingLeft: `${0.75 + Math.min(level, 8) * 0.75}rem` }} onClick=${() => select({ action: place, item: NO_ITEM }, "graph")}>
        <${Icon} name=${state.status} /><span class="run-action-name">${name}</span><span class="flow-faint">${state.words}</span>
      </button></li>`;
    })}
  </ul>`;
}
