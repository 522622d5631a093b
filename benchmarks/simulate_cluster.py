"""Simulate the reasoner's schedule on a cluster of engines: how busy they are, what waits, what the slowest cost.

    python benchmarks/simulate_cluster.py [--engines 1 8 64] [--eta 4096] [--plot FOLDER] [--output FILE.json]
    python benchmarks/simulate_cluster.py --measured SCHEDULE.json      # against benchmarks/schedule.py

An engine batches continuously: a step makes one token of each running sequence and takes as long as a curve says
(``inftythink.evals.steps``): of Qwen2.5-Math-7B on an H100 here, or fitted to a real server. A request that comes while
a step runs joins at its end. Nothing is drawn at random but the order of the traces.

- ``reasoner``: ``slots`` trajectories for each engine; the next round is sent as soon as the last has returned
- ``barrier``: as many trajectories, whose next rounds are sent when all have returned; what ended is replaced
- ``one at a time``: one trajectory in all
- ``all at once``: every round of every trajectory waits for none. No driver can do this: it is the engines' own limit

The lengths are those of 1,776 real traces (``trace_tokens.json``, tokens of Qwen2.5), cut at ``--eta``, or those of
``--trajectories FILE.jsonl``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from inftythink.evals.cost import Setting, kv_bytes, read_architecture
from inftythink.evals.steps import Steps, curve
from inftythink.protocol.types import Call
from scaling import EFFICIENCY, H100, PAGE, table, write

ROOT = Path(__file__).parent.parent
COLUMNS = ("engines", "way", "trajectories", "hours", "tokens/s", "busy", "filled", "waits, s", "whole, s", "tail")
LENGTHS = Path(__file__).with_name("trace_tokens.json")
Routing = Literal["sticky", "least"]
"""``sticky``: rounds go where the first went, to the engine with the fewest requests; ``least``: each to that one."""


@dataclass(frozen=True, slots=True)
class Round:
    """Tokens of a round: its prompt, what of it an engine has that made the round before, and what it generates."""

    prompt: int
    shared: int
    generated: int


Trajectory = Sequence[Round]


@dataclass(slots=True)
class Request:
    """A round on its way."""

    trajectory: int
    number: int
    prompt: int
    cached: int
    generated: int
    sent: float = 0.0
    began: float = 0.0
    ended: float = 0.0


class Engine:
    """One engine: up to ``room`` sequences run, the others wait in order. Its clock stands at the end of a step."""

    def __init__(self, steps: Steps, room: int) -> None:
        self.steps, self.room = steps, room
        self.running: list[tuple[int, int, Request]] = []
        """A heap: the step after which each one ends, and the order in which they joined."""
        self.waiting: deque[Request] = deque()
        self.clock = self.busy = self.filled = self.owed = 0.0
        self.step = self.keys = self.joined = self.plan = self.version = 0

    @property
    def load(self) -> int:
        """Requests that are here."""
        return len(self.running) + len(self.waiting)

    def seconds(self, steps: int) -> float:
        """Return how long the next ``steps`` steps take; the first also reads the prompts that have just joined."""
        batch = len(self.running)
        keys = self.keys * steps + batch * steps * (steps - 1) / 2
        return self.owed + (self.steps.fixed + self.steps.sequence * batch) * steps + self.steps.key * keys

    def run(self, steps: int) -> list[Request]:
        """Make ``steps`` tokens of each, no more than the first to end needs; return what has ended."""
        seconds, batch = self.seconds(steps), len(self.running)
        self.clock += seconds
        self.busy += seconds
        self.filled += seconds * batch
        self.owed = 0.0
        self.step += steps
        self.keys += steps * batch
        ended = []
        while self.running and self.running[0][0] == self.step:
            request = heapq.heappop(self.running)[2]
            request.ended = self.clock
            self.keys -= request.prompt + request.generated
            ended.append(request)
        return ended

    def catch_up(self, now: float) -> None:
        """Make the steps that have ended by ``now``; the last one planned is left to its own event."""
        if self.running and (steps := bisect_right(range(1, self.plan), now - self.clock, key=self.seconds)):
            self.run(steps)

    def settle(self, now: float) -> float | None:
        """Let those in that can join now; return when the next event here is, None when there is nothing to do."""
        if not self.running:
            self.clock = max(self.clock, now)
        if self.clock >= now:
            while self.waiting and len(self.running) < self.room:
                self._join(self.waiting.popleft())
        if not self.running:
            return None
        joins = self.waiting and len(self.running) < self.room
        self.plan = 1 if joins else self.running[0][0] - self.step
        self.version += 1
        return self.clock + self.seconds(self.plan)

    def _join(self, request: Request) -> None:
        request.began = self.clock
        self.owed += self.steps.prompt * (request.prompt - request.cached)
        self.keys += request.prompt
        self.joined += 1
        heapq.heappush(self.running, (self.step + request.generated, self.joined, request))


@dataclass
class Cluster:
    """Engines, and the requests on their way. ``turnaround``: seconds from a round's end to the next one's arrival."""

    engines: list[Engine]
    routing: Routing = "sticky"
    turnaround: float = 0.0
    now: float = 0.0
    done: list[Request] = field(default_factory=list)
    curve: list[tuple[float, int]] = field(default_factory=list)
    """Requests in the engines, each time that their number changed."""

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, int, int, Request | None]] = []
        self._order = count()
        self._homes: dict[int, int] = {}
        self._here = 0

    def send(self, trajectory: int, number: int, this: Round) -> None:
        """Put a round on its way."""
        request = Request(trajectory, number, this.prompt, this.shared, this.generated)
        delay = self.turnaround if number else 0.0
        heapq.heappush(self._events, (self.now + delay, next(self._order), -1, 0, request))

    def run(self, ended: Callable[[Request], None]) -> None:
        """Go on until nothing is left to do; tell ``ended`` what has returned."""
        while self._events:
            self.now, _, place, version, arrived = heapq.heappop(self._events)
            if arrived is not None:
                place = self._route(arrived)
                arrived.sent = self.now
                self.engines[place].catch_up(self.now)
                self.engines[place].waiting.append(arrived)
                self._count(1)
            elif version != self.engines[place].version:
                continue
            else:
                for request in self.engines[place].run(self.engines[place].plan):
                    self.done.append(request)
                    self._count(-1)
                    ended(request)
            if (then := self.engines[place].settle(self.now)) is not None:
                version = self.engines[place].version
                heapq.heappush(self._events, (then, next(self._order), place, version, None))

    def _count(self, change: int) -> None:
        self._here += change
        self.curve.append((self.now, self._here))

    def _route(self, request: Request) -> int:
        """Choose the engine; only the one that made the round before has the beginning of the prompt."""
        home = self._homes.get(request.trajectory)
        if home is None or self.routing == "least":
            place = min(range(len(self.engines)), key=lambda number: self.engines[number].load)
        else:
            place = home
        request.cached = request.cached if place == home else 0
        self._homes[request.trajectory] = place
        return place


@dataclass(frozen=True)
class Result:
    """What came of it. ``busy``: share of time in which an engine ran anything; ``filled``: share of its places in use.

    ``wait``: seconds that requests waited, median and 99th percentile; ``whole``: the same of trajectories, from the
    first sending to the last end. ``tail``: share of the time after the last trajectory was begun.
    """

    engines: int
    way: str
    trajectories: int
    requests: int
    tokens: int
    seconds: float
    busy: float
    filled: float
    wait: tuple[float, float]
    whole: tuple[float, float]
    tail: float
    curve: list[tuple[float, int]]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def reasoner(cluster: Cluster, trajectories: Sequence[Trajectory], slots: int) -> None:
    """Drive ``slots`` trajectories, no round waiting for another trajectory's."""
    left = iter(range(len(trajectories)))

    def begin() -> None:
        if (number := next(left, None)) is not None:
            cluster.send(number, 0, trajectories[number][0])

    def ended(request: Request) -> None:
        rounds, following = trajectories[request.trajectory], request.number + 1
        if following < len(rounds):
            cluster.send(request.trajectory, following, rounds[following])
        else:
            begin()

    for _ in range(slots):
        begin()
    cluster.run(ended)


def barrier(cluster: Cluster, trajectories: Sequence[Trajectory], slots: int) -> None:
    """Drive ``slots`` trajectories, all of whose next rounds are sent when all have returned."""
    left = iter(range(len(trajectories)))
    returned: list[tuple[int, int]] = []
    out = 0

    def send() -> None:
        nonlocal out
        again = [(number, following) for number, following in returned if following < len(trajectories[number])]
        returned.clear()
        again += [(number, 0) for number in islice(left, slots - len(again))]
        for number, following in again:
            cluster.send(number, following, trajectories[number][following])
        out = len(again)

    def ended(request: Request) -> None:
        returned.append((request.trajectory, request.number + 1))
        if len(returned) == out:
            send()

    send()
    cluster.run(ended)


def all_at_once(cluster: Cluster, trajectories: Sequence[Trajectory], slots: int) -> None:
    """Send every round at the beginning."""
    cluster.turnaround = 0.0
    for trajectory, rounds in enumerate(trajectories):
        for number, this in enumerate(rounds):
            cluster.send(trajectory, number, this)
    cluster.run(lambda request: None)


WAYS = {"reasoner": reasoner, "barrier": barrier, "one at a time": reasoner, "all at once": all_at_once}


def simulate(
    way: str,
    trajectories: Sequence[Trajectory],
    steps: Steps,
    engines: int,
    room: int,
    slots: int,
    routing: Routing = "sticky",
    turnaround: float = 0.0,
) -> Result:
    """Drive ``trajectories`` through ``engines`` of ``room`` sequences each; ``slots`` counts for all engines."""
    cluster = Cluster([Engine(steps, room) for _ in range(engines)], routing, turnaround)
    WAYS[way](cluster, trajectories, 1 if way == "one at a time" else slots)
    seconds, done = cluster.now, cluster.done
    first = {request.trajectory: request.sent for request in done if request.number == 0}
    last = {request.trajectory: request.ended for request in sorted(done, key=lambda each: each.ended)}
    return Result(
        engines=engines,
        way=way,
        trajectories=len(last),
        requests=len(done),
        tokens=sum(this.generated for rounds in trajectories for this in rounds),
        seconds=seconds,
        busy=sum(engine.busy for engine in cluster.engines) / (engines * seconds),
        filled=sum(engine.filled for engine in cluster.engines) / (engines * room * seconds),
        wait=_percentiles([request.began - request.sent for request in done]),
        whole=_percentiles([last[number] - first[number] for number in last]),
        tail=1 - max(first.values()) / seconds,
        curve=cluster.curve,
    )


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1]


def cut(tokens: int, eta: int, gamma: int, question: int) -> Trajectory:
    """Return the rounds of a trace: full ones, and what is left; each but the last writes a summary."""
    counts = [eta] * (tokens // eta) + ([tokens % eta] if tokens % eta else [])
    last = len(counts) - 1
    return [
        Round(question + (gamma if number else 0), question if number else 0, thought + (gamma if number < last else 0))
        for number, thought in enumerate(counts)
    ]


def read_trajectories(path: Path) -> list[Trajectory]:
    """Return the calls of a run folder's ``trajectories.jsonl``."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        calls = [Call.from_json(call) for this in json.loads(line)["rounds"] for call in this["calls"]]
        made = [Round(call.prompt_tokens, call.cached_tokens or 0, call.completion_tokens) for call in calls]
        found.append([this for this in made if this.generated])
    return [rounds for rounds in found if rounds]


def show(results: Sequence[Result], title: str) -> None:
    shown = Table(title=title)
    for column in COLUMNS:
        shown.add_column(column, justify="right")
    for each in results:
        shown.add_row(*cells(each))
    Console(width=140).print(shown)


def cells(each: Result) -> list[str]:
    waits, whole = (" / ".join(f"{value:,.0f}" for value in pair) for pair in (each.wait, each.whole))
    shares = [f"{value:.0%}" for value in (each.busy, each.filled)]
    head = [str(each.engines), each.way, f"{each.trajectories:,}", f"{each.seconds / 3600:.2f}", f"{each.rate:,.0f}"]
    tail = "" if each.way in ("one at a time", "all at once") else f"{each.tail:.0%}"
    return [*head, *shares, waits, whole, tail]


def plot(results: Sequence[Result], folder: Path) -> None:
    """Draw the places in use over time, a panel for each number of engines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "inftythink"}
    colours = {"reasoner": "#0067a8", "barrier": "#c44e00", "all at once": "#5c646e"}
    with matplotlib.rc_context(style):
        sizes = list(dict.fromkeys(each.engines for each in results))
        figure, axes = pyplot.subplots(1, len(sizes), figsize=(3.7 * len(sizes), 3.1), squeeze=False)
        for panel, engines in zip(axes[0], sizes, strict=True):
            for each in (each for each in results if each.engines == engines and each.way in colours):
                thin = each.curve[:: max(1, len(each.curve) // 400)]
                times, here = [t / 60 for t, _ in thin], [number / engines for _, number in thin]
                panel.plot(times, here, label=each.way, color=colours[each.way], linewidth=1)
            ours = next(each for each in results if (each.engines, each.way) == (engines, "reasoner"))
            most = max(number for _, number in ours.curve) / engines
            panel.set(
                title=f"{engines} engines" if engines > 1 else "1 engine", xlabel="minutes", ylim=(0, 1.15 * most)
            )
        axes[0][0].set_ylabel("requests in an engine")
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.tight_layout()
        figure.savefig(folder / "cluster.svg", metadata={"Date": None})
        pyplot.close(figure)


def compare(path: Path) -> list[dict[str, Any]]:
    """Simulate what ``benchmarks/schedule.py`` measured; return for each way its tokens, and seconds and steps of both.

    Steps do not depend on what else ran on the machine, and not on a fitted curve.
    """
    told = json.loads(path.read_text(encoding="utf-8"))
    slots, room, alone = told["slots"], told["sequences"], told["alone"]
    curves = {"seconds": Steps(**told["steps"]), "steps": Steps(1.0, 0.0, 0.0, 0.0)}
    trajectories = [[Round(*call) for call in calls] for calls in told["calls"]]
    asked = {
        "reasoner": ("reasoner", trajectories, slots),
        "barrier": ("barrier", trajectories, slots),
        "barrier over all": ("barrier", trajectories, len(trajectories)),
        "engine": ("all at once", trajectories, slots),
        "one at a time": ("one at a time", trajectories[::alone], 1),
    }
    rows = []
    for name, (way, work, out) in asked.items():
        row: dict[str, Any] = {"way": name, "tokens": sum(this.generated for rounds in work for this in rounds)}
        for unit, steps in curves.items():
            row[unit] = statistics.median(each[unit] for each in told["measured"][name])
            row[f"simulated {unit}"] = simulate(way, work, steps, 1, room, out).seconds
        rows.append(row)
    return rows


def show_measured(rows: list[dict[str, Any]]) -> None:
    shown = Table("way", "steps", "simulated", "off", "seconds", "simulated", "off")
    for row in rows:
        cells = [row["way"]]
        for unit, digits in (("steps", ",.0f"), ("seconds", ",.1f")):
            measured, simulated = row[unit], row[f"simulated {unit}"]
            cells += [f"{measured:{digits}}", f"{simulated:{digits}}", f"{simulated / measured - 1:+.0%}"]
        shown.add_row(*cells)
    Console().print(shown)


def plot_measured(rows: list[dict[str, Any]], folder: Path) -> None:
    """Draw the tokens of a step of each way, measured and simulated."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "inftythink"}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(6.4, 2.8))
        for shift, kind, colour in ((-0.19, "steps", "#0067a8"), (0.19, "simulated steps", "#b9c4cc")):
            places = [place - shift for place in range(len(rows), 0, -1)]
            label = "simulated" if "simulated" in kind else "measured"
            axes.barh(places, [row["tokens"] / row[kind] for row in rows], 0.36, color=colour, label=label)
        axes.set_yticks(range(len(rows), 0, -1), [row["way"] for row in rows])
        axes.set_xlabel("tokens a step of the engine")
        axes.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(folder / "schedule.svg", metadata={"Date": None})
        pyplot.close(figure)


def plan(args: argparse.Namespace) -> list[Result]:
    """Simulate every way on every number of engines."""
    model = read_architecture(json.loads((ROOT / f"recipes/models/{args.model}.json").read_text(encoding="utf-8")))
    peak = args.question + 2 * args.gamma + args.eta
    memory = H100.memory - 2.0 * model.parameters
    room = int(memory // kv_bytes(model, peak))
    steps = curve(model, Setting(H100, room), args.efficiency)
    if args.trajectories:
        known = read_trajectories(args.trajectories)
    else:
        tokens = json.loads(LENGTHS.read_text(encoding="utf-8"))
        known = [cut(each, args.eta, args.gamma, args.question) for each in tokens]
    results = []
    for engines in args.engines:
        own = random.Random(0)
        work = [own.choice(known) for _ in range(args.waves * room * engines)]
        for way in WAYS:
            some = work[: len(known)] if way == "one at a time" else work
            results.append(simulate(way, some, steps, engines, room, room * engines, args.routing))
    return results


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--model", default="Qwen2.5-Math-7B", help="a model of recipes/models")
    parser.add_argument("--eta", type=int, default=4096)
    parser.add_argument("--gamma", type=int, default=1024)
    parser.add_argument("--question", type=int, default=300)
    parser.add_argument("--waves", type=int, default=8, help="trajectories for each slot")
    parser.add_argument("--routing", choices=("sticky", "least"), default="sticky")
    parser.add_argument("--efficiency", type=float, default=EFFICIENCY, help="share of the roofline")
    parser.add_argument("--trajectories", type=Path, help="take the lengths from a run folder's trajectories.jsonl")
    parser.add_argument("--measured", type=Path, help="what benchmarks/schedule.py wrote: simulate that instead")
    parser.add_argument("--plot", type=Path, help="draw cluster.svg, or schedule.svg, into this folder")
    parser.add_argument("--write", action="store_true", help="put table and plot into docs/scaling.md")
    return parser


def main() -> None:
    args = parser().parse_args()
    if args.measured:
        rows = compare(args.measured)
        show_measured(rows)
        if args.plot:
            plot_measured(rows, args.plot)
        return
    results = plan(args)
    show(results, f"{args.model}, eta {args.eta:,}, gamma {args.gamma:,}, {args.routing} routing")
    if args.plot or args.write:
        plot(results, args.plot or PAGE.parent / "img")
    if args.write:
        text = PAGE.read_text(encoding="utf-8")
        block = table(list(COLUMNS), [cells(each) for each in results])
        PAGE.write_text(write(text, "simulation", block), encoding="utf-8")


if __name__ == "__main__":
    main()
