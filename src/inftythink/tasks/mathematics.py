"""Published sets of mathematics problems with short answers: MATH-500, AIME, AMC and GSM8K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inftythink.grade.math import grade_math
from inftythink.protocol import Problem
from inftythink.tasks import columns
from inftythink.tasks.base import Item, TaskSettings, collect
from inftythink.tasks.prompts import MATHEMATICS, preset
from inftythink.tasks.read import Hub, Row, read_rows


@dataclass(frozen=True)
class Mathematics:
    """A set of problems.

    ``gold`` reads the reference answer of a row; results are broken down by the first of the columns ``groups``.
    """

    name: str
    about: str
    hub: Hub
    gold: Callable[[Row], str]
    groups: Sequence[str] = ()

    def items(self, settings: TaskSettings) -> list[Item]:
        """Return the problems, graded by math-verify."""
        prompt = preset(settings.prompt) if settings.prompt else MATHEMATICS

        def make(row: Row) -> Item:
            question = columns.text(row, columns.PROBLEMS, "problem").strip()
            problem = Problem(columns.identity(row), question, self.gold(row))
            return Item(prompt.apply(problem), grade_math, group=columns.group(row, settings.group, self.groups))

        return collect(read_rows(settings.data, settings.split, self.hub), settings, make)


def tasks() -> tuple[Mathematics, ...]:
    """Return all of them."""
    return (
        Mathematics(
            "math500",
            "500 competition problems of MATH (HuggingFaceH4/MATH-500)",
            Hub("HuggingFaceH4/MATH-500"),
            columns.gold,
            ("subject", "level"),
        ),
        Mathematics(
            "aime24",
            "30 problems of AIME 2024, answers 0 to 999 (HuggingFaceH4/aime_2024)",
            Hub("HuggingFaceH4/aime_2024", "train"),
            columns.whole,
        ),
        Mathematics(
            "aime25",
            "30 problems of AIME 2025, answers 0 to 999 (math-ai/aime25)",
            Hub("math-ai/aime25"),
            columns.whole,
        ),
        Mathematics(
            "amc23",
            "40 problems of AMC 12 2023 with whole answers (math-ai/amc23)",
            Hub("math-ai/amc23"),
            columns.whole,
        ),
        Mathematics(
            "gsm8k",
            "1319 word problems for school (openai/gsm8k, main, test)",
            Hub("openai/gsm8k", config="main"),
            columns.behind_hashes,
        ),
    )
