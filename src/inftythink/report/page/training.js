// What reinforcement learning did: curves over steps, and answers to the same question before and after, side by side.

const TRAININGS = DATA.trainings;
const STAGES = [["training", "While training"], ["examinations", "In examinations"]];
const MOST_TICKS = 8;
const shareOf = (value) => `${percent(value)} %`;
const QUANTITIES = [
  { key: "reward", title: "Reward", about: "Mean over the trajectories of a step that have one.", unit: "reward", say: number },
  { key: "accuracy", title: "Accuracy", about: "Share of trajectories with a right answer, of those with a verdict.", unit: "accuracy, %", share: true, say: shareOf },
  { key: "rounds", title: "Rounds", about: "Mean of a trajectory.", unit: "rounds", say: number },
  { key: "tokens", title: "Tokens", about: "Mean of the tokens that a trajectory generated, over all its rounds.", unit: "tokens", say: whole },
  { key: "masked", title: "Masked", about: "Share of tokens left out of the loss, because sampler and trainer disagree on them.", unit: "tokens, %", share: true, say: shareOf, rare: true },
  { key: "entropy", title: "Entropy", about: "Mean of a token's distribution.", unit: "nats", say: number },
  ...Object.keys(OUTCOME_NAMES).map((outcome) => ({
    key: `share_${outcome}`, title: `Ended: ${OUTCOME_NAMES[outcome]}`, about: "Share of the trajectories with a verdict.", unit: "trajectories, %", share: true, say: shareOf, rare: true,
  })),
];
const CHANGES = [
  ["better", "became right", (before, after) => before === 0 && after === 1],
  ["worse", "became wrong", (before, after) => before === 1 && after === 0],
  ["right", "right both times", (before, after) => before === 1 && after === 1],
  ["wrong", "wrong both times", (before, after) => before === 0 && after === 0],
  ["none", "without a grade", (before, after) => before === null || after === null],
];

/** The curves and the count of what changed, for the overview. */
function trainingSection() {
  if (!TRAININGS.length) return [];
  const charts = el("div", { class: "charts" });
  const stages = STAGES.filter(([name]) => FIGURES[name].length);
  const show = (name) => charts.replaceChildren(...QUANTITIES.map((quantity) => stepsChart(name, quantity)).filter(Boolean));
  if (stages.length) show(stages[0][0]);
  return [
    el("div", { class: "headline" }, el("h2", {}, "Training"), stages.length > 1 ? segmented("Figures", stages, stages[0][0], show) : null),
    charts,
    ...changesTable(),
  ];
}

/** One quantity over the steps, a line for each training; null where it was not told, or is rare and 0 throughout. */
function stepsChart(name, { key, title, about, unit, share: part, say, rare }) {
  const known = FIGURES[name].filter((record) => record[key] !== undefined && record[key] !== null);
  if (!known.length || (rare && !known.some((record) => record[key]))) return null;
  const numbers = known.map((record) => record.step);
  const values = known.map((record) => record[key]);
  const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
  const [low, high] = part ? [0, 1] : [Math.min(0, ...values), Math.max(0, ...values) * 1.05 || 1];
  const series = TRAININGS.map(({ label }, place) => ({
    series: place, name: label, points: known.filter((record) => record.run === label).map((record) => ({ x: record.step, y: record[key], note: say(record[key]) })),
  })).filter(({ points }) => points.length);
  const ticks = steps(first, last, Math.min(MOST_TICKS, Math.max(1, last - first))).filter(Number.isInteger);
  return lineChart({
    title, about, series, files: name, say: `${STAGES.find(([stage]) => stage === name)[1]}.`,
    x: { label: "step", domain: [first, last], ticks: ticks.length ? ticks : [first], format: whole, head: (step) => `step ${number(step)}` },
    y: part ? { ...share, label: unit } : { label: unit, domain: [low, high], ticks: steps(low, high, 4), format: short },
  });
}

const PAIRS = new Map();

/** Trajectories of the same question and sample in both runs of a training: `[before, after]` rows, in order. */
function pairsOf({ label, runs }) {
  if (!PAIRS.has(label)) {
    const asked = new Map();
    const found = [];
    if (runs.length > 1) {
      for (let row = 0; row < COUNT; row += 1) if (ROWS.run[row] === runs[0]) asked.set(`${ROWS.problem[row]}/${ROWS.sample[row]}`, row);
      for (let row = 0; row < COUNT; row += 1) {
        const before = ROWS.run[row] === runs[1] ? asked.get(`${ROWS.problem[row]}/${ROWS.sample[row]}`) : undefined;
        if (before !== undefined) found.push([before, row]);
      }
    }
    PAIRS.set(label, found);
  }
  return PAIRS.get(label);
}

const hasPairs = () => TRAININGS.some((training) => pairsOf(training).length);
const changed = (pairs, name) => {
  const fits = CHANGES.find(([change]) => change === name)?.[2];
  return fits ? pairs.filter(([before, after]) => fits(ROWS.correct[before], ROWS.correct[after])) : pairs;
};
const pairAddress = (label, [before], change) => ({ view: "pair", of: label, open: sound(idOf(before)), sample: String(ROWS.sample[before]), change });

function changesTable() {
  const rows = TRAININGS.map((training) => [training, pairsOf(training)]);
  const cell = ({ label }, pairs, name) => {
    const fitting = changed(pairs, name);
    return el("td", {}, fitting.length ? el("a", { href: hash(pairAddress(label, fitting[0], name)) }, whole(fitting.length)) : "0");
  };
  const names = ({ runs }) => runs.map((run) => RUNS[run]).join(" → ");
  return [
    el("h2", {}, "Before and after"),
    hasPairs() ? el("p", { class: "about" }, "The same question and sample, answered first and last. A number leads to its answers, side by side.")
      : el("p", { class: "about" }, "No question was answered both first and last: examinations ask the same ones again and again."),
    hasPairs() ? el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Before and after" }, el("table", { class: "changes" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Training"), CHANGES.map(([, name]) => el("th", { scope: "col" }, name)), el("th", { scope: "col" }, "in all"))),
      el("tbody", {}, rows.map(([training, pairs]) => el("tr", {}, el("th", { scope: "row" }, text(names(training))),
        CHANGES.map(([name]) => cell(training, pairs, name)), cell(training, pairs, undefined)))))) : null,
  ].filter(Boolean);
}

/** A link from a trajectory to its pair; null when it has none. */
function pairLink(row) {
  for (const training of TRAININGS) {
    if (!training.runs.includes(ROWS.run[row])) continue;
    const pair = pairsOf(training).find((each) => each.includes(row));
    if (pair) return el("a", { class: "beside", href: hash(pairAddress(training.label, pair)) }, "Before and after");
  }
  return null;
}

/** The view of pairs: `show(state)` draws the one that the address names, `step(by)` goes to another. */
function makePairs(change) {
  const node = el("div", { class: "pair" });
  let current = {};
  let wanted = 0;

  const step = (by) => {
    const { label, pairs, place, name } = current;
    const next = pairs?.[Math.min(pairs.length - 1, Math.max(0, place + by))];
    if (next && next !== pairs[place]) change(pairAddress(label, next, name));
  };
  const choose = (label, name) => {
    const pairs = changed(pairsOf(TRAININGS.find((each) => each.label === label)), name);
    change(pairs.length ? pairAddress(label, pairs[0], name) : { view: "pair", of: label, change: name, open: undefined, sample: undefined });
  };
  const head = ({ label, pairs, place, name }) => {
    const pick = (title, choices, chosen, does) => el("select", { "aria-label": title, on: { change: (event) => does(choices[event.target.selectedIndex][0]) } },
      choices.map(([value, shown]) => el("option", { selected: value === chosen }, line(shown, 60))));
    const kinds = [[undefined, "all"], ...CHANGES].map(([value, shown]) => [value, `${shown} (${whole(changed(pairsOf(TRAININGS.find((each) => each.label === label)), value).length)})`]);
    return el("div", { class: "steps" },
      TRAININGS.length > 1 ? pick("Training", TRAININGS.map((each) => [each.label, each.label]), label, (to) => choose(to, name)) : null,
      pick("What changed", kinds, name, (to) => choose(label, to)),
      el("span", { class: "spread" }, pairs.length ? `${place < 0 ? "outside" : whole(place + 1)} of ${whole(pairs.length)}` : ""),
      el("button", { type: "button", class: "quiet", "aria-label": "Pair before", title: "Before (k)", on: { click: () => step(-1) } }, "‹"),
      el("button", { type: "button", class: "quiet", "aria-label": "Next pair", title: "Next (j)", on: { click: () => step(1) } }, "›"));
  };
  const draw = ([before, after], entries) => node.replaceChildren(
    head(current),
    el("h2", {}, text(idOf(before))),
    ...context(entries[0].context),
    el("section", { class: "block question" }, el("h3", {}, "Question"), el("div", { class: "prose", dir: "auto" }, text(entries[0].question))),
    el("div", { class: "columns" }, [before, after].map((row, side) => pairColumn(row, entries[side], side, reachOf(entries)))));

  return {
    node,
    step,
    async show(state) {
      const training = TRAININGS.find(({ label }) => label === state.of) ?? TRAININGS.find((each) => pairsOf(each).length) ?? TRAININGS[0];
      if (!training) return;
      const pairs = changed(pairsOf(training), state.change);
      const place = pairs.findIndex(([before]) => sound(idOf(before)) === state.open && String(ROWS.sample[before]) === (state.sample ?? "0"));
      current = { label: training.label, pairs, place: state.open === undefined && pairs.length ? 0 : place, name: CHANGES.some(([name]) => name === state.change) ? state.change : undefined };
      const pair = pairs[current.place];
      const mine = (wanted += 1);
      if (!pair) {
        node.replaceChildren(head(current), el("p", { class: "notice" }, state.open === undefined ? "There is no such pair." : ["This report has no pair ", ...text(line(state.open)), "."]));
        return;
      }
      try {
        const places = pair.map((row) => shardOf(row));
        const shards = await Promise.all(places.map(shard));
        if (mine === wanted) draw(pair, pair.map((row, side) => shards[side][row - INDEX.shards[places[side]]]));
      } catch (error) {
        if (mine === wanted) node.replaceChildren(head(current), el("p", { class: "notice" }, error.message));
      }
    },
  };
}

/** How far the axes of both contexts go, so that they can be compared: as far as one chain would. */
function reachOf(entries) {
  const ends = entries.filter(({ curve }) => curve.length).map(({ curve }) => [curve[curve.length - 1][0], curve[0][1] + curve[curve.length - 1][0]]);
  return [0, 1].map((axis) => Math.max(0, ...ends.map((end) => end[axis])));
}

/** One trajectory of a pair, as the reader shows it. */
function pairColumn(row, entry, side, reach) {
  const rounds = entry.rounds.map((round, place) => makeRound(round, place, entry.rounds, () => true, `side-${side}-round`));
  const smooth = () => (window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth");
  const go = (place) => rounds[Math.min(rounds.length - 1, place)]?.node.scrollIntoView({ block: "start", behavior: smooth() });
  const outcome = outcomeOf(row);
  return el("article", { class: "column", "aria-label": line(RUNS[ROWS.run[row]]) },
    el("header", { class: "head" },
      el("h3", {}, verdict(ROWS.correct[row]), el("a", { href: hash(address(row)) }, text(RUNS[ROWS.run[row]]))),
      el("p", { class: "sub" }, `sample ${ROWS.sample[row]} · `, el("span", { class: `outcome ${outcome}` }, OUTCOME_NAMES[outcome])),
      numbersOf(row)),
    gradeBlock(row, entry),
    entry.curve.length > 1 ? curveChart(row, entry, go, reach) : null,
    ...rounds.map((round) => round.node),
    conclusionOf(entry));
}
