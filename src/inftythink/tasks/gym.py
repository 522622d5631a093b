"""Reasoning Gym: any of its generators as a task, graded by the generator's own verifier.

The entries are made in a process of their own whose hashes are not random: some generators draw from sets, and would
otherwise ask something else each time that a run is taken up again.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from inftythink.errors import InputError, MissingDependencyError, UsageError
from inftythink.grade import last_boxed
from inftythink.grade.base import NO_CONCLUSION, Ask, Grade, limits
from inftythink.protocol import Problem
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.prompts import LOGIC, preset

PREFIX = "reasoning-gym:"

_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*)</answer>", re.DOTALL)
_INSTALL = (
    "Install it with: pip install 'inftythink[logic]'. That compiles its dependency pycosat; how to do without a "
    "compiler stands in docs/tasks.md"
)


@dataclass(frozen=True)
class ReasoningGym:
    """The task of one generator."""

    generator: str

    @property
    def name(self) -> str:
        """What ``--task`` calls it."""
        return PREFIX + self.generator

    @property
    def about(self) -> str:
        """One line about it."""
        return f"problems made by Reasoning Gym's generator {self.generator}"

    def items(self, settings: TaskSettings) -> list[Item]:
        """Make ``settings.problems`` problems; ``settings.seed`` is the generator's."""
        prompt = preset(settings.prompt) if settings.prompt else LOGIC
        return [
            Item(
                prompt.apply(Problem(f"{settings.seed}-{index}", entry["question"], entry["answer"])),
                grade_reasoning_gym,
                {"generator": self.generator, "entry": repr(entry)},
            )
            for index, entry in enumerate(_generate(self.generator, settings.drawn(self.name), settings.seed))
        ]


def _reasoning_gym() -> ModuleType:
    """Import the package. Raises ``MissingDependencyError`` without it."""
    if "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None:
        # The whole package asks for it on import, but only zebra_puzzles uses it, and it comes without a wheel.
        sys.modules["pycosat"] = ModuleType("pycosat")
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise MissingDependencyError(f"reasoning-gym cannot be imported ({error}). {_INSTALL}") from error


@limits(timeout=30.0, prepare=_reasoning_gym)
def grade_reasoning_gym(ask: Ask) -> Grade:
    r"""Ask the generator's verifier about the last ``\boxed{}`` or ``<answer>`` of the conclusion.

    Right is a score of 1; a lower one is told in the reason. An answer on which a verifier breaks down is wrong when
    the verifier works on the reference (on an empty answer, where there is none); otherwise its error is raised.
    """
    if ask.conclusion is None:
        return NO_CONCLUSION
    answer = _answer(ask.conclusion)
    if answer is None:
        return Grade(False, None, "no \\boxed{} and no <answer> in the conclusion")
    # The entry as Python writes it: JSON would make lists of its tuples, which some verifiers do not accept.
    entry = ast.literal_eval(ask.data["entry"])
    verifier = _verifier(ask.data["generator"])
    try:
        score = float(verifier.score_answer(answer, entry))
    except Exception as error:
        verifier.score_answer(entry["answer"] or "", entry)  # raises where the fault is not the answer's
        return Grade(False, answer, f"the verifier cannot read this answer: {type(error).__name__}: {error}")
    return Grade(score == 1, answer, None if score == 1 else f"score {score:g}")


def _answer(conclusion: str) -> str | None:
    """Return what stands in the last box or between the last tags, whichever comes later."""
    tagged = None
    for tagged in _TAGGED.finditer(conclusion):  # noqa: B007 - the last one is wanted
        pass
    behind = conclusion[tagged.end() :] if tagged else conclusion
    boxed = last_boxed(behind)
    return boxed if boxed is not None or tagged is None else tagged[1].strip()


@functools.lru_cache
def _verifier(generator: str) -> Any:
    return _reasoning_gym().create_dataset(generator, size=1, seed=0)


def _generate(generator: str, number: int, seed: int) -> list[dict[str, Any]]:
    """Return the entries that a generator makes, the same ones in every process."""
    made = subprocess.run(
        [sys.executable, "-m", "inftythink.tasks.gym", generator, str(number), str(seed)],
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    try:
        told = json.loads(made.stdout)
    except ValueError:
        raise InputError(f"{PREFIX}{generator}: the generator ended without an answer: {made.stderr[-500:]}") from None
    if "missing" in told:
        raise MissingDependencyError(told["missing"])
    if "known" in told:
        close = difflib.get_close_matches(generator, told["known"], n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are: {', '.join(told['known'])}"
        raise UsageError(f"{PREFIX}{generator}: there is no such generator; {hint}")
    if "failed" in told:
        raise InputError(f"{PREFIX}{generator}: {told['failed']}")
    return [ast.literal_eval(entry) for entry in told["entries"]]


def _tell(generator: str, number: int, seed: int) -> dict[str, Any]:
    """Return what ``_generate`` reads: the entries, or why there are none."""
    try:
        gym = _reasoning_gym()
    except MissingDependencyError as error:
        return {"missing": str(error)}
    known = sorted(
        name for name in gym.factory.DATASETS if name != "composite"
    )  # made of others, which it must be told
    if generator not in known:
        return {"known": known}
    if generator == "zebra_puzzles" and not hasattr(sys.modules["pycosat"], "itersolve"):
        return {"missing": "zebra_puzzles needs pycosat. Install it with: pip install pycosat (it needs a C compiler)"}
    try:
        dataset = gym.create_dataset(generator, size=number, seed=seed)
        entries = [repr(_plain(entry)) for entry in dataset]
        read = [ast.literal_eval(entry) for entry in entries]
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}
    if _accepts_anything(dataset, read[0]):
        return {"failed": "its verifier calls any text right (a fault of reasoning-gym), so a result would say nothing"}
    return {"entries": entries}


def _accepts_anything(verifier: Any, entry: dict[str, Any]) -> bool:
    """Tell whether a verifier gives nonsense the full score; game_of_life_halting's of version 0.1.25 does."""
    try:
        return float(verifier.score_answer("no such answer", entry)) == 1
    except Exception:  # it reads answers at least
        return False


def _plain(value: Any) -> Any:
    """Return a value of Python's own types; an entry may hold NumPy's numbers and texts."""
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_plain(each) for each in value)
    if isinstance(value, str):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _main() -> None:
    generator, number, seed = sys.argv[1:]
    told, sys.stdout = sys.stdout, sys.stderr  # what a generator prints is no entry
    json.dump(_tell(generator, int(number), int(seed)), told)


if __name__ == "__main__":
    _main()
