"""The graders by the names that files and presets use."""

from __future__ import annotations

from inftythink.grade.base import Grader
from inftythink.grade.choice import grade_choice
from inftythink.grade.code import grade_code
from inftythink.grade.exact import grade_exact
from inftythink.grade.math import grade_math
from inftythink.grade.numeric import grade_numeric
from inftythink.tasks.prompts import GraderName

_GRADERS: dict[GraderName, Grader] = {
    "math": grade_math,
    "exact": grade_exact,
    "numeric": grade_numeric,
    "choice": grade_choice,
    "code": grade_code,
}


def named(name: GraderName) -> Grader:
    """Return a grader."""
    return _GRADERS[name]
