// Elements, text and numbers. Everything a model wrote reaches the page through `text`, as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; `on` holds listeners, `null` attributes are left out, strings become text nodes. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

// Controls, bidi marks, tags, separators, lone surrogates and letters without ink. Line breaks, tabs and joiners pass.
const UNSEEN = /(?![\t\n\r\u200c\u200d])([\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0])\1*/gu;
const MOST_UNSEEN = 2000;

/** Return `value` as nodes in which what cannot be seen is spelled out, so that no text can pretend to be another. */
function text(value) {
  const nodes = [];
  let end = 0;
  for (const found of value.matchAll(UNSEEN)) {
    if (nodes.length > 2 * MOST_UNSEEN) return [...nodes, value.slice(end).replace(UNSEEN, "\ufffd")];
    if (found.index > end) nodes.push(value.slice(end, found.index));
    const code = found[1].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    const times = found[0].length / found[1].length;
    nodes.push(el("span", { class: "unseen", title: "a character that cannot be seen" }, `U+${code}${times > 1 ? `×${times}` : ""}`));
    end = found.index + found[0].length;
  }
  if (end < value.length) nodes.push(value.slice(end));
  return nodes;
}

/** One line of a text, cut to `most` characters; what cannot be seen is a mark. */
function line(value, most = 220) {
  return value.slice(0, most).replace(/\s+/g, " ").replace(UNSEEN, "\ufffd").trim();
}

const whole = (value) => Math.round(value).toLocaleString("en-US");

/** Three digits that matter: 0.123, 1.23, 12.3, 123, 1,234. */
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 100) return whole(value);
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3).replace(/\.?0+$/, "");
}

/** Counts of tokens, short: 640, 4.2k, 31k, 1.2M. */
function short(value) {
  if (value === null || value === undefined) return "–";
  for (const [unit, size] of [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(value) >= size * 0.9995) return `${(value / size).toFixed(value / size < 9.95 ? 1 : 0).replace(/\.0$/, "")}${unit}`;
  }
  return number(value);
}

const percent = (share) => (share === null || share === undefined ? "–" : (100 * share).toFixed(1));

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 600) return `${(value / 60).toFixed(1)} min`;
  return `${value >= 100 ? whole(value) : value.toFixed(value >= 10 ? 1 : 2)} s`;
}

const plural = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Group `items` by what `key` gives, in the order of first sight. */
function groups(items, key) {
  const found = new Map();
  for (const item of items) {
    const name = key(item);
    if (found.has(name)) found.get(name).push(item);
    else found.set(name, [item]);
  }
  return found;
}

/** A choice out of few, as joined buttons. `choose` is called with the value. */
function segmented(label, choices, chosen, choose) {
  const box = el("div", { class: "segmented", role: "group", "aria-label": label });
  const mark = (value) => {
    for (const button of box.children) button.setAttribute("aria-pressed", String(button.value === value));
  };
  for (const [value, name] of choices) {
    const pick = () => {
      mark(value);
      choose(value);
    };
    box.append(el("button", { type: "button", value, on: { click: pick } }, name));
  }
  mark(chosen);
  return box;
}
