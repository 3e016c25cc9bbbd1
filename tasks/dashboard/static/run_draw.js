// How a timeline gets onto its canvas.

import { colourOf } from "./lib.js";
import { CODE } from "./run_model.js";
import { CELL, eachStretch, ticks } from "./run_paint.js";

/** Heights, px. */
export const AXIS = 22;
export const BRUSH = 44;
export const ACTION_HEIGHT = 26;
const COLOURS = [
  "lane-succeeded", "lane-running", "lane-failed", "lane-wait", "lane-skipped", "lane-cancelled", "lane-text",
  "lane-faint", "lane-line", "lane-back", "lane-select", "lane-head",
];
const CELL_COLOUR = {
  [CELL.wait]: "lane-wait", [CELL.skipped]: "lane-skipped", [CELL.succeeded]: "lane-succeeded",
  [CELL.running]: "lane-running", [CELL.cancelled]: "lane-cancelled", [CELL.bad]: "lane-failed",
};

/** The colours of this theme. */
export const coloursNow = () => Object.fromEntries(COLOURS.map((name) => [name, colourOf(name)]));

export function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  context.textBaseline = "middle";
  return context;
}

export function drawAxis(context, colours, gutter, width, from, to, height) {
  for (const [at, label] of ticks(from, to, width)) {
    const x = Math.round(gutter + ((at - from) / (to - from)) * width) + 0.5;
    context.strokeStyle = colours["lane-line"];
    context.beginPath();
    context.moveTo(x, AXIS - 5);
    context.lineTo(x, height);
    context.stroke();
    context.fillStyle = colours["lane-faint"];
    context.textAlign = x > gutter + width - 30 ? "right" : x < gutter + 10 ? "left" : "center";
    context.fillText(label, x, AXIS / 2 - 1);
  }
  context.textAlign = "left";
}

export function drawLanes(context, colours, run, lanes, laneHeight, gutter, width, grid) {
  const gap = laneHeight > 8 ? 2 : 1;
  lanes.forEach((lane, place) => {
    const y = place * laneHeight;
    context.fillStyle = colours["lane-back"];
    context.fillRect(gutter, y, width, laneHeight - gap);
    eachStretch(grid, lane * width, width, (cell, first, last) => {
      context.fillStyle = colours[CELL_COLOUR[cell]];
      const low = cell === CELL.wait ? Math.floor(laneHeight * 0.3) : 0;
      context.fillRect(gutter + first, y + low, last - first, laneHeight - gap - 2 * low);
    });
  });
  context.fillStyle = colours["lane-text"];
  let from = 0;
  for (let place = 1; place <= lanes.length; place += 1) {
    const worker = run.laneWorker[lanes[from]];
    if (place < lanes.length && run.laneWorker[lanes[place]] === worker) continue;
    const y = from * laneHeight;
    const name = run.workers[worker] ?? "";
    context.fillStyle = colours["lane-head"];
    context.fillText(fitted(context, name, gutter - 14), 2, y + Math.min(laneHeight, 14) / 2 + 1);
    if (laneHeight * (place - from) > 30) {
      context.fillStyle = colours["lane-faint"];
      context.fillText(`${place - from} slots`, 2, y + 22);
    }
    if (from) {
      context.fillStyle = colours["lane-line"];
      context.fillRect(0, y - 1, gutter + width, 1);
    }
    from = place;
  }
}

export function drawActions(context, colours, run, lanes, gutter, width, found, from, to, now, selection) {
  const scale = width / (to - from);
  const inner = ACTION_HEIGHT - 8;
  lanes.forEach((place, line) => {
    const y = line * ACTION_HEIGHT;
    const action = run.actions[place];
    const own = found[place];
    if (selection?.action === place) {
      context.fillStyle = colours["lane-select"];
      context.globalAlpha = 0.1;
      context.fillRect(0, y, gutter + width, ACTION_HEIGHT);
      context.globalAlpha = 1;
    }
    context.fillStyle = colours["lane-head"];
    context.fillText(fitted(context, action.name, gutter - 14), 2, y + ACTION_HEIGHT / 2);
    context.fillStyle = colours["lane-line"];
    context.fillRect(gutter, y + ACTION_HEIGHT - 1, width, 1);
    // the wait before it
    const row = run.find(place);
    const ready = run.ready.get(place);
    const begun = row >= 0 && !Number.isNaN(run.start[row]) ? run.start[row] : NaN;
    if (ready !== undefined && begun > ready) {
      const x = Math.max(0, (ready - from) * scale);
      const end = Math.min(width, (begun - from) * scale);
      context.fillStyle = colours["lane-wait"];
      if (end > x) context.fillRect(gutter + x, y + ACTION_HEIGHT / 2 - 3, Math.max(1, end - x), 6);
    }
    if (!own) return;
    const status = row >= 0 ? run.status[row] : CODE.running;
    const bins = own.running.length;
    const step = width / bins;
    const peak = Math.max(own.peak, 1e-9);
    const heightOf = (running) => (action.for_each ? Math.max(2, Math.round((running / peak) * inner)) : inner - 4);
    context.fillStyle = colours[status === CODE.running ? "lane-running" : !action.for_each && (status === CODE.failed || status === CODE.timed_out) ? "lane-failed" : "lane-succeeded"];
    for (let bin = 0; bin < bins; ) {
      const here = own.running[bin] > 0 ? heightOf(own.running[bin]) : 0;
      let until = bin + 1;
      while (until < bins && (own.running[until] > 0 ? heightOf(own.running[until]) : 0) === here) until += 1;
      if (here) {
        const tall = here;
        const low = action.for_each ? y + ACTION_HEIGHT - 4 - tall : y + (ACTION_HEIGHT - tall) / 2;
        context.fillRect(gutter + bin * step, low, Math.max((until - bin) * step, 1.5), tall);
      }
      bin = until;
    }
    if (!action.for_each) return;
    context.fillStyle = colours["lane-failed"];
    for (let bin = 0; bin < bins; bin += 1) {
      if (own.failed[bin]) context.fillRect(gutter + bin * step - 0.5, y + 1, Math.max(step, 2), 5);
    }
  });
}

export function outline(context, colours, run, lanes, laneHeight, gutter, width, from, to, now, selection, mode) {
  if (!selection) return;
  const row = run.find(selection.action, selection.item);
  if (row < 0 || Number.isNaN(run.start[row]) || run.isWhole(row)) return;
  const line = lanes.indexOf(mode === "slot" ? run.slot[row] : run.action[row]);
  if (line < 0) return;
  const scale = width / (to - from);
  const end = Number.isNaN(run.end[row]) ? now : run.end[row];
  const first = Math.max(-2, (run.start[row] - from) * scale);
  const last = Math.min(width + 2, Math.max((end - from) * scale, first + 3));
  if (last < 0 || first > width) return;
  context.strokeStyle = colours["lane-select"];
  context.lineWidth = 2;
  context.strokeRect(gutter + first - 1, line * laneHeight - 1, last - first + 2, laneHeight + 1);
  context.lineWidth = 1;
}

export function drawBrush(context, colours, gutter, width, sum, first, last, chosen) {
  context.fillStyle = colours["lane-back"];
  context.fillRect(gutter, 6, width, BRUSH - 12);
  const peak = Math.max(sum.peak, 1e-9);
  for (let x = 0; x < width; x += 1) {
    if (!sum.running[x]) continue;
    const tall = Math.max(1, Math.round((sum.running[x] / peak) * (BRUSH - 20)));
    // how much, not how it ended: in no colour of a status
    context.fillStyle = colours["lane-cancelled"];
    context.fillRect(gutter + x, BRUSH - 6 - tall, 1, tall);
    if (!sum.failed[x]) continue;
    context.fillStyle = colours["lane-failed"];
    context.fillRect(gutter + x - 1, 6, 2, 5);
  }
  context.fillStyle = colours["lane-faint"];
  context.fillText("Whole run", 2, BRUSH / 2);
  if (!chosen) return;
  context.fillStyle = colours["lane-select"];
  context.globalAlpha = 0.14;
  context.fillRect(gutter + first * width, 4, (last - first) * width, BRUSH - 8);
  context.globalAlpha = 1;
  context.strokeStyle = colours["lane-select"];
  context.strokeRect(gutter + first * width + 0.5, 4.5, Math.max((last - first) * width, 2), BRUSH - 9);
}

function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = Math.max(1, Math.floor((text.length * width) / context.measureText(text).width) - 1);
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return `${text.slice(0, length)}…`;
}
