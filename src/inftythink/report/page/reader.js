// One trajectory, round by round. Its text comes from a shard: a script beside the page, loaded when it is needed.

const SHARDS = new Map();
const KEPT_SHARDS = 8;
const STOPS = { stop: "ended by itself", length: "cut at its limit", abort: "broken off" };
const FORCED = { forced_summary: "made to summarise", forced_answer: "made to answer" };

const addressOf = window.trustedTypes
  ? window.trustedTypes.createPolicy("inftythink-shards", { createScriptURL: (number) => shardFile(Number(number)) })
  : { createScriptURL: (number) => shardFile(Number(number)) };
const shardFile = (number) => `data/shard-${String(number).padStart(4, "0")}.js`;

window.inftythink_shard = (number, entries) => SHARDS.get(number)?.arrived(entries);

/** Return the entries of a shard, as a promise; only the last few are kept. */
function shard(number) {
  const inside = document.getElementById("shard");
  if (!SHARDS.has(number)) {
    const slot = {};
    slot.entries = new Promise((arrived, failed) => Object.assign(slot, { arrived, failed }));
    SHARDS.set(number, slot);
    if (inside) slot.arrived(JSON.parse(inside.textContent));
    else loadScript(number, slot);
  }
  const slot = SHARDS.get(number);
  SHARDS.delete(number);
  SHARDS.set(number, slot);
  if (SHARDS.size > KEPT_SHARDS) SHARDS.delete(SHARDS.keys().next().value);
  return slot.entries;
}

function loadScript(number, slot) {
  const script = document.createElement("script");
  script.src = addressOf.createScriptURL(String(number));
  script.addEventListener("load", () => {
    script.remove();
    slot.failed(new Error(`${shardFile(number)} does not hold what this page expects.`)); // does nothing when it arrived
  });
  script.addEventListener("error", () => {
    script.remove();
    SHARDS.delete(number);
    slot.failed(new Error(`${shardFile(number)} cannot be read. Keep the folder data beside this page.`));
  });
  document.head.append(script);
}

/** Return the number of the shard that holds a row: the last whose first row is not behind it. */
function shardOf(row) {
  let [low, high] = [0, INDEX.shards.length - 1];
  while (low < high) {
    const half = (low + high + 1) >> 1;
    if (INDEX.shards[half] <= row) low = half;
    else high = half - 1;
  }
  return low;
}

function makeReader(change, list) {
  const node = el("article", { class: "reader", tabindex: -1, "aria-live": "off" });
  let row = -1;
  let rounds = [];
  let marked = true;
  let current = -1;

  const close = () => change({ open: undefined, of: undefined, sample: undefined, round: undefined });
  const empty = () => node.replaceChildren(el("p", { class: "hint" }, "Choose a trajectory. ", el("kbd", {}, "j"), " and ", el("kbd", {}, "k"), " go through the list, ", el("kbd", {}, "?"), " shows all keys."));

  const draw = (entry) => {
    rounds = entry.rounds.map((round, place) => makeRound(round, place, entry.rounds, () => marked));
    current = -1;
    const mark = el("input", { type: "checkbox", checked: true, on: { change: () => {
      marked = mark.checked;
      rounds.forEach((round) => round.redraw());
    } } });
    mark.checked = marked;
    const thoughts = el("button", { type: "button", class: "quiet", on: { click: () => {
      const open = rounds.some((round) => !round.thought.open);
      rounds.forEach((round) => { round.thought.open = open; });
    } } }, "All thoughts");
    node.replaceChildren(
      readerHead(row, entry, close, () => step(-1), () => step(1), list),
      ...context(entry.context),
      el("section", { class: "block question" }, el("h3", {}, "Question"), el("div", { class: "prose", dir: "auto" }, text(entry.question))),
      gradeBlock(row, entry),
      entry.curve.length > 1 ? curveChart(row, entry, go) : null,
      el("div", { class: "headline tools" }, el("h3", {}, plural(rounds.length, "round")), el("span", { class: "spread" }), entry.rounds.length > 1 ? el("label", {}, mark, "mark changes") : null, thoughts),
      ...rounds.map((round) => round.node),
      conclusionOf(entry));
  };
  const go = (place, smooth = true) => {
    if (!rounds.length) return;
    current = Math.min(rounds.length - 1, Math.max(0, place));
    rounds.forEach((round, at) => round.node.classList.toggle("current", at === current));
    rounds[current].node.scrollIntoView({ block: "start", behavior: smooth && !window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "smooth" : "auto" });
    change({ round: String(current + 1) }, true);
  };
  const step = (by) => {
    const next = list.move(by);
    if (next !== undefined && next !== row) change(address(next));
  };

  empty();
  return {
    node,
    close,
    step,
    turn: (by) => go(current + by),
    toggle: () => { if (rounds.length) rounds[Math.max(0, current)].thought.open ^= true; },
    async show(state) {
      if (state.open === undefined) {
        row = -1;
        rounds = [];
        empty();
        return;
      }
      const wanted = rowAt(state);
      if (wanted === row && row >= 0) return;
      row = wanted;
      list.select(row);
      if (row < 0) {
        rounds = [];
        node.replaceChildren(el("p", { class: "notice" }, "This report has no trajectory ", text(line(state.open)), "."), el("button", { type: "button", class: "quiet", on: { click: close } }, "Back to the list"));
        return;
      }
      try {
        const number = shardOf(row);
        const entries = await shard(number);
        if (row !== wanted) return;
        draw(entries[row - INDEX.shards[number]]);
        node.scrollTop = 0;
        if (state.round !== undefined) go(Number(state.round) - 1 || 0, false);
      } catch (error) {
        if (row === wanted) node.replaceChildren(el("p", { class: "notice" }, error.message));
      }
    },
  };
}

function readerHead(row, entry, close, before, after, list) {
  const [place, total] = list.place();
  const outcome = outcomeOf(row);
  const group = PROBLEMS.group[ROWS.problem[row]];
  const beside = pairLink(row);
  return el("header", { class: "head" },
    el("div", { class: "steps" },
      el("button", { type: "button", class: "quiet back", on: { click: close } }, "← List"),
      el("span", { class: "spread" }, place < 0 ? "outside the filter" : `${whole(place + 1)} of ${whole(total)}`),
      el("button", { type: "button", class: "quiet", "aria-label": "Trajectory before", title: "Before (k)", on: { click: before } }, "‹"),
      el("button", { type: "button", class: "quiet", "aria-label": "Next trajectory", title: "Next (j)", on: { click: after } }, "›")),
    el("h2", {}, verdict(ROWS.correct[row]), el("span", {}, text(idOf(row)))),
    el("p", { class: "sub" }, text(RUNS[ROWS.run[row]]), ` · sample ${ROWS.sample[row]}`, group ? [" · ", ...text(group)] : null, " · ", el("span", { class: `outcome ${outcome}` }, OUTCOME_NAMES[outcome]), beside ? [" · ", beside] : null),
    numbersOf(row));
}

function numbersOf(row) {
  const facts = [["rounds", whole(ROWS.rounds[row])], ["tokens", whole(ROWS.tokens[row])], ["peak context", whole(ROWS.peak[row])], ["time", seconds(ROWS.seconds[row])]];
  return el("dl", { class: "numbers" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function conclusionOf(entry) {
  if (entry.conclusion === null) return el("p", { class: "notice" }, text(entry.ended ?? "No conclusion."));
  return el("section", { class: "block conclusion" }, el("h3", {}, "Conclusion"), el("div", { class: "prose", dir: "auto" }, text(entry.conclusion)));
}

function context(turns) {
  if (!turns.length) return [];
  return [el("details", { class: "block" }, el("summary", {}, plural(turns.length, "turn"), " before the question"),
    turns.map(([role, words]) => [el("h4", {}, text(role)), el("div", { class: "prose", dir: "auto" }, text(words))]))];
}

function gradeBlock(row, entry) {
  const say = (value) => (value === null || value === undefined ? el("i", {}, "none") : el("code", { dir: "auto" }, text(value)));
  return el("section", { class: `block grade ${ROWS.correct[row] === 1 ? "right" : ROWS.correct[row] === 0 ? "wrong" : "none"}` },
    el("dl", {},
      el("div", {}, el("dt", {}, "Answer"), el("dd", {}, say(entry.extracted))),
      el("div", {}, el("dt", {}, "Reference"), el("dd", {}, say(entry.gold))),
      el("div", {}, el("dt", {}, "Grade"), el("dd", {}, GRADE_NAMES.get(ROWS.correct[row]), entry.why ? [": ", ...text(entry.why)] : null)),
      entry.ended ? el("div", {}, el("dt", {}, "Ended"), el("dd", {}, text(entry.ended))) : null));
}

function curveChart(row, entry, go, reach = null) {
  const [first, last] = [entry.curve[0], entry.curve[entry.curve.length - 1]];
  const curves = [
    { name: "this trajectory", series: ROWS.run[row], corners: entry.curve },
    { name: "the same tokens as one chain", series: -1, corners: [[0, first[1]], [last[0], first[1] + last[0]]] },
  ];
  const ends = [];
  entry.rounds.reduce((sum, round) => {
    ends.push(sum + round.tokens);
    return sum + round.tokens;
  }, 0);
  const share = (stop, area) => ((stop.x - area.left) / (area.right - area.left)) * Math.max(last[0], reach?.[0] ?? 0);
  return contextChart(entry.rounds.length > 1 ? curves : curves.slice(0, 1), {
    title: "Context over the tokens generated", small: true, reach, height: 200, about: null, ...(entry.rounds.length > 1 ? {} : { legend: [] }),
    pick: (stop, area) => go(Math.max(0, ends.findIndex((end) => share(stop, area) < end - 1e-6))),
  });
}

function makeRound(round, place, all, marked, name = "round") {
  const before = place ? all[place - 1].summary : null;
  const facts = [`${whole(round.prompt)} prompt`, round.cached ? `${whole(round.cached)} cached` : null, `${whole(round.tokens)} generated`, seconds(round.seconds), STOPS[round.stop] ?? round.stop, FORCED[round.forced] ?? null];
  const thought = el("details", { class: "thought" }, el("summary", {}, el("span", { class: "label" }, "Thought"), el("span", { class: "peek" }, text(line(round.thought, 160)) , round.thought ? null : el("i", {}, "empty"))));
  thought.addEventListener("toggle", () => {
    if (thought.open && thought.children.length === 1) thought.append(el("div", { class: "prose", dir: "auto" }, text(round.thought)));
  });
  const body = el("div", { class: "prose", dir: "auto" });
  const news = el("span", { class: "dim" });
  let pieces = null;
  const redraw = () => {
    if (round.summary === null) return;
    if (before === null || before === undefined || !marked()) {
      body.replaceChildren(...text(round.summary));
      news.textContent = "";
      return;
    }
    pieces ??= changes(before, round.summary);
    const fresh = shareNew(pieces);
    news.textContent = pieces.every(([kind]) => kind === "same") ? " · the same as before" : ` · ${Math.max(1, Math.round(100 * fresh))} % new`;
    body.replaceChildren(...pieces.map(([kind, piece]) => (kind === "same" ? el("span", {}, text(piece)) : el(kind === "new" ? "ins" : "del", {}, text(piece)))));
  };
  redraw();
  const node = el("section", { class: "round", id: `${name}-${place + 1}` },
    el("header", {}, el("h4", {}, `Round ${round.k}`), el("p", { class: "dim" }, facts.filter(Boolean).join(" · "))),
    thought,
    round.summary === null ? null : el("div", { class: "summary" }, el("p", { class: "label" }, "Summary", news), body),
    round.raw === null ? null : el("details", { class: "thought" }, el("summary", {}, el("span", { class: "label" }, "As written"), el("span", { class: "peek" }, "this text could not be read in full")), el("div", { class: "prose", dir: "auto" }, text(round.raw))));
  return { node, thought, redraw };
}
