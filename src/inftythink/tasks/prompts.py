r"""Presets of prompts: what is put around a question, and which grader reads the answer.

A preset is chosen by name wherever a question is asked. For mathematics, the text behind the question is the one of the
published evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from inftythink.errors import UsageError
from inftythink.protocol import Problem

GraderName = Literal["math", "exact", "numeric", "choice", "code"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A way to ask: ``instruction`` is put behind the question, ``system`` before everything; both may be empty.

    ``grader`` reads the answer in the form that the preset asks for.
    """

    name: str
    about: str
    grader: GraderName
    instruction: str = ""
    system: str = ""

    def apply(self, problem: Problem) -> Problem:
        """Return the problem as it is put to the model. A system prompt that it has already stays the only one."""
        question = f"{problem.question}\n\n{self.instruction}" if self.instruction else problem.question
        context = problem.context
        if self.system and not any(role == "system" for role, _ in context):
            context = (("system", self.system), *context)
        return replace(problem, question=question, context=context)


PLAIN = Preset("plain", "the question as it stands", "math")

MATHEMATICS = Preset(
    "mathematics",
    "mathematics, as the published evaluations ask it",
    "math",
    r"Please reason step by step, and put your final answer within \boxed{}.",
)

LOGIC = Preset(
    "logic",
    "puzzles whose answer is a word, a name or a list that is compared as text",
    "exact",
    "Please reason step by step. Check your conclusion against every condition. Put your final answer, exactly in the "
    r"form that is asked for and nothing else, within \boxed{}.",
)

CODE = Preset(
    "code",
    "programming problems that are graded by running tests",
    "code",
    "Please reason step by step about the problem and its edge cases. End your reply with the complete Python code, "
    "imports included, in one block that opens with ```python and closes with ```. Only that block is run.",
)

TUTORING = Preset(
    "tutoring",
    "a conversation with a student; the reply ends with the result to reach",
    "math",
    system="You are a patient tutor. Find out from the conversation what the student understands and where the error "
    "is. Say what was right, correct one misunderstanding at a time, and show every step in words that the student "
    r"used. End your reply with the result that the student should reach, within \boxed{}.",
)

SCIENCE = Preset(
    "science",
    "multiple choice, such as questions of biology, chemistry and pharmacology",
    "choice",
    r"Please reason step by step, and put the letter of the right option, and nothing else, within \boxed{}.",
)

PRESETS = (MATHEMATICS, LOGIC, CODE, TUTORING, SCIENCE, PLAIN)


def preset(name: str) -> Preset:
    """Return the preset of a name. Raises ``UsageError`` naming those that there are."""
    for each in PRESETS:
        if each.name == name:
            return each
    raise UsageError(f"there is no prompt {name!r}; there are: {', '.join(each.name for each in PRESETS)}")
