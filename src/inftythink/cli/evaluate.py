"""``inftythink eval``: tasks, answered and graded, kept in a run folder."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inftythink.cli import Command
from inftythink.cli._reasoning import ReasonSettings, check, fit, make_reasoner, started
from inftythink.config import Count, digest, option
from inftythink.errors import UsageError
from inftythink.evals.presets import PRESETS
from inftythink.tasks.base import TaskSettings

if TYPE_CHECKING:
    from inftythink.evals.rows import Row
    from inftythink.evals.run import Asked
    from inftythink.reasoner import Reasoner


@dataclass(frozen=True)
class EvalConfig(ReasonSettings, TaskSettings):
    """What ``inftythink eval`` can be told."""

    task: str | None = option(
        None, "tasks, a comma between (default with the model that ships: puzzles)", metavar="NAME[,NAME]"
    )
    preset: str | None = option(None, "settings of a published evaluation, where nothing is given", choices=[*PRESETS])
    samples: Count | None = option(None, "trajectories of each problem (default: the preset's, else 1)")
    system: str = option("", "system prompt, before that of the task")
    output: Path | None = option(None, "run folder (default: runs/eval-DIGEST)", metavar="RUN", identity=False)
    json: bool = option(False, "the figures as JSON on standard output, nothing else there", identity=False)
    grade_timeout: float = option(10.0, "longest time to grade an answer, in seconds")
    grade_workers: Count = option(2, "processes that grade", identity=False)


def run(config: EvalConfig) -> int:
    """Evaluate; 1 when a trajectory or a grade FAILED, else 0."""
    from inftythink.reasoner import run_sync

    config = filled(config)
    check(config)
    config, why, trained = fit(config)
    if config.task is None:
        if trained is None or not trained.puzzles:
            raise UsageError("which tasks? Give --task NAME[,NAME]; there are: " + ", ".join(_names()))
        config = dataclasses.replace(config, task="puzzles")
    asked = read_tasks(config)
    if trained is not None and trained.puzzles:
        _puzzles_only(asked)
    print(f"{len(asked):,} problems, {config.samples} samples each; {why}", file=sys.stderr)
    _tell_isolation(asked)
    reasoner = make_reasoner(config, f"inftythink eval --task {config.task}")
    return run_sync(_evaluate(config, reasoner, asked))


def filled(config: EvalConfig) -> EvalConfig:
    """Return the settings with those of their preset where nothing was given.

    Raises ``UsageError`` for a number of samples or workers that cannot be.
    """
    values = PRESETS[config.preset] if config.preset is not None else {}
    given = {name: value for name, value in values.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **given)
    config = dataclasses.replace(config, samples=1 if config.samples is None else config.samples)
    if not config.samples or not config.grade_workers or config.grade_timeout <= 0:
        raise UsageError("--samples, --grade-workers and --grade-timeout are to be more than 0")
    return config


def read_tasks(config: EvalConfig) -> list[Asked]:
    """Return the problems of all tasks that the settings name.

    Raises ``UsageError`` for a task that there is not, or that comes twice; what else ``Task.items`` raises.
    """
    from inftythink.evals.run import Asked
    from inftythink.tasks.registry import load_task

    names = [name.strip() for name in (config.task or "").split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--task {config.task}: give each task once, a comma between")
    if config.data is not None and len(names) > 1:
        raise UsageError("--data goes with one task; run the command once for each")
    fields = [field.name for field in dataclasses.fields(TaskSettings)]
    settings = TaskSettings(**{name: getattr(config, name) for name in fields} | {"seed": config.seed or 0})
    asked = [Asked(name, item) for name in names for item in load_task(name).items(settings)]
    return [_with_system(one, config.system) for one in asked] if config.system else asked


def _with_system(asked: Asked, system: str) -> Asked:
    """Put a system prompt before the problem; one that it has already follows in the same turn."""
    problem = asked.item.problem
    own = [text for role, text in problem.context if role == "system"]
    others = tuple(turn for turn in problem.context if turn[0] != "system")
    problem = dataclasses.replace(problem, context=(("system", "\n\n".join([system, *own])), *others))
    return dataclasses.replace(asked, item=dataclasses.replace(asked.item, problem=problem))


def _names() -> list[str]:
    from inftythink.tasks.registry import task_names

    return task_names()


def _tell_isolation(asked: list[Asked]) -> None:
    """Say what keeps programs that models wrote from doing harm, where there will be any.

    Raises ``UsageError`` when nothing would.
    """
    from inftythink.grade.code import grade_code
    from inftythink.grade.sandbox import isolation

    if not any(one.item.grader is grade_code for one in asked):
        return
    try:
        print(f"programs that are graded: {isolation()}", file=sys.stderr)
    except RuntimeError as error:
        raise UsageError(str(error)) from error


def _puzzles_only(asked: list[Asked]) -> None:
    """Raise ``UsageError`` for problems that the model that ships knows nothing of."""
    from inftythink.tasks.puzzle import family_of

    for one in asked:
        if family_of(one.item.problem.question) is None:
            raise UsageError(
                f"{one.id}: the model that ships with the package solves the laboratory's puzzles and nothing else "
                "(--task puzzles). Name a model: --model FOLDER_OR_HUB_NAME, or --base-url URL of a server"
            )


async def _evaluate(config: EvalConfig, reasoner: Reasoner, asked: list[Asked]) -> int:
    from inftythink.cli._meter import Meter
    from inftythink.evals.run import evaluate
    from inftythink.grade.pool import GradePool
    from inftythink.store import RunFolder

    samples = config.samples or 1
    async with reasoner:
        config = started(config, reasoner)
        path = config.output or Path("runs") / f"eval-{digest(config)}"
        with RunFolder(path, config) as folder, GradePool(config.grade_workers, config.grade_timeout) as pool:
            before, calls = len(folder.done), folder.resumed_calls
            if before or calls:
                print(f"going on in {path}: {before} done before, {calls} calls of others kept", file=sys.stderr)
            rows: list[Row] = []
            verdicts: Counter[bool | None] = Counter()

            def told(row: Row) -> None:
                rows.append(row)
                verdicts[row.correct] += 1
                meter.update(len(rows), so_far(verdicts))

            with Meter(len(asked) * samples, before) as meter:
                await evaluate(reasoner, asked, samples, folder, pool, told)
    return finish(path, rows, config.model, as_json=config.json)


def so_far(verdicts: Counter[bool | None]) -> str:
    """Return the share of right answers until now, and how many have no verdict."""
    judged = verdicts[True] + verdicts[False]
    share = f"{verdicts[True] / judged:.1%} right" if judged else "none graded"
    return share + (f" · {verdicts[None]} FAILED" if verdicts[None] else "")


def finish(path: Path, rows: list[Row], model: str | None, *, as_json: bool) -> int:
    """Write ``metrics.json`` of a run and show its figures; 1 when a trajectory or a grade FAILED, else 0."""
    from inftythink.cli._figures import show
    from inftythink.evals.metrics import summary
    from inftythink.store import write_whole

    figures = summary(rows, model_config(model)) | summaries(path, rows)
    write_whole(path / "metrics.json", json.dumps(figures, indent=2) + "\n")
    if as_json:
        print(json.dumps(figures))
    else:
        show(figures)
        print(f"result: {path}")
    return 1 if any(row.correct is None for row in rows) else 0


def summaries(path: Path, rows: list[Row]) -> dict[str, Any]:
    """Return how faithful the summaries of a run are, as ``fidelity``; nothing where there are none."""
    from inftythink.evals.fidelity import measure, of_trajectory
    from inftythink.store import ordered_trajectories

    if not any(each.summary_chars for row in rows for each in row.rounds):
        return {}
    return {"fidelity": measure(map(of_trajectory, ordered_trajectories(path))).to_json()}


def model_config(model: str | None) -> Mapping[str, Any] | None:
    """Return the ``config.json`` of a model folder, from which its work is computed; None where there is none."""
    path = Path(model or "") / "config.json"
    if model is None or not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


COMMAND = Command(
    EvalConfig,
    run,
    "answer and grade the problems of a task, and tell what came of it",
    """
inftythink eval
inftythink eval --task math500,aime24 --base-url http://localhost:8000/v1 --preset inftythink --output runs/ours
inftythink eval --task jsonl --data problems.jsonl --model path/to/model --samples 4
""",
)
