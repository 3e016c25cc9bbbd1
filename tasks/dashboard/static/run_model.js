// A run as the page holds it: typed arrays of all tasks, kept up to date by frames. No drawing here.
// Times are ms from the run's origin, NaN where there is none. A task is known by its row, which never changes.

export const STATUSES = [
  "pending", "running", "succeeded", "failed", "timed_out", "cancelled", "skipped", "upstream_failed",
];
export const CODE = Object.fromEntries(STATUSES.map((status, code) => [status, code]));
export const isFinal = (code) => code > CODE.running;
export const isBad = (code) => code === CODE.failed || code === CODE.timed_out || code === CODE.upstream_failed;
export const NO_ITEM = -1;
/** Where a row has no lane. */
export const NO_LANE = -1;
const NO_WORKER = -1;

export class Run {
  constructor(picture) {
    this.load(picture);
  }

  load(picture) {
    this.info = picture.run;
    this.origin = picture.origin;
    this.mark = picture.mark;
    this.actions = picture.graph.actions;
    this.graph = picture.graph;
    this.progress = picture.progress;
    this.total = picture.total;
    this.paged = picture.columns === null;
    this.most = picture.most;
    this.workers = picture.workers;
    this.workerNumber = new Map(this.workers.map((name, number) => [name, number]));
    this.laneWorker = picture.lanes.slice();
    /** When each branch was ready, by its first action, ms. */
    this.ready = new Map(Object.entries(picture.ready_us).map(([place, us]) => [Number(place), us / 1000]));
    this.places = this.actions.map(() => null);
    this.behind = false;
    const columns = picture.columns ?? { action: [], item: [], status: [], attempt: [], worker: [], start: [], end: [], slot: [] };
    const count = columns.item.length;
    this.count = 0;
    this.grow(Math.max(1024, Math.ceil(count * 1.25)));
    this.count = count;
    const unit = picture.unit_us / 1000;
    this.action.set(columns.action);
    this.item.set(columns.item);
    this.status.set(columns.status);
    this.attempt.set(columns.attempt);
    this.worker.set(columns.worker);
    this.slot.set(columns.slot);
    for (let row = 0; row < count; row += 1) {
      this.start[row] = columns.start[row] === null ? NaN : columns.start[row] * unit;
      this.end[row] = columns.end[row] === null ? NaN : columns.end[row] * unit;
      this.index(row);
    }
    this.laneEnd = this.laneWorker.map(() => -Infinity);
    for (let row = 0; row < count; row += 1) this.occupy(row);
    this.actions.forEach((_, place) => this.beginWhole(place));
    /** Rows before this one are sorted by action and item. */
    this.sorted = count;
    this.order = null;
  }

  grow(capacity) {
    const make = (name, kind) => {
      const array = new kind(capacity);
      if (this.count) array.set(this[name].subarray(0, this.count));
      this[name] = array;
    };
    this.capacity = capacity;
    make("action", Uint16Array);
    make("item", Int32Array);
    make("status", Uint8Array);
    make("attempt", Uint16Array);
    make("worker", Int16Array);
    make("slot", Int16Array);
    make("start", Float64Array);
    make("end", Float64Array);
  }

  index(row) {
    const action = this.action[row];
    const at = this.item[row] + 1;
    let known = this.places[action];
    if (!known || known.length <= at) {
      const larger = new Int32Array(Math.max(at + 1, (known?.length ?? 0) * 2, 4));
      if (known) larger.set(known);
      known = this.places[action] = larger;
    }
    known[at] = row + 1;
  }

  /** The row of a task, -1: none is known. */
  find(action, item = NO_ITEM) {
    return (this.places[action]?.[item + 1] ?? 0) - 1;
  }

  /** The row for a task, new if need be. */
  rowOf(action, item) {
    const known = this.find(action, item);
    if (known >= 0) return known;
    if (this.count === this.capacity) this.grow(this.capacity * 2);
    const row = this.count;
    this.count += 1;
    this.action[row] = action;
    this.item[row] = item;
    this.status[row] = CODE.pending;
    this.attempt[row] = 0;
    this.worker[row] = NO_WORKER;
    this.slot[row] = NO_LANE;
    this.start[row] = this.end[row] = NaN;
    this.index(row);
    this.order = null;
    return row;
  }

  /** Take tasks that came in columns or lists: [action, item, status, attempt, worker's name, start µs, end µs]. */
  put(action, item, status, attempt, worker, start, end) {
    const row = this.rowOf(action, item);
    // a frame that was read earlier may come later
    if (isFinal(this.status[row]) && !isFinal(status) && attempt <= this.attempt[row]) return row;
    this.status[row] = status;
    this.attempt[row] = attempt;
    this.worker[row] = worker === null ? NO_WORKER : this.numberOf(worker);
    this.start[row] = start === null ? NaN : start / 1000;
    this.end[row] = end === null ? NaN : end / 1000;
    return row;
  }

  numberOf(worker) {
    let number = this.workerNumber.get(worker);
    if (number === undefined) {
      number = this.workers.push(worker) - 1;
      this.workerNumber.set(worker, number);
    }
    return number;
  }

  /** Take a frame of the stream; true: tasks have changed. */
  apply(frame, mark) {
    if (mark) this.mark = mark;
    Object.assign(this.info, frame.run);
    for (const [place, value] of Object.entries(frame.progress)) {
      this.progress[place] = value;
      this.beginWhole(Number(place));
    }
    if (frame.rows === null) {
      this.behind = true;
      return false;
    }
    const rows = frame.rows;
    const count = rows.item?.length ?? 0;
    for (let i = 0; i < count; i += 1) {
      if (this.paged && this.find(rows.action[i], rows.item[i]) < 0) continue;
      const row = this.put(
        rows.action[i], rows.item[i], rows.status[i], rows.attempt[i], rows.worker[i], rows.start[i], rows.end[i],
      );
      if (!this.paged) this.place(row);
    }
    if (this.paged && count) this.behind = true;
    return count > 0;
  }

  occupy(row) {
    const lane = this.slot[row];
    if (lane < 0) return;
    const end = Number.isNaN(this.end[row]) ? Infinity : this.end[row];
    if (end > this.laneEnd[lane] || this.laneEnd[lane] === Infinity) this.laneEnd[lane] = end;
  }

  /** A lane of its worker for a task that has begun: of those that are free the one that became so last. */
  place(row) {
    const start = this.start[row];
    if (Number.isNaN(start) || this.isWhole(row)) return;
    if (this.slot[row] < 0) {
      let best = -1;
      for (let lane = 0; lane < this.laneWorker.length; lane += 1) {
        if (this.laneWorker[lane] !== this.worker[row] || this.laneEnd[lane] > start + 0.5) continue;
        if (best < 0 || this.laneEnd[lane] > this.laneEnd[best]) best = lane;
      }
      if (best < 0) {
        best = this.laneWorker.push(this.worker[row]) - 1;
        this.laneEnd.push(-Infinity);
      }
      this.slot[row] = best;
    }
    this.occupy(row);
  }

  /** Whether a row is that of a for_each itself, which lasts as long as its items. */
  isWhole(row) {
    return this.item[row] === NO_ITEM && this.actions[this.action[row]].for_each;
  }

  name(row) {
    const name = this.actions[this.action[row]].name;
    return this.item[row] === NO_ITEM ? name : `${name}[${this.item[row]}]`;
  }

  /** Of a for_each a row is recorded when it ends; until then its progress says that it runs, and since when. */
  beginWhole(place) {
    const [status, , , , , , since] = this.progress[place] ?? [CODE.pending];
    const row = this.actions[place].for_each ? this.find(place) : -1;
    if (row < 0 || status !== CODE.running || isFinal(this.status[row])) return;
    this.status[row] = status;
    if (Number.isNaN(this.start[row]) && since !== null) this.start[row] = since / 1000;
  }

  /** ms that a task has run, NaN when it has not begun. */
  ran(row, now) {
    const end = Number.isNaN(this.end[row]) ? (this.status[row] === CODE.running ? now : NaN) : this.end[row];
    return end - this.start[row];
  }

  /** When a task could have begun, ms; NaN where nobody knows. */
  readyAt(row) {
    const action = this.action[row];
    if (this.item[row] === NO_ITEM) return this.ready.get(action) ?? NaN;
    const whole = this.find(action);
    return whole < 0 ? NaN : this.start[whole];
  }

  /** The last moment that the picture shows, ms. */
  last(now) {
    return this.info.finished_at === null ? Math.max(now, 1) : Math.max(this.info.finished_at - this.origin, 1);
  }

  /** All rows by action and item. */
  inOrder() {
    if (this.order) return this.order;
    const compare = (a, b) => this.action[a] - this.action[b] || this.item[a] - this.item[b];
    const tail = [];
    for (let row = this.sorted; row < this.count; row += 1) tail.push(row);
    tail.sort(compare);
    const order = new Int32Array(this.count);
    let one = 0;
    let other = 0;
    for (let at = 0; at < this.count; at += 1) {
      const first = other === tail.length || (one < this.sorted && compare(one, tail[other]) < 0);
      order[at] = first ? one : tail[other];
      if (first) one += 1;
      else other += 1;
    }
    this.order = order;
    return order;
  }

  /** Rows to show: `show` is all, failed, running or slowest; `of` an action's place or -1; `text` a part of a name. */
  view({ show, of, text }, now) {
    const wanted = text.trim().toLowerCase();
    const [, part, item] = wanted.match(/^(.*?)(?:\[(\d+)\]?)?$/);
    const fits = this.actions.map((action, place) => (of < 0 || of === place) && action.name.toLowerCase().includes(part));
    const rows = [];
    const order = this.inOrder();
    for (let at = 0; at < order.length; at += 1) {
      const row = order[at];
      if (!fits[this.action[row]]) continue;
      if (item !== undefined && this.item[row] !== Number(item)) continue;
      if (show === "failed" && !isBad(this.status[row])) continue;
      if (show === "running" && this.status[row] !== CODE.running) continue;
      if (show === "slowest" && (Number.isNaN(this.start[row]) || this.isWhole(row))) continue;
      rows.push(row);
    }
    if (show === "slowest") {
      const ran = new Float64Array(this.count);
      for (const row of rows) ran[row] = this.ran(row, now) || 0;
      rows.sort((a, b) => ran[b] - ran[a]);
    }
    return rows;
  }
}
