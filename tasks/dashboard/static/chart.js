// Lines over time on a canvas, in the colours of the theme; read beside a table that has the same facts.

import { html, onTheme, useEffect, useRef } from "./lib.js";

/**
 * Draw series as lines. `series`: [{ points: [[x, y|null]…], colour: "--css-variable", fill, dashed }], `from` and `to`:
 * the range of x, `most`: the top of y (0: by the points), `marks`: x of vertical lines.
 */
export function Chart({ series, from, to, most = 0, marks = [], height = 32, axis = null, label }) {
  const canvas = useRef(null);
  const newest = useRef(null);
  newest.current = () => canvas.current && draw(canvas.current, { series, from, to, most, marks, axis });
  useEffect(() => newest.current());
  useEffect(() => {
    const again = () => newest.current();
    const sizes = new ResizeObserver(again);
    sizes.observe(canvas.current);
    const end = onTheme(() => requestAnimationFrame(again));
    return () => { sizes.disconnect(); end(); };
  }, []);
  const known = label ? { role: "img", "aria-label": label } : { "aria-hidden": "true" };
  return html`<canvas ref=${canvas} class="flow-chart" style=${{ height: `${height}px` }} ...${known}></canvas>`;
}

const LEFT = 46;
const BELOW = 18;

function draw(canvas, { series, from, to, most, marks, axis }) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const colours = getComputedStyle(canvas);
  const colour = (name) => colours.getPropertyValue(name).trim() || "#888";
  const left = axis ? LEFT : 0;
  const bottom = height - (axis ? BELOW : 1);
  const top = axis ? 6 : 2;
  const highest = most || niceTop(Math.max(0, ...series.flatMap(({ points }) => points.map(([, y]) => y ?? 0))));
  const x = (value) => left + ((value - from) / (to - from)) * (width - left);
  const y = (value) => bottom - (Math.min(value, highest) / highest) * (bottom - top);

  if (axis) {
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("--flower-text-muted");
    pen.strokeStyle = colour("--flow-grid");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const part of [0, 0.5, 1]) {
      const level = Math.round(y(highest * part)) + 0.5;
      line(pen, [[left, level], [width, level]]);
      pen.fillText(axis.y(highest * part), left - 6, level);
    }
    pen.textBaseline = "alphabetic";
    for (const [place, align] of [[0, "left"], [0.5, "center"], [1, "right"]]) {
      pen.textAlign = align;
      pen.fillText(axis.x(from + (to - from) * place), left + (width - left) * place, height - 4);
    }
  }
  pen.strokeStyle = colour("--flow-queued");
  pen.setLineDash([2, 3]);
  for (const mark of marks) if (mark >= from && mark <= to) line(pen, [[x(mark), top], [x(mark), bottom]]);
  pen.setLineDash([]);
  for (const { points, colour: name, fill, dashed } of series) {
    pen.strokeStyle = pen.fillStyle = colour(name);
    pen.lineWidth = 1.5;
    pen.setLineDash(dashed ? [4, 3] : []);
    for (const stretch of stretches(points.filter(([at]) => at >= from))) {
      const places = stretch.map(([at, value]) => [x(at), y(value)]);
      if (places.length === 1) dot(pen, ...places[0]);
      else line(pen, places);
      if (fill && places.length > 1) {
        pen.globalAlpha = 0.13;
        pen.lineTo(places.at(-1)[0], bottom);
        pen.lineTo(places[0][0], bottom);
        pen.fill();
        pen.globalAlpha = 1;
      }
    }
  }
  pen.setLineDash([]);
}

function line(pen, places) {
  pen.beginPath();
  places.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

/** A point between two gaps. */
function dot(pen, x, y) {
  pen.beginPath();
  pen.arc(x, y, 2, 0, 2 * Math.PI);
  pen.fill();
}

/** Points without a value part the line. */
function stretches(points) {
  const found = [];
  let open = null;
  for (const point of points) {
    if (point[1] === null || point[1] === undefined) open = null;
    else if (open) open.push(point);
    else found.push((open = [point]));
  }
  return found;
}

function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 5, 10].find((step) => step * power >= value * 1.05) * power || 10 * power;
}
