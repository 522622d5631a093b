"""Verdicts on answers: one contract, used by rewards and evaluation alike."""

from inftythink.grade.base import Grade
from inftythink.grade.boxed import last_boxed

__all__ = ["Grade", "last_boxed"]
