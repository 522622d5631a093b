// Charts as inline SVG: drawn at the width there is, drawn again when it changes, read by mouse, touch and keyboard.
// Colours come from the style sheet by class (s0…s6), so that a change of theme needs no redrawing.

const COLOURS = 7;
const DASHES = ["", "7 4", "2 4", "9 4 2 4", "12 5", "4 3", "1 3"];
const MARKS = ["circle", "square", "diamond", "triangle"];
let chartCount = 0;

/** Round steps that cover `low` to `high` in about `count` ticks. */
function steps(low, high, count = 5) {
  const rough = (high - low || 1) / count;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * size).find((s) => s >= rough * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(value);
  return found;
}

function powers(low, high) {
  const found = [];
  for (let value = 2 ** Math.floor(Math.log2(low)); value <= high * 1.001; value *= 2) if (value >= low * 0.999) found.push(value);
  return found.length > 8 ? found.filter((_, place) => place % 2 === (found.length - 1) % 2) : found;
}

function scale(axis, from, to) {
  const [low, high] = axis.domain;
  const at = axis.log ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => (value - low) / (high - low);
  return (value) => from + (to - from) * (high === low ? 0.5 : at(value));
}

/**
 * The frame of every chart: heading, a sentence, legend, drawing, links to the same figure as files.
 * `spec`: title, about, legend [[series, name]], files (name in figures/), height; `draw(width, height)` returns
 * {nodes, stops}: the SVG's children, and `{x, y, rows}` places that the tooltip walks over.
 */
function chart(spec, draw) {
  const id = `chart-${(chartCount += 1)}`;
  const canvas = svg("svg", { role: "img", tabindex: 0, "aria-labelledby": `${id}-t ${id}-d`, class: "canvas" });
  const box = el("div", { class: "plot" }, canvas);
  const heading = spec.small ? null : el("h3", {}, text(spec.title));
  const figure = el("figure", { class: spec.wide ? "chart wide" : "chart" },
    heading,
    spec.about ? el("p", { class: "about" }, text(spec.about)) : null,
    spec.legend && spec.legend.length ? legend(spec.legend) : null,
    box,
    spec.files ? fileLinks(spec.files) : null);
  let drawn = null;
  let width = 0;
  const redraw = () => {
    if (!box.clientWidth || box.clientWidth === width) return;
    width = box.clientWidth;
    const height = typeof spec.height === "function" ? spec.height(width) : spec.height ?? 280;
    drawn = draw(width, height);
    canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    canvas.setAttribute("width", width);
    canvas.setAttribute("height", height);
    canvas.replaceChildren(svg("title", { id: `${id}-t` }, line(spec.title)),
      svg("desc", { id: `${id}-d` }, line(`${spec.about ?? ""} ${spec.say ?? ""}`, 500)), ...drawn.nodes);
  };
  new ResizeObserver(redraw).observe(box);
  hover(canvas, () => drawn, spec);
  return figure;
}

function legend(entries) {
  return el("ul", { class: "legend" }, entries.map(([series, name, shape]) => el("li", {}, swatch(series, shape), el("span", {}, text(name)))));
}

function swatch(series, shape = "line") {
  if (shape === "box") return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, svg("rect", { width: 12, height: 12, rx: 2, class: series }));
  if (shape === "dot") return svg("svg", { width: 12, height: 12, "aria-hidden": "true" }, mark(series, 6, 6, 4));
  return svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
    svg("path", { d: "M1 6H25", class: `line ${tone(series)}`, "stroke-dasharray": shape === "line" ? DASHES[series % DASHES.length] : null }),
    shape === "line" ? mark(series, 13, 6) : null);
}

const tone = (series) => (series < 0 ? "ramp" : `s${series % COLOURS}`);

function mark(series, x, y, size = 3.4) {
  const attributes = { class: `mark ${tone(series)}` };
  switch (MARKS[series % MARKS.length]) {
    case "square": return svg("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...attributes });
    case "diamond": return svg("path", { d: `M${x} ${y - 1.35 * size}l${1.35 * size} ${1.35 * size}l${-1.35 * size} ${1.35 * size}l${-1.35 * size} ${-1.35 * size}z`, ...attributes });
    case "triangle": return svg("path", { d: `M${x} ${y - 1.2 * size}l${1.2 * size} ${2.2 * size}h${-2.4 * size}z`, ...attributes });
    default: return svg("circle", { cx: x, cy: y, r: size, ...attributes });
  }
}

function fileLinks(name) {
  const endings = DATA.drawn ? ["csv", "svg", "png"] : ["csv"];
  return el("p", { class: "files" }, endings.map((ending) => el("a", { href: `figures/${name}.${ending}`, download: `${name}.${ending}` }, ending.toUpperCase())));
}

/** Axes with ticks and units around a plot area; returns the scales, the area, and the nodes. */
function axes(x, y, width, height) {
  const yNames = y.ticks.map(y.format ?? number);
  const area = { left: 14 + 7 * Math.max(...yNames.map((name) => name.length)), right: width - 14, top: 26, bottom: height - 42 };
  const toX = scale(x, area.left, area.right);
  const toY = scale(y, area.bottom, area.top);
  const nodes = [svg("text", { x: 0, y: 12, class: "unit" }, y.label), svg("text", { x: area.right, y: height - 4, class: "unit", "text-anchor": "end" }, x.label)];
  y.ticks.forEach((value, place) => {
    const at = Math.round(toY(value)) + 0.5;
    nodes.push(svg("path", { d: `M${area.left} ${at}H${area.right}`, class: value === y.domain[0] ? "axis" : "grid" }),
      svg("text", { x: area.left - 8, y: at + 4, class: "tick", "text-anchor": "end" }, yNames[place]));
  });
  let free = -Infinity;
  for (const value of x.ticks) {
    const name = (x.format ?? number)(value);
    const at = toX(value);
    const half = 3.6 * name.length;
    if (at - half < free) continue;
    free = at + half + 8;
    nodes.push(svg("path", { d: `M${at} ${area.bottom}v4`, class: "axis" }), svg("text", { x: at, y: area.bottom + 18, class: "tick", "text-anchor": "middle" }, name));
  }
  return { toX, toY, area, nodes };
}

/**
 * Lines with bands of uncertainty. `spec.series`: [{series, name, points: [{x, y, low, high, note}], bare, step}];
 * `spec.x`, `spec.y`: {label, domain, ticks, format, log}. `bars`: intervals as bars instead of a band.
 */
function lineChart(spec) {
  return chart({ legend: spec.series.map(({ series, name, bare }) => [series, name, bare ? "bare" : spec.apart ? "dot" : "line"]), ...spec }, (width, height) => {
    const { toX, toY, area, nodes } = axes(spec.x, spec.y, width, height);
    const lines = [];
    const stops = new Map();
    for (const { series, name, points, bare, dots } of spec.series) {
      const dash = bare ? null : DASHES[series % DASHES.length];
      const known = points.filter((point) => point.y !== null && point.y !== undefined);
      const place = known.map((point) => [toX(point.x), toY(point.y)]);
      const banded = known.filter((point) => point.low !== null && point.low !== undefined);
      if (banded.length && spec.bars) {
        for (const point of banded) lines.push(svg("path", { d: `M${toX(point.x)} ${toY(point.low)}V${toY(point.high)}`, class: `whisker ${tone(series)}` }));
      } else if (banded.length > 1) {
        const upper = banded.map((point) => `${toX(point.x)} ${toY(point.high)}`);
        const lower = banded.map((point) => `${toX(point.x)} ${toY(point.low)}`).reverse();
        nodes.push(svg("path", { d: `M${[...upper, ...lower].join("L")}Z`, class: `band ${tone(series)}` }));
      }
      if (!dots && place.length > 1) lines.push(svg("path", { d: `M${place.map((at) => at.join(" ")).join("L")}`, class: `line ${tone(series)}`, "stroke-dasharray": dash }));
      if (!bare && place.length <= 40) lines.push(...place.map(([x, y]) => mark(series, x, y, dots ? 5 : 3.4)));
      known.forEach((point, at) => {
        const stop = stops.get(spec.apart ? `${series}/${at}` : point.x) ?? { x: place[at][0], y: place[at][1], head: point.head ?? spec.x.head(point.x), rows: [] };
        stop.rows.push([series, point.name ?? name, point.note]);
        stop.y = Math.min(stop.y, place[at][1]);
        stops.set(spec.apart ? `${series}/${at}` : point.x, stop);
      });
    }
    return { nodes: [...nodes, ...lines], stops: [...stops.values()].sort((a, b) => a.x - b.x), area, crosshair: !spec.apart };
  });
}

/** Grouped bars: `spec.categories` of x, `spec.series`: [{series, name, values}] with a value for each. */
function barChart(spec) {
  return chart({ legend: spec.series.map(({ series, name }) => [`bar ${tone(series)}`, name, "box"]), ...spec }, (width, height) => {
    const count = spec.categories.length;
    const x = { label: spec.x.label, domain: [-0.5, count - 0.5], ticks: spec.categories.map((_, place) => place), format: (place) => String(spec.categories[place]) };
    const { toX, toY, area, nodes } = axes(x, spec.y, width, height);
    const room = (area.right - area.left) / count;
    const each = Math.min(30, (room * 0.78) / spec.series.length);
    const stops = spec.categories.map((category, place) => {
      const left = toX(place) - (each * spec.series.length) / 2;
      spec.series.forEach(({ series, values }, nth) => {
        const top = toY(values[place]);
        if (values[place] > 0) nodes.push(svg("rect", { x: left + nth * each, y: top, width: Math.max(1, each - 1.5), height: Math.max(1, area.bottom - top), class: `bar ${tone(series)}` }));
      });
      const rows = spec.series.map(({ series, name, notes }) => [series, name, notes[place]]);
      return { x: toX(place), y: toY(Math.max(...spec.series.map(({ values }) => values[place]))), head: spec.x.head(category), rows };
    });
    return { nodes, stops, area, crosshair: false };
  });
}

/** A bar for each line, of parts: `spec.lines`: [{name, note, parts: [{class, name, share, note}]}]; `spec.ticks`: [[share, name]]. */
function shareChart(spec) {
  const tall = Math.min(62, Math.max(44, Math.floor(250 / spec.lines.length)));
  return chart({ ...spec, height: spec.lines.length * tall + 30 }, (width, height) => {
    const right = width - 1;
    const nodes = [];
    const stops = [];
    spec.lines.forEach(({ name, parts, note }, place) => {
      const top = place * tall + 20;
      nodes.push(svg("text", { x: 0, y: top - 6, class: "name" }, line(name, Math.floor(width / 9))), svg("text", { x: right, y: top - 6, class: "tick", "text-anchor": "end" }, note));
      let from = 0;
      for (const part of parts) {
        const to = from + right * part.share;
        if (part.share > 0) {
          nodes.push(svg("rect", { x: from, y: top, width: Math.max(1, to - from - (to < right ? 1.5 : 0)), height: 16, class: part.class }));
          stops.push({ x: (from + to) / 2, y: top, from, to, top: top - 16, bottom: top + 26, head: line(name), rows: [[null, part.name, part.note]] });
        }
        from = to;
      }
    });
    for (const [share, name] of spec.ticks) {
      const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
      nodes.push(svg("text", { x: right * share, y: height - 4, class: "tick", "text-anchor": anchor }, name));
    }
    return { nodes, stops, crosshair: false };
  });
}

/** Shows the nearest stop of a chart in the tooltip; arrow keys walk from stop to stop. */
function hover(canvas, drawn, spec) {
  const tip = document.getElementById("tip");
  let at = -1;
  const hide = () => {
    at = -1;
    tip.hidden = true;
    canvas.querySelector(".cross")?.remove();
  };
  const show = (place) => {
    const { stops, area, crosshair } = drawn();
    const stop = stops[place];
    at = place;
    canvas.querySelector(".cross")?.remove();
    if (crosshair) canvas.append(svg("path", { class: "cross", d: `M${stop.x} ${area.top}V${area.bottom}` }));
    tip.replaceChildren(el("strong", {}, text(stop.head)), ...stop.rows.slice(0, 8).map(([series, name, note]) =>
      el("div", {}, series === null ? null : swatch(`bar ${tone(series)}`, "box"), el("span", {}, text(name)), el("b", {}, text(String(note))))));
    tip.hidden = false;
    const frame = canvas.getBoundingClientRect();
    const left = Math.min(frame.left + stop.x + 14, window.innerWidth - tip.offsetWidth - 8);
    const above = frame.top + stop.y - tip.offsetHeight - 10;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above < 8 ? frame.top + stop.y + 22 : above}px`;
  };
  const nearest = (event) => {
    const frame = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    const far = (stop) => {
      if (stop.to !== undefined) return x >= stop.from && x <= stop.to && y >= stop.top && y <= stop.bottom ? 0 : Infinity;
      return spec.apart ? Math.hypot(stop.x - x, stop.y - y) : Math.abs(stop.x - x);
    };
    const found = drawn().stops.reduce((best, stop, place) => (far(stop) < best[0] ? [far(stop), place] : best), [Infinity, -1]);
    return found[1];
  };
  canvas.addEventListener("pointermove", (event) => {
    const place = drawn() ? nearest(event) : -1;
    if (place < 0) hide();
    else if (place !== at) show(place);
  });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("blur", hide);
  canvas.addEventListener("click", (event) => {
    const place = nearest(event);
    if (spec.pick && place >= 0) spec.pick(drawn().stops[place], drawn().area);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || !drawn() || !drawn().stops.length) return;
    event.preventDefault();
    event.stopPropagation();
    show(Math.min(drawn().stops.length - 1, Math.max(0, at + step)));
  });
}
