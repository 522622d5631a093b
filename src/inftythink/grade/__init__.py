"""Verdicts on answers: one contract, used by rewards and evaluation alike."""

from inftythink.grade.base import Ask, Grade, Grader
from inftythink.grade.boxed import last_boxed

__all__ = ["Ask", "Grade", "Grader", "last_boxed"]
