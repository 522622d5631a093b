// The overview: what was read, the main table, the charts of one task at a time, what it cost.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs.map((run) => run.label);
const SERIES = new Map(RUNS.map((label, place) => [label, place]));
const FIGURES = DATA.figures;
const RESULTS = new Map(FIGURES.results.map((record) => [JSON.stringify([record.run, record.task]), record]));
const SEEN_TASKS = new Set(FIGURES.outcomes.map((record) => record.task));
const TASKS = [...DATA.index.tasks, DATA.names.all].filter((task) => SEEN_TASKS.has(task));
const OUTCOME_NAMES = {
  answered: "answered", round_limit: "out of rounds", token_limit: "out of tokens", truncated: "truncated", malformed: "malformed", failed: "FAILED",
};

const result = (run, task) => RESULTS.get(JSON.stringify([run, task]));
const MOST_FAILED = 0.05;
const several = TASKS.length > 1;
const interval = (record) => (record.low === null || record.low === undefined ? "" : `${percent(record.low)}–${percent(record.high)}`);
const failedNote = (record) => (record.failed ? ` · ${whole(record.failed)} FAILED` : "");
const accuracyNote = (record) => `${percent(record.accuracy)} % [${interval(record)}]${failedNote(record)}`;

function drawOverview() {
  const total = DATA.runs.reduce((sum, run) => sum + run.trajectories, 0);
  const tasks = TASKS.filter((task) => task !== DATA.names.all);
  const charts = el("div", { class: "charts" });
  const show = (task) => charts.replaceChildren(...taskCharts(task));
  document.getElementById("overview").replaceChildren(
    el("header", { class: "lead" },
      el("h1", {}, heading()),
      el("p", { class: "sub" }, [...(TRAININGS.length ? [plural(TRAININGS.length, "training")] : []), plural(RUNS.length, "run"), plural(tasks.length, "task"), `${plural(total, "trajector").replace(/ trajectors?$/, total === 1 ? " trajectory" : " trajectories")}`].join(" · "))),
    ...rejected(),
    ...trainingSection(),
    el("h2", {}, "Results"),
    resultsTable(tasks),
    el("p", { class: "about" }, "Accuracy in %, the mean over problems of the share of samples that are right, with its 95 % bootstrap interval over problems. ",
      "Tokens are generated ones over all rounds, latency is generation time; both are means of a trajectory. ",
      "FAILED trajectories and failed grades are in no denominator: they are counted. ",
      RUNS.length > 1 ? "Bold is the highest of the runs in which at most 5 % FAILED." : ""),
    fileLinks1("results"),
    el("div", { class: "headline" }, el("h2", {}, "Figures"), several ? segmented("Task", TASKS.map((task) => [task, text(task)]), TASKS[0], show) : null),
    charts,
    ...contextSection(),
    el("h2", {}, "Runs"),
    settingsTable());
  show(TASKS[0]);
}

function heading() {
  if (RUNS.length === 1) return text(RUNS[0]);
  if (!TRAININGS.length) return "Evaluation report";
  const only = TRAININGS.length === 1 && TRAININGS[0].runs.length === RUNS.length;
  return only ? text(TRAININGS[0].label) : "Training report";
}

const fileLinks1 = (name) => el("p", { class: "files" }, el("a", { href: `figures/${name}.csv`, download: `${name}.csv` }, "CSV"));

function rejected() {
  const bad = DATA.runs.filter((run) => run.rejected);
  return bad.map((run) => el("details", { class: "notice" },
    el("summary", {}, text(`${run.label}: ${plural(run.rejected, "line")} of trajectories.jsonl could not be read`)),
    el("ul", {}, run.rejects.map((reject) => el("li", {}, text(`line ${reject}`))))));
}

/** Whether few enough samples FAILED for an accuracy to be called the highest. */
function trusted(run, task) {
  const of = task === DATA.names.mean ? TASKS.map((each) => result(run, each)) : [result(run, task)];
  return of.every((record) => !record || record.failed <= MOST_FAILED * (record.failed + record.samples));
}

/** The table as papers print it: a line for each run, and for each task accuracy, tokens, latency; FAILED beside. */
function resultsTable(tasks) {
  const columns = several ? [...tasks, DATA.names.mean] : tasks;
  const best = new Map(columns.map((task) => [task, Math.max(...RUNS.map((run) => (trusted(run, task) ? result(run, task)?.accuracy ?? -1 : -1)))]));
  const inner = (task) => (task === DATA.names.mean ? ["accuracy"] : ["accuracy", "tokens", "latency", "FAILED"]);
  const head = el("thead", {},
    el("tr", {}, el("th", { scope: "col", rowspan: 2 }, "Method"), columns.map((task) => el("th", { scope: "colgroup", colspan: inner(task).length, class: "group" }, text(task)))),
    el("tr", {}, columns.map((task) => inner(task).map((name, place) => el("th", { scope: "col", class: place ? null : "first" }, name)))));
  const cells = (run) => columns.flatMap((task) => {
    const record = result(run, task);
    if (!record) return inner(task).map((_, place) => el("td", { class: place ? null : "first" }, "–"));
    const top = RUNS.length > 1 && record.accuracy !== null && trusted(run, task) && record.accuracy === best.get(task);
    const accuracy = el("td", { class: "first" }, el(top ? "strong" : "span", {}, percent(record.accuracy)), record.low === undefined ? null : el("small", {}, interval(record)));
    if (task === DATA.names.mean) return [accuracy];
    return [accuracy, el("td", {}, short(record.tokens)), el("td", {}, seconds(record.latency)), el("td", { class: record.failed ? "bad" : "none" }, whole(record.failed))];
  });
  const body = RUNS.map((run) => el("tr", {}, el("th", { scope: "row" }, el("a", { href: hash({ view: "browse", run }) }, swatch(SERIES.get(run), "line"), el("span", {}, text(run)))), cells(run)));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Results" }, el("table", { class: "results" }, head, el("tbody", {}, body)));
}

function taskCharts(task) {
  const of = (name) => FIGURES[name].filter((record) => record.task === task);
  const [byRounds, byTokens, rounds, costs] = ["accuracy_by_rounds", "accuracy_by_tokens", "rounds", "cost"].map(of);
  const etas = of("eta").filter((record) => record.accuracy !== null);
  return [
    byRounds.length ? accuracyChart(byRounds, task, {
      name: "accuracy_by_rounds", key: "rounds", title: "Accuracy against rounds", about: "From the same trajectories: what needed more than the rounds allowed counts as wrong.", label: "rounds allowed", head: (r) => plural(r, "round"),
    }) : null,
    byTokens.length ? accuracyChart(byTokens, task, {
      name: "accuracy_by_tokens", key: "tokens", log: true, title: "Accuracy against tokens", about: "From the same trajectories: what needed more tokens in all counts as wrong.", label: "tokens allowed", head: (t) => `${whole(t)} tokens`,
    }) : null,
    rounds.length ? roundsChart(rounds, task) : null,
    outcomesChart(of("outcomes"), task),
    ...(etas.length ? [etaChart(etas, task, "accuracy"), etaChart(etas, task, "latency")] : []),
    costChart(costs, task),
    peakChart(costs, task),
    costTable(costs),
  ].filter(Boolean);
}

const share = { label: "accuracy, %", domain: [0, 1], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], format: (value) => String(Math.round(100 * value)) };

function accuracyChart(records, task, { name, key, log, title, about, label, head }) {
  const series = [...groups(records, (record) => record.run)].map(([run, mine]) => ({
    series: SERIES.get(run), name: run, points: mine.map((record) => ({ x: record[key], y: record.accuracy, low: record.low, high: record.high, note: accuracyNote(record) })),
  }));
  const values = records.map((record) => record[key]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = log ? powers(low, high) : [...new Set([low, ...steps(low, high, Math.min(10, Math.max(1, high - low)))])].filter(Number.isInteger);
  const format = log ? (value) => (value >= 1024 ? `${value / 1024}k` : String(value)) : String;
  return lineChart({ title, about, series, y: share, x: { label, log, domain: log && low === high ? [low / 2, high] : [low, high], ticks, format, head }, files: name, say: `Task: ${task}.` });
}

function roundsChart(records, task) {
  const most = Math.max(1, ...records.map((record) => record.rounds));
  const categories = Array.from({ length: most }, (_, place) => place + 1);
  const series = [...groups(records, (record) => record.run)].map(([run, mine]) => {
    const counts = new Map(mine.map((record) => [record.rounds, record.trajectories]));
    return { series: SERIES.get(run), name: run, values: categories.map((r) => counts.get(r) ?? 0), notes: categories.map((r) => whole(counts.get(r) ?? 0)) };
  });
  const ticks = steps(0, Math.max(1, ...series.flatMap(({ values }) => values)), 4);
  const top = ticks.length > 1 ? ticks[ticks.length - 1] + (ticks[1] - ticks[0]) : 1;
  return barChart({
    title: "Rounds used", about: "How many trajectories ended after so many rounds.", categories, series, files: "rounds", say: `Task: ${task}.`,
    x: { label: "rounds", head: (r) => plural(r, "round") }, y: { label: "trajectories", domain: [0, top], ticks: [...ticks, ...(ticks.length > 1 ? [top] : [])], format: short },
  });
}

function outcomesChart(records, task) {
  const lines = records.map((record) => ({
    name: record.run,
    note: `${whole(record.trajectories)}${record.not_graded ? ` · ${whole(record.not_graded)} without a grade` : ""}`,
    parts: Object.keys(OUTCOME_NAMES).map((outcome) => ({
      class: `part ${outcome}`, name: OUTCOME_NAMES[outcome], share: record[outcome] / record.trajectories, note: `${whole(record[outcome])} · ${percent(record[outcome] / record.trajectories)} %`,
    })),
  }));
  const seen = Object.keys(OUTCOME_NAMES).filter((outcome) => outcome === "failed" || records.some((record) => record[outcome]));
  return shareChart({
    title: "Outcomes", about: "How trajectories ended. All but FAILED are in every denominator.", lines, files: "outcomes", say: `Task: ${task}.`,
    ticks: [[0, "0"], [0.25, "25"], [0.5, "50"], [1, "100 % of trajectories"]],
    legend: seen.map((outcome) => [`part ${outcome}`, OUTCOME_NAMES[outcome], "box"]),
  });
}

function etaChart(records, task, value) {
  const series = [...groups(records, (record) => record.series)].map(([name, mine], place) => ({
    series: place, name, points: mine.map((record) => ({
      x: record.eta, y: record[value], name: record.run, note: value === "accuracy" ? accuracyNote(record) : `${seconds(record.latency)} · ${short(record.tokens)} tokens · ${number(record.rounds)} rounds`,
      ...(value === "accuracy" ? { low: record.low, high: record.high } : {}),
    })),
  }));
  const etas = [...new Set(records.map((record) => record.eta))].sort((a, b) => a - b);
  const top = Math.max(...records.map((record) => record.latency ?? 0)) || 1;
  const y = value === "accuracy" ? share : { label: "latency, s", domain: [0, top * 1.1], ticks: steps(0, top * 1.1), format: number };
  const about = value === "accuracy" ? "Runs of the same model and carry that differ in eta, the most tokens of thought in a round." : "Mean generation time of a trajectory in the same runs.";
  const room = (etas[etas.length - 1] - etas[0]) * 0.06;
  return lineChart({
    title: value === "accuracy" ? "Accuracy against eta" : "Latency against eta", about, series, y, bars: true, files: "eta", say: `Task: ${task}.`,
    x: { label: "eta, tokens", domain: [etas[0] - room, etas[etas.length - 1] + room], ticks: etas, format: (eta) => (eta % 1024 ? whole(eta) : `${eta / 1024}k`), head: (eta) => `eta ${whole(eta)}` },
  });
}

function costChart(records, task) {
  const known = records.filter((record) => record.latency !== null && record.accuracy !== null);
  const top = Math.max(0, ...known.map((record) => record.latency)) * 1.15 || 1;
  const series = known.map((record) => ({
    series: SERIES.get(record.run), name: record.run, dots: true, points: [{ x: record.latency, y: record.accuracy, low: record.low, high: record.high, head: record.run, name: "accuracy", note: `${accuracyNote(record)} at ${seconds(record.latency)}` }],
  }));
  return lineChart({
    title: "Accuracy against latency", about: "Up and to the left is better. Bars are 95 % intervals.", series, bars: true, apart: true, y: share, files: "cost", say: `Task: ${task}.`,
    x: { label: "mean latency of a trajectory, s", domain: [0, top], ticks: steps(0, top), format: number, head: seconds },
  });
}

function peakChart(records, task) {
  const known = records.filter((record) => record.peak_context !== null);
  const most = Math.max(1, ...known.map((record) => record.peak_context));
  const lines = known.map((record) => ({
    name: record.run, note: whole(record.peak_context),
    parts: [{ class: `bar ${tone(SERIES.get(record.run))}`, name: "largest context", share: record.peak_context / most, note: `${whole(record.peak_context)} tokens` }],
  }));
  return shareChart({
    title: "Peak context", about: "The largest prompt and completion of any call: what the key-value cache had to hold.", lines, files: "cost", say: `Task: ${task}.`,
    ticks: [[0, "0"], [0.5, short(most / 2)], [1, `${short(most)} tokens`]],
  });
}

function costTable(records) {
  const columns = [
    ["Accuracy, %", (r) => percent(r.accuracy)], ["FAILED", (r) => whole(r.failed)], ["Rounds", (r) => number(r.rounds)],
    ["Tokens, mean", (r) => short(r.tokens)], ["p95", (r) => short(r.tokens_p95)], ["Peak context", (r) => short(r.peak_context)],
    ["Latency p50", (r) => seconds(r.latency_p50)], ["p95", (r) => seconds(r.latency_p95)], ["Tokens/s", (r) => number(r.tokens_per_second)],
    ["Thought : summary", (r) => (r.compression === null ? "–" : `${number(r.compression)} : 1`)],
    ["Attention FLOPs", (r) => short(r.attention_flops)], ["Linear FLOPs", (r) => short(r.linear_flops)], ["KV bytes, peak", (r) => short(r.kv_bytes)],
  ].filter(([, value]) => records.some((record) => value(record) !== "–"));
  return el("figure", { class: "chart wide" },
    el("h3", {}, "Cost"),
    el("p", { class: "about" }, "Of a trajectory: means, medians (p50) and 95th percentiles (p95); the peak context is the largest of all. FLOPs and bytes stand here where the evaluation knew the model's architecture."),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Cost" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Method"), columns.map(([name]) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, records.map((record) => el("tr", {}, el("th", { scope: "row" }, text(record.run)), columns.map(([, value]) => el("td", {}, value(record)))))))),
    fileLinks1("cost"));
}

/** The sawtooth of one trajectory of each run that works in rounds, against the ramp of one chain. */
function contextSection() {
  const byRun = groups(FIGURES.context, (record) => record.run);
  if (!byRun.size) return [];
  const place = el("div", { class: "charts" });
  const show = (run) => {
    const curves = groups(byRun.get(run), (record) => record.curve);
    const [{ id, sample }] = curves.get("in rounds");
    place.replaceChildren(contextChart([...curves].map(([name, corners]) => ({
      name: name === "as one chain" ? "the same tokens as one chain" : name === "in rounds" ? `${run}: ${id}` : `${name}: the same question`,
      series: name === "as one chain" ? -1 : SERIES.get(name === "in rounds" ? run : name),
      corners: corners.map((record) => [record.tokens, record.context]),
    })), {
      title: "Context of one trajectory", wide: true, files: "context",
      about: "Every round begins again from the question and the last summary: the context rises and falls, while that of one chain only grows.",
    }), el("p", { class: "about" }, el("a", { href: hash({ view: "browse", open: id, of: run, sample }) }, "Read this trajectory"),
      ": the first of the run that is right with the most rounds, up to 8."));
  };
  const names = [...byRun.keys()];
  const choice = names.length > 1 ? segmented("Run", names.map((name) => [name, text(name)]), names[0], show) : null;
  show(names[0]);
  return [el("div", { class: "headline" }, el("h2", {}, "Context"), choice), place];
}

/** Context over generated tokens; `curves`: [{name, series, corners: [[tokens, context], …]}]; `spec.reach`: the axes' least. */
function contextChart(curves, spec) {
  const all = curves.flatMap(({ corners }) => corners);
  const [wide, tall] = [0, 1].map((axis) => Math.max(1, spec.reach?.[axis] ?? 0, ...all.map((corner) => corner[axis])));
  return lineChart({
    ...spec,
    series: curves.map(({ name, series, corners }) => ({ name, series, bare: true, points: corners.map(([x, y]) => ({ x, y, note: `${whole(y)} tokens` })) })),
    x: { label: "tokens generated", domain: [0, wide], ticks: steps(0, wide), format: short, head: (x) => `${whole(x)} generated` },
    y: { label: "context, tokens", domain: [0, tall * 1.05], ticks: steps(0, tall * 1.05, 4), format: short },
  });
}

function settingsTable() {
  const names = [...new Set(DATA.runs.flatMap((run) => run.settings.map(([name]) => name)))];
  const values = DATA.runs.map((run) => new Map(run.settings));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings of the runs" }, el("table", { class: "settings" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, ""), RUNS.map((run) => el("th", { scope: "col" }, text(run))))),
    el("tbody", {},
      el("tr", {}, el("th", { scope: "row" }, "trajectories"), DATA.runs.map((run) => el("td", {}, whole(run.trajectories)))),
      names.map((name) => el("tr", {}, el("th", { scope: "row" }, text(name)), values.map((mine) => el("td", {}, text(mine.get(name) ?? "–"))))))));
}
