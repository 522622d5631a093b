"""GPQA Diamond: multiple choice for experts of biology, chemistry and physics.

Its authors ask that the questions are not published in plain text, so none is shown here, in errors or in tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from inftythink.grade.choice import grade_choice
from inftythink.protocol import Problem
from inftythink.tasks import columns
from inftythink.tasks.base import Item, TaskSettings, collect
from inftythink.tasks.options import letters, shuffled, with_options
from inftythink.tasks.prompts import SCIENCE, preset
from inftythink.tasks.read import Hub, Row, read_rows

RIGHT = "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class Gpqa:
    """The task; see the module."""

    name: str = "gpqa_diamond"
    about: str = "198 questions of science, four options each (Idavidrein/gpqa, after accepting its terms)"

    def items(self, settings: TaskSettings) -> list[Item]:
        """Return the questions, the options of each shuffled by itself."""
        prompt = preset(settings.prompt) if settings.prompt else SCIENCE

        def make(row: Row) -> Item:
            name = columns.identity(row)
            right = columns.text(row, (RIGHT,), "right option").strip()
            wrong = [columns.text(row, (column,), "wrong option").strip() for column in WRONG]
            # The place of the right option is drawn, not looked up: an option may be written twice.
            order = shuffled(4, settings.seed, name)
            options = [(right, *wrong)[index] for index in order]
            question = columns.text(row, ("Question", *columns.PROBLEMS), "question").strip()
            problem = Problem(name, with_options(question, options), letters(4)[order.index(0)])
            return Item(
                prompt.apply(problem),
                grade_choice,
                {"letters": letters(4), "options": options},
                columns.group(row, settings.group, ("High-level domain",)),
            )

        hub = Hub("Idavidrein/gpqa", "train", "gpqa_diamond")
        return collect(read_rows(settings.data, settings.split, hub), settings, make)
