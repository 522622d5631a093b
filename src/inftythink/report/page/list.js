// The trajectory browser's list: filters and order over columns of numbers; only the lines in sight are elements.

const INDEX = DATA.index;
const ROWS = INDEX.trajectories;
const PROBLEMS = INDEX.problems;
const COUNT = ROWS.run.length;
const LINE = 62;
const SPARE = 6;
const GRADES = { right: 1, wrong: 0, none: null };
const GRADE_NAMES = new Map([[1, "right"], [0, "wrong"], [null, "no grade"]]);
const ORDERS = { file: "order of the run", rounds: "rounds", tokens: "tokens", peak: "peak context", seconds: "time", id: "problem" };
const FILTERS = ["run", "task", "outcome", "grade", "least", "most", "q"];

/** A text as an address can hold it. */
const sound = (value) => value.replace(/\p{Cs}/gu, "\ufffd");
const TASK_NAMES = INDEX.tasks.map(sound);

const idOf = (row) => PROBLEMS.id[ROWS.problem[row]];
const outcomeOf = (row) => INDEX.outcomes[ROWS.outcome[row]];
const sameOrder = new Intl.Collator("en", { numeric: true });

/** Return the rows that the state's filters let through, in its order. */
function select(state) {
  const wanted = (state.q ?? "").trim().toLowerCase();
  const problems = wanted ? PROBLEMS.id.map((id, place) => `${id}\n${PROBLEMS.question[place]}`.toLowerCase().includes(wanted)) : null;
  const run = state.run === undefined ? -1 : RUNS.indexOf(state.run);
  const task = state.task === undefined ? -1 : TASK_NAMES.indexOf(state.task);
  const outcome = state.outcome === undefined ? -1 : INDEX.outcomes.indexOf(state.outcome);
  const grade = Object.hasOwn(GRADES, state.grade ?? "") ? GRADES[state.grade] : undefined;
  const least = Number(state.least) || 0;
  const most = Number(state.most) || Infinity;
  const found = [];
  for (let row = 0; row < COUNT; row += 1) {
    const problem = ROWS.problem[row];
    if (state.run !== undefined && ROWS.run[row] !== run) continue;
    if (state.task !== undefined && PROBLEMS.task[problem] !== task) continue;
    if (state.outcome !== undefined && ROWS.outcome[row] !== outcome) continue;
    if (grade !== undefined && ROWS.correct[row] !== grade) continue;
    if (ROWS.rounds[row] < least || ROWS.rounds[row] > most) continue;
    if (problems && !problems[problem]) continue;
    found.push(row);
  }
  return order(found, state);
}

function order(rows, { sort, desc }) {
  if (sort === "id") {
    const rank = rankOfProblems();
    rows.sort((a, b) => rank[ROWS.problem[a]] - rank[ROWS.problem[b]] || ROWS.run[a] - ROWS.run[b] || ROWS.sample[a] - ROWS.sample[b]);
  } else if (Object.hasOwn(ORDERS, sort ?? "") && sort !== "file") {
    const column = ROWS[sort];
    rows.sort((a, b) => column[a] - column[b] || a - b);
  }
  return desc ? rows.reverse() : rows;
}

let ranks = null;
function rankOfProblems() {
  if (!ranks) {
    ranks = new Uint32Array(PROBLEMS.id.length);
    const places = PROBLEMS.id.map((_, place) => place);
    places.sort((a, b) => PROBLEMS.task[a] - PROBLEMS.task[b] || sameOrder.compare(PROBLEMS.id[a], PROBLEMS.id[b]));
    places.forEach((problem, rank) => { ranks[problem] = rank; });
  }
  return ranks;
}

/** The list: `update(state)` filters and draws, `move(step)` returns the row beside the open one. */
function makeList(change) {
  let rows = [];
  let open = -1;
  let shown = new Map();
  const count = el("p", { class: "count", role: "status" });
  const controls = makeControls(change);
  const inner = el("div", { class: "inner", role: "presentation" });
  const box = el("div", { class: "lines", role: "listbox", tabindex: 0, "aria-label": "Trajectories" }, inner);
  const node = el("aside", { class: "list" }, controls.node, count, box);

  const render = () => {
    const from = Math.max(0, Math.floor(box.scrollTop / LINE) - SPARE);
    const to = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / LINE) + SPARE);
    const next = new Map();
    for (let place = from; place < to; place += 1) {
      const line = shown.get(place) ?? makeLine(rows[place], place, rows.length);
      line.setAttribute("aria-selected", String(rows[place] === open));
      if (!line.isConnected) inner.append(line);
      next.set(place, line);
    }
    for (const [place, line] of shown) if (!next.has(place)) line.remove();
    shown = next;
    const active = rows.indexOf(open);
    if (shown.has(active)) box.setAttribute("aria-activedescendant", `line-${active}`);
    else box.removeAttribute("aria-activedescendant");
  };
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      render();
    });
  };
  box.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(soon).observe(box);
  box.addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    if (line) change(address(Number(line.dataset.row)));
  });

  let filtered = null;
  return {
    node,
    controls,
    update(state) {
      const key = JSON.stringify([...FILTERS, "sort", "desc"].map((name) => state[name] ?? null));
      if (key !== filtered) {
        filtered = key;
        rows = select(state);
        for (const line of shown.values()) line.remove();
        shown = new Map();
        inner.style.height = `${rows.length * LINE}px`;
        box.scrollTop = 0;
        count.textContent = rows.length === COUNT ? `${whole(COUNT)} trajectories` : `${whole(rows.length)} of ${whole(COUNT)} trajectories`;
        inner.classList.toggle("empty", !rows.length);
      }
      controls.update(state);
      render();
    },
    select(row) {
      open = row;
      const place = rows.indexOf(row);
      if (place >= 0) {
        const top = place * LINE;
        if (top < box.scrollTop) box.scrollTop = top;
        else if (top + LINE > box.scrollTop + box.clientHeight) box.scrollTop = top + LINE - box.clientHeight;
      }
      render();
    },
    move(step) {
      const place = rows.indexOf(open);
      return rows[Math.min(rows.length - 1, Math.max(0, place < 0 ? 0 : place + step))];
    },
    place: () => [rows.indexOf(open), rows.length],
    focus: () => box.focus({ preventScroll: true }),
  };
}

function makeLine(row, place, total) {
  const grade = ROWS.correct[row];
  const id = idOf(row);
  const facts = [plural(ROWS.rounds[row], "round"), `${short(ROWS.tokens[row])} tok`];
  const outcome = outcomeOf(row);
  const node = el("div", { class: "line", id: `line-${place}`, role: "option", "data-row": row, "aria-posinset": place + 1, "aria-setsize": total },
    verdict(grade),
    el("span", { class: "what" },
      el("span", { class: "top" }, el("b", {}, text(line(id, 80))), el("span", { class: "dim" }, `#${ROWS.sample[row]}`),
        RUNS.length > 1 ? el("span", { class: `run-name c${ROWS.run[row] % COLOURS}` }, text(line(RUNS[ROWS.run[row]], 60))) : null),
      el("span", { class: "ask" }, text(line(PROBLEMS.question[ROWS.problem[row]])))),
    el("span", { class: "facts" }, el("span", {}, facts.join(" · ")), el("span", {}, outcome === "answered" ? null : [el("span", { class: `outcome ${outcome}` }, OUTCOME_NAMES[outcome]), " · "], seconds(ROWS.seconds[row]))));
  node.style.transform = `translateY(${place * LINE}px)`;
  return node;
}

function verdict(grade) {
  const [sign, name] = grade === 1 ? ["✓", "right"] : grade === 0 ? ["✕", "wrong"] : ["?", "none"];
  return el("span", { class: `verdict ${name}`, role: "img", "aria-label": GRADE_NAMES.get(grade), title: GRADE_NAMES.get(grade) }, sign);
}

const address = (row) => ({ view: "browse", open: sound(idOf(row)), of: RUNS[ROWS.run[row]], sample: String(ROWS.sample[row]), round: undefined });

/** Return the row that a state's address names, or -1. */
function rowAt(state) {
  const run = RUNS.indexOf(state.of);
  for (let row = 0; row < COUNT; row += 1) {
    if (ROWS.run[row] === run && String(ROWS.sample[row]) === (state.sample ?? "0") && sound(idOf(row)) === state.open) return row;
  }
  return -1;
}

function makeControls(change) {
  const pick = (name, label, choices) => {
    const box = el("select", { "aria-label": label, name, on: { change: () => change({ [name]: box.value === "" ? undefined : choices[box.selectedIndex - 1][0] }) } },
      el("option", { value: "" }, label), choices.map(([, shown], place) => el("option", { value: place + 1 }, line(shown, 60))));
    box.put = (value) => { box.selectedIndex = choices.findIndex(([each]) => each === value) + 1; };
    return box;
  };
  const count = (name, label) => el("input", { type: "number", min: 1, name, placeholder: label, "aria-label": `${label} rounds`, inputmode: "numeric", on: { input: (event) => change({ [name]: event.target.value || undefined }) } });
  const search = el("input", { type: "search", name: "q", placeholder: "Search question or id", "aria-label": "Search in questions and ids", autocomplete: "off", spellcheck: "false" });
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ q: search.value || undefined }), 80);
  });
  const outcomes = INDEX.outcomes.filter((_, place) => ROWS.outcome.includes(place));
  const boxes = {
    run: RUNS.length > 1 ? pick("run", "All runs", RUNS.map((run) => [run, run])) : null,
    task: INDEX.tasks.length > 1 ? pick("task", "All tasks", TASK_NAMES.map((task) => [task, task])) : null,
    outcome: pick("outcome", "All outcomes", outcomes.map((outcome) => [outcome, OUTCOME_NAMES[outcome]])),
    grade: pick("grade", "Right or wrong", [["right", "right"], ["wrong", "wrong"], ["none", "no grade"]]),
  };
  const least = count("least", "min");
  const most = count("most", "max");
  const sort = el("select", { "aria-label": "Order", name: "sort", on: { change: () => change({ sort: sort.value === "file" ? undefined : sort.value }) } },
    Object.entries(ORDERS).map(([value, name]) => el("option", { value }, `by ${name}`.replace("by order of the run", "in order of the run"))));
  const way = el("button", { type: "button", class: "quiet", name: "desc", "aria-label": "Descending order", title: "Turn the order round", on: { click: () => change({ desc: way.getAttribute("aria-pressed") === "true" ? undefined : "1" }) } }, "↓");
  const clear = el("button", { type: "button", class: "quiet", name: "clear", on: { click: () => change(Object.fromEntries(FILTERS.map((name) => [name, undefined]))) } }, "Clear");
  const more = el("details", { class: "more" }, el("summary", {}, "Filters"),
    el("div", { class: "grid" }, Object.values(boxes), el("div", { class: "between", role: "group", "aria-label": "Rounds" }, el("span", {}, "rounds"), least, el("span", { "aria-hidden": "true" }, "–"), most), el("div", { class: "between" }, sort, way), clear));
  more.open = window.matchMedia("(min-width: 900px)").matches;
  const put = (box, value) => { if (box.value !== value && document.activeElement !== box) box.value = value; };
  return {
    node: el("form", { class: "controls", role: "search", on: { submit: (event) => event.preventDefault() } }, search, more),
    search,
    update(state) {
      for (const [name, box] of Object.entries(boxes)) box?.put(state[name]);
      put(search, state.q ?? "");
      put(least, state.least ?? "");
      put(most, state.most ?? "");
      sort.value = Object.hasOwn(ORDERS, state.sort ?? "") ? state.sort : "file";
      way.setAttribute("aria-pressed", String(Boolean(state.desc)));
      way.textContent = state.desc ? "↓" : "↑";
      const used = FILTERS.filter((name) => state[name] !== undefined && name !== "q").length;
      more.firstChild.textContent = used ? `Filters (${used})` : "Filters";
      clear.hidden = !used && !state.q;
    },
  };
}
