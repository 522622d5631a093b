// The page: its state is the address behind #, so that every view can be linked to and the browser's Back works.

const KNOWN = ["view", ...FILTERS, "sort", "desc", "open", "of", "sample", "round", "change"];
const hash = (state) => `#${new URLSearchParams(KNOWN.filter((name) => state[name] !== undefined && state[name] !== null).map((name) => [name, state[name]]))}`;
const KEYS = [
  ["/", "search"], ["j  k", "next, previous trajectory or pair"], ["n  p", "next, previous round"], ["t", "open or fold the round's thought"],
  ["o", "overview"], ["l", "list of trajectories"], ["d", "dark or light"], ["Esc", "close"], ["← →", "walk along a chart"], ["?", "this help"],
];

/** Read the address; what is not known is left out. */
function readHash() {
  const found = new URLSearchParams(window.location.hash.slice(1));
  return Object.fromEntries(KNOWN.filter((name) => found.has(name)).map((name) => [name, found.get(name)]));
}

let state = readHash();

/** Change the state; `quietly` leaves no entry in the browser's history. */
function change(news, quietly = false) {
  const next = { ...readHash(), view: "browse", ...news };
  const opened = next.open !== state.open || next.of !== state.of || next.sample !== state.sample;
  if (hash(next) === window.location.hash) return;
  if (quietly || !opened) window.history.replaceState(null, "", hash(next));
  else window.history.pushState(null, "", hash(next));
  show();
}

const list = makeList(change);
const reader = makeReader(change, list);
const pairs = makePairs(change);
document.getElementById("browse").append(list.node, reader.node);
document.getElementById("pair").append(pairs.node);
document.querySelector("nav [data-view=pair]").hidden = !hasPairs();

let overview = false;
function show() {
  state = readHash();
  const browse = state.view === "browse";
  const paired = state.view === "pair";
  document.getElementById("overview").hidden = browse || paired;
  document.getElementById("pair").hidden = !paired;
  document.getElementById("browse").hidden = !browse;
  document.body.classList.toggle("browsing", browse);
  document.getElementById("browse").classList.toggle("reading", state.open !== undefined);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === (browse ? "browse" : paired ? "pair" : "overview")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (browse) {
    list.update(state);
    reader.show(state);
  } else if (paired) {
    pairs.show(state);
  } else if (!overview) {
    overview = true;
    drawOverview();
  }
}

// Light or dark: the reader's own choice if there was one, else the system's.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const remembered = (value) => {
  try {
    if (value) window.localStorage.setItem("inftythink-theme", value);
    return window.localStorage.getItem("inftythink-theme");
  } catch {
    return value ?? null; // storage may be switched off: then the choice lasts as long as the page
  }
};
function setTheme(chosen) {
  const theme = chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light";
  document.documentElement.dataset.theme = theme;
  const button = document.getElementById("theme");
  button.textContent = theme === "dark" ? "☀" : "☾";
  button.title = button.ariaLabel = theme === "dark" ? "Switch to light (d)" : "Switch to dark (d)";
}
const switchTheme = () => setTheme(remembered(document.documentElement.dataset.theme === "dark" ? "light" : "dark") ?? "dark");

const help = document.getElementById("help");
help.append(el("h2", { id: "help-title" }, "Keyboard"), el("dl", {}, KEYS.map(([keys, name]) => [el("dt", {}, keys.split("  ").map((key) => el("kbd", {}, key))), el("dd", {}, name)])),
  el("form", { method: "dialog" }, el("button", {}, "Close")));

const DOES = {
  "/": () => {
    change({ view: "browse" });
    list.controls.search.focus();
  },
  j: () => (state.view === "pair" ? pairs : reader).step(1),
  k: () => (state.view === "pair" ? pairs : reader).step(-1),
  n: () => reader.turn(1),
  p: () => reader.turn(-1),
  t: () => reader.toggle(),
  o: () => { window.location.hash = hash({ view: "overview" }); },
  l: () => change({ view: "browse" }),
  d: switchTheme,
  "?": () => help.showModal(),
  Escape: () => { if (state.open !== undefined && state.view === "browse") reader.close(); },
};
const ONLY_BROWSING = new Set(["n", "p", "t"]);
const ONLY_READING = new Set(["j", "k"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.closest("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const inList = event.target.closest(".lines") && { ArrowDown: "j", ArrowUp: "k" }[event.key];
  const key = inList || event.key;
  if (!Object.hasOwn(DOES, key) || (ONLY_BROWSING.has(key) && state.view !== "browse")) return;
  if (ONLY_READING.has(key) && state.view !== "browse" && state.view !== "pair") return;
  event.preventDefault();
  DOES[key]();
});
document.getElementById("keys").addEventListener("click", () => help.showModal());
document.getElementById("theme").addEventListener("click", switchTheme);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
dark.addEventListener("change", () => setTheme(remembered()));
window.addEventListener("hashchange", show);
window.addEventListener("popstate", show);
setTheme(remembered());
show();
document.documentElement.dataset.ready = "yes";
window.performance.mark("ready");
