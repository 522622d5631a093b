"""``inftythink solve``: one question, shown live, or a file of them, kept in a run folder."""

from __future__ import annotations

import dataclasses
import re
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from inftythink.backends.connect import SHIPPED, ModelSettings, Trained, connect, trained_for
from inftythink.cli import Command
from inftythink.config import Count, option
from inftythink.errors import ProtocolError, UsageError
from inftythink.protocol import CARRIES, Machine, Outcome, Policy, Problem, Trajectory, make_carry

if TYPE_CHECKING:
    from inftythink.cli._problems import Problems
    from inftythink.cli._terminal import Screen
    from inftythink.reasoner import Reasoner

ETA, GAMMA, PHI = Policy().eta, Policy().gamma, Policy().phi
TEMPERATURE = 0.7
INTERRUPTED = 130


@dataclass(frozen=True)
class SolveConfig(ModelSettings):
    """What ``inftythink solve`` can be told."""

    question: str | None = option(None, "the question", positional=True)
    input: str | None = option(
        None,
        "file of questions: JSONL with problem (or question), id and answer, or text, one a line; - is standard input",
        metavar="FILE",
    )
    carry: str | None = option(
        None, "what crosses a round boundary (default: what the model was trained for, else two_call)", choices=CARRIES
    )
    eta: Count | None = option(None, f"most tokens of thought in a round (default: the model's own, else {ETA})")
    gamma: Count | None = option(None, f"most tokens of a summary (default: the model's own, else {GAMMA})")
    max_rounds: Count | None = option(None, f"most rounds (default: the model's own, else {PHI})")
    budget: Count | None = option(None, "most generated tokens over all rounds of a question")
    summarise_when: str = option(
        "adaptive", "adaptive (the model decides), or after tokens: fixed:5000, random:3000-6000", metavar="WHEN"
    )
    on_cut: Literal["summarise", "stop"] = option("summarise", "a round cut in its thought gets its summary, or ends")
    on_limit: Literal["answer", "stop"] = option("answer", "at the last round, or out of budget: must answer, or ends")
    temperature: float | None = option(
        None, f"0 always takes the likeliest token (default: the model's own, else {TEMPERATURE})"
    )
    top_p: float = option(0.95, "draw from the likeliest tokens that have this probability in all")
    top_k: Count = option(0, "draw from this many of the likeliest tokens; 0 is no limit")
    seed: int | None = option(None, "makes a run repeatable where the backend can")
    samples: Count = option(1, "trajectories of each question")
    instruction: str = option("", "text behind every question, a blank line between")
    system: str = option("", "system prompt")
    output: Path | None = option(
        None, "run folder (default with --input: runs/solve-DIGEST)", metavar="RUN", identity=False
    )
    json: bool = option(False, "one trajectory as JSON a line on standard output, nothing else there", identity=False)
    concurrency: Count = option(64, "most questions in flight", identity=False)


def run(config: SolveConfig) -> int:
    """Solve what ``config`` asks for; 1 when a trajectory FAILED, else 0."""
    from inftythink.cli._many import solve_many
    from inftythink.cli._problems import read_problems
    from inftythink.reasoner import run_sync

    _check(config)
    found = read_problems(config.input, config.system) if config.input is not None else None
    if config.model is None and config.base_url is None:
        config = dataclasses.replace(config, model=str(SHIPPED))
    config, why, trained = fit(config)
    if trained is not None and trained.puzzles:
        found = _puzzles(config, found)
    reasoner = _reasoner(config)
    if "utf" not in sys.stdout.encoding.lower():
        cast(Any, sys.stdout).reconfigure(errors="replace")
    print(why, file=sys.stderr)
    if config.base_url is None:
        print(f"loading {config.model} …", file=sys.stderr)
    if found is None and config.samples == 1 and not config.json:
        return _interruptible(lambda: run_sync(_live(config, reasoner)))
    if found is not None or config.output is not None:
        return run_sync(solve_many(config, reasoner, found or _one(config)))
    return _interruptible(lambda: run_sync(solve_many(config, reasoner, _one(config))))


def _puzzles(config: SolveConfig, found: Problems | None) -> Problems | None:
    """Keep what a model for puzzles can be asked. Raises ``UsageError`` for any other single question."""
    from inftythink.cli._problems import Reject
    from inftythink.tasks.puzzle import families, family_of

    examples = "\n".join(f"  inftythink solve '{family.example}'" for family in families())
    hint = (
        "the model that ships with the package solves three kinds of puzzles and nothing else, for example:\n"
        f"{examples}\nFor any other question name a model: --model FOLDER_OR_HUB_NAME, or --base-url URL of a server"
    )
    if found is None:
        if family_of(config.question or "") is None:
            raise UsageError(hint)
        return None
    kept = [problem for problem in found.problems if family_of(problem.question) is not None]
    if not kept:
        raise UsageError(f"--input {config.input}: there is none of its puzzles in it; {hint}")
    known = {problem.id for problem in kept}
    others = [
        Reject(found.lines[problem.id], "no_puzzle", f"the model that ships cannot be asked {problem.question[:80]!r}")
        for problem in found.problems
        if problem.id not in known
    ]
    return dataclasses.replace(found, problems=kept, rejects=[*found.rejects, *others])


def fit(config: SolveConfig) -> tuple[SolveConfig, str, Trained | None]:
    """Choose what was not given: carry, eta, gamma, rounds and temperature; the text says which carry and why.

    A model folder says in ``inftythink.json`` what it was trained for; any other model gets ``two_call``.
    """
    places = [config.tokenizer] if config.base_url and not Path(config.model or "").is_dir() else []
    places += [config.model, config.tokenizer] if not places else []
    found = next((it for place in dict.fromkeys(places) if (it := trained_for(place)) is not None), None)
    if config.carry is not None:
        why = f"carry {config.carry}: as you said"
    elif found is not None:
        why = f"carry {found.carry}: the model was trained for it (inftythink.json)"
    else:
        why = "carry two_call: nothing says that the model was trained for summaries (it has no inftythink.json)"
    eta = config.eta if config.eta is not None else (found and found.eta) or ETA
    gamma = config.gamma if config.gamma is not None else (found and found.gamma) or GAMMA
    phi = config.max_rounds if config.max_rounds is not None else (found and found.phi) or PHI
    heat = config.temperature
    if heat is None:
        heat = found.temperature if found is not None and found.temperature is not None else TEMPERATURE
    carry = config.carry or (found.carry if found else "two_call")
    chosen = dataclasses.replace(config, carry=carry, eta=eta, gamma=gamma, max_rounds=phi, temperature=heat)
    return chosen, f"{why}; eta {eta}, gamma {gamma}", found


def interval(text: str) -> tuple[int, int] | None:
    """Read ``adaptive`` (None), ``fixed:5000`` or ``random:3000-6000``; numbers may end in k. Raises ``UsageError``."""
    if text == "adaptive":
        return None
    number = r"(\d+)(k?)"
    match = re.fullmatch(f"fixed:{number}|random:{number}-{number}", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--summarise-when {text}: give adaptive, fixed:5000 or random:3000-6000")
    found = [int(n) * (1024 if k else 1) for n, k in zip(match.groups()[::2], match.groups()[1::2], strict=True) if n]
    return found[0], found[-1]


def _check(config: SolveConfig) -> None:
    """Raise ``UsageError`` for what no model could make sense of."""
    example = "for example: inftythink solve 'What is 12 * 13?' --base-url http://localhost:8000/v1"
    if (config.question is None) == (config.input is None):
        both = config.question is not None
        raise UsageError("give a question or --input FILE, not both" if both else f"there is no question; {example}")
    if config.question is not None and not config.question.strip():
        raise UsageError(f"the question is empty; {example}")
    for flag, value in (("--samples", config.samples), ("--concurrency", config.concurrency)):
        if value < 1:
            raise UsageError(f"{flag} {value}: at least 1 is needed")
    if (config.temperature or 0) < 0 or not 0 < config.top_p <= 1:
        raise UsageError("--temperature is to be at least 0, and --top-p above 0 and at most 1")


def _reasoner(config: SolveConfig) -> Reasoner:
    from inftythink.backends import Sampling
    from inftythink.reasoner import Reasoner

    assert config.carry is not None
    assert config.eta is not None
    assert config.gamma is not None
    assert config.max_rounds is not None
    assert config.temperature is not None
    try:
        policy = Policy(
            eta=config.eta,
            gamma=config.gamma,
            phi=config.max_rounds,
            budget=config.budget,
            interval=interval(config.summarise_when),
            on_cut=config.on_cut,
            on_limit=config.on_limit,
            seed=config.seed or 0,
        )
    except ProtocolError as error:
        raise UsageError(str(error).replace("phi", "--max-rounds")) from error
    subject = "--input questions.jsonl" if config.input is not None else "'What is 12 * 13?'"
    return Reasoner(
        connect(config, carry=config.carry, command=f"inftythink solve {subject}", connections=config.concurrency),
        carry=config.carry,
        policy=policy,
        sampling=Sampling(config.temperature, config.top_p, config.top_k, config.seed),
        instruction=config.instruction,
        slots=config.concurrency,
    )


def started(config: SolveConfig, reasoner: Reasoner) -> SolveConfig:
    """Return ``config`` with the model's name as the server tells it.

    Raises ``UsageError`` when the limits allow no round.
    """
    try:
        Machine(Problem("", ""), reasoner.format, make_carry(reasoner.carry, reasoner.policy), reasoner.policy)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(config, model=getattr(reasoner.backend, "model", None) or config.model)


def _one(config: SolveConfig) -> Any:
    from inftythink.cli._problems import Problems

    return Problems([_problem(config)], [], "")


def _problem(config: SolveConfig) -> Problem:
    return Problem("1", config.question or "", None, (("system", config.system),) if config.system else ())


def _interruptible(work: Any) -> int:
    """Ctrl-C where nothing is kept: there is nothing to resume."""
    try:
        code: int = work()
        return code
    except KeyboardInterrupt:
        print("interrupted; nothing is kept of this run", file=sys.stderr)
        return INTERRUPTED


async def _live(config: SolveConfig, reasoner: Reasoner) -> int:
    """Solve one question, showing the rounds as they are written."""
    from inftythink.cli._terminal import Presenter, show_stored
    from inftythink.store import RunFolder

    async with reasoner:
        config = started(config, reasoner)
        folder = None if config.output is None else RunFolder(config.output, config)
        try:
            trajectory: Trajectory | None = next(folder.trajectories(), None) if folder else None
            with _screen() as screen:
                if trajectory is not None:
                    print(f"solved already, in {config.output}", file=sys.stderr)
                    show_stored(screen, trajectory)
                else:
                    presenter = Presenter(screen, opened=reasoner.format.thought == "opened")
                    async with aclosing(cast(Any, reasoner.stream(_problem(config)))) as events:
                        async for event in events:
                            presenter.show(event)
                            if isinstance(event, Trajectory):
                                trajectory = event
                    assert trajectory is not None
                    if folder:
                        folder.finish(trajectory)
        finally:
            if folder:
                folder.close()
    return 1 if trajectory.outcome is Outcome.FAILED else 0


def _screen() -> Screen:
    """A terminal gets colours and a line that moves; a file, a pipe or a dumb terminal plain text."""
    from rich.console import Console

    from inftythink.cli._terminal import LiveScreen, PlainScreen

    console = Console()
    return LiveScreen(console) if sys.stdout.isatty() and not console.is_dumb_terminal else PlainScreen(sys.stdout)


COMMAND = Command(
    SolveConfig,
    run,
    "answer a question, or a file of them, in rounds of bounded context",
    """
inftythink solve 'What is the sum of the primes below 50?' --base-url http://localhost:8000/v1
inftythink solve 'What is 12 * 13?' --model path/to/model --eta 512 --gamma 128
inftythink solve --input questions.jsonl --base-url http://localhost:8000/v1 --output runs/first
""",
)
