"""``inftythink solve``: one question, shown live, or a file of them, kept in a run folder."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from inftythink.cli import Command
from inftythink.cli._reasoning import ReasonSettings, check, fit, make_reasoner, started
from inftythink.config import Count, option
from inftythink.errors import UsageError
from inftythink.protocol import Outcome, Problem, Trajectory

if TYPE_CHECKING:
    from inftythink.cli._problems import Problems
    from inftythink.cli._terminal import Screen
    from inftythink.reasoner import Reasoner

INTERRUPTED = 130


@dataclass(frozen=True)
class SolveConfig(ReasonSettings):
    """What ``inftythink solve`` can be told."""

    question: str | None = option(None, "the question", positional=True)
    input: str | None = option(
        None,
        "file of questions: JSONL with problem (or question), id and answer, or text, one a line; - is standard input",
        metavar="FILE",
    )
    samples: Count = option(1, "trajectories of each question")
    system: str = option("", "system prompt")
    output: Path | None = option(
        None, "run folder (default with --input: runs/solve-DIGEST)", metavar="RUN", identity=False
    )
    json: bool = option(False, "one trajectory as JSON a line on standard output, nothing else there", identity=False)


def run(config: SolveConfig) -> int:
    """Solve what ``config`` asks for; 1 when a trajectory FAILED, else 0."""
    from inftythink.cli._many import solve_many
    from inftythink.cli._problems import read_problems
    from inftythink.reasoner import run_sync

    _check(config)
    found = read_problems(config.input, config.system) if config.input is not None else None
    config, why, trained = fit(config)
    if trained is not None and trained.puzzles:
        found = _puzzles(config, found)
    subject = "--input questions.jsonl" if config.input is not None else "'What is 12 * 13?'"
    reasoner = make_reasoner(config, f"inftythink solve {subject}")
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


def _check(config: SolveConfig) -> None:
    """Raise ``UsageError`` for what no model could make sense of."""
    example = "for example: inftythink solve 'What is 12 * 13?' --base-url http://localhost:8000/v1"
    if (config.question is None) == (config.input is None):
        both = config.question is not None
        raise UsageError("give a question or --input FILE, not both" if both else f"there is no question; {example}")
    if config.question is not None and not config.question.strip():
        raise UsageError(f"the question is empty; {example}")
    if config.samples < 1:
        raise UsageError("--samples 0: at least 1 is needed")
    check(config)


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
