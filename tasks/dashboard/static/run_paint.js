// What a timeline looks like, as numbers: grids of lanes × pixels, and densities. No canvas here.

import { CODE, NO_ITEM, isBad, isFinal } from "./run_model.js";

/** Cells of a grid. The larger one wins where tasks share a pixel, so that what is rare and bad is seen. */
export const CELL = { none: 0, wait: 1, skipped: 2, succeeded: 3, running: 4, cancelled: 5, bad: 6 };
/** The cell for each status, by its code. */
export const CELL_OF = new Uint8Array(8);
CELL_OF[CODE.pending] = CELL.none;
CELL_OF[CODE.running] = CELL.running;
CELL_OF[CODE.succeeded] = CELL.succeeded;
CELL_OF[CODE.failed] = CELL.bad;
CELL_OF[CODE.timed_out] = CELL.bad;
CELL_OF[CODE.cancelled] = CELL.cancelled;
CELL_OF[CODE.skipped] = CELL.skipped;
CELL_OF[CODE.upstream_failed] = CELL.skipped;

/** Lanes × width cells for a window of time; `hide`: what succeeded is left out. */
export function slotGrid(run, from, to, width, now, hide) {
  const lanes = run.laneWorker.length;
  const grid = new Uint8Array(lanes * width);
  const scale = width / (to - from);
  waits(run, grid, from, scale, width, now);
  const { count, slot, start, end, status } = run;
  for (let row = 0; row < count; row += 1) {
    const lane = slot[row];
    if (lane < 0) continue;
    const cell = CELL_OF[status[row]];
    if (hide && cell === CELL.succeeded) continue;
    const first = (start[row] - from) * scale;
    const last = ((Number.isNaN(end[row]) ? now : end[row]) - from) * scale;
    if (!(last >= 0 && first < width)) continue;
    let x = Math.max(0, Math.floor(first));
    // A seam between neighbours, where there is room for one.
    const until = Math.min(width, last - first > 5 ? Math.floor(last) - 1 : Math.max(Math.ceil(last), x + 1));
    const line = lane * width;
    for (; x < until; x += 1) if (grid[line + x] < cell) grid[line + x] = cell;
  }
  return grid;
}

/** Where a lane was idle while something that ran in it later was ready. */
function waits(run, grid, from, scale, width, now) {
  const paint = (lane, since, until) => {
    let x = Math.max(0, Math.floor((since - from) * scale));
    const last = Math.min(width, Math.floor((until - from) * scale));
    for (const line = lane * width; x < last; x += 1) if (!grid[line + x]) grid[line + x] = CELL.wait;
  };
  // of items: from when their for_each was ready until the last of them in this lane began
  const latest = new Map();
  for (let row = 0; row < run.count; row += 1) {
    const lane = run.slot[row];
    if (lane < 0) continue;
    if (run.item[row] === NO_ITEM) {
      const ready = run.readyAt(row);
      if (!Number.isNaN(ready)) paint(lane, ready, run.start[row]);
      continue;
    }
    const key = run.action[row] * 65_536 + lane;
    if (!(latest.get(key) >= run.start[row])) latest.set(key, run.start[row]);
  }
  for (const [key, start] of latest) {
    const action = Math.floor(key / 65_536);
    const whole = run.find(action);
    if (whole < 0) continue;
    const waitsOn = run.info.finished_at === null && !isFinal(run.status[whole]);
    paint(key % 65_536, run.ready.get(action) ?? run.start[whole], waitsOn ? now : start);
  }
}

/** For each action that has begun: how many of its tasks ran at once in each pixel, in the mean, and how many
 * failed there. */
export function densities(run, from, to, width, now, hide) {
  const scale = width / (to - from);
  const found = run.actions.map(() => null);
  const { count, action, item, start, end, status } = run;
  for (let row = 0; row < count; row += 1) {
    if (Number.isNaN(start[row])) continue;
    const place = action[row];
    if (item[row] === NO_ITEM && run.actions[place].for_each) continue;
    let own = found[place];
    if (!own) {
      own = found[place] = {
        change: new Int32Array(width + 2), part: new Float64Array(width + 1), failed: new Uint16Array(width), running: null, peak: 0,
      };
    }
    if (hide && status[row] === CODE.succeeded) continue;
    const last = ((Number.isNaN(end[row]) ? now : end[row]) - from) * scale;
    const first = Math.max(0, (start[row] - from) * scale);
    if (last < 0 || first >= width) continue;
    const x = Math.floor(first);
    const until = Math.min(width, Math.floor(last));
    if (x === until) {
      own.part[x] += last - first;
    } else {
      own.part[x] += x + 1 - first;
      own.part[until] += last < width ? last - until : 0;
      own.change[x + 1] += 1;
      own.change[until] -= 1;
    }
    if (isBad(status[row]) && last < width) own.failed[Math.floor(last)] += 1;
  }
  for (const own of found) {
    if (!own) continue;
    own.running = new Float64Array(width);
    for (let x = 0, whole = 0; x < width; x += 1) {
      whole += own.change[x];
      own.running[x] = whole + own.part[x];
      if (own.running[x] > own.peak) own.peak = own.running[x];
    }
  }
  return found;
}

/** The same of a run that is too large for columns, from what the server counted. */
export function densitiesOf(run, counted) {
  return run.actions.map((_, place) => {
    const own = counted?.actions[place];
    if (!own) return null;
    return { running: own.running, failed: own.failed, peak: own.running.reduce((most, one) => Math.max(most, one), 0) };
  });
}

/** The sum over all actions, for the brush. */
export function total(densities_, width) {
  const running = new Float64Array(width);
  const failed = new Uint8Array(width);
  for (const own of densities_) {
    if (!own) continue;
    // counted by the server in fewer bins than there are pixels, where the page is very wide
    const bins = own.running.length / width;
    for (let x = 0; x < width; x += 1) {
      const bin = Math.floor(x * bins);
      running[x] += own.running[bin];
      if (own.failed[bin]) failed[x] = 1;
    }
  }
  return { running, failed, peak: running.reduce((most, one) => Math.max(most, one), 0) };
}

/** Runs of equal cells of a line: calls `draw(cell, from, to)` for each but the empty ones. */
export function eachStretch(grid, line, width, draw) {
  let x = 0;
  while (x < width) {
    const cell = grid[line + x];
    let until = x + 1;
    while (until < width && grid[line + until] === cell) until += 1;
    if (cell) draw(cell, x, until);
    x = until;
  }
}

/** Moments for the marks of an axis, about one in `spacing` pixels: [ms, label]. */
export function ticks(from, to, width, spacing = 110) {
  const wanted = ((to - from) / width) * spacing;
  const step = STEPS.find((one) => one >= wanted) ?? Math.ceil(wanted / 86_400_000) * 86_400_000;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push([at, label(at, step)]);
  return found;
}

const STEPS = [0.001, 0.002, 0.005].flatMap((one) => [1, 10, 100, 1000].map((by) => one * by)).sort((a, b) => a - b)
  .concat([10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000])
  .concat([1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440].map((minutes) => minutes * 60_000));

function label(ms, step) {
  if (step < 0.1) return `${Math.round(ms * 1000)} µs`;
  if (step < 1000) return ms < 1000 && step < 100 ? `${Number(ms.toFixed(2))} ms` : `${Number((ms / 1000).toFixed(3))} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24 ? `${hours % 24} h` : ""}`;
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}
