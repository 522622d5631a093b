"""The command line: one file per verb, each parse -> configuration -> call.

The contract of a verb. ``inftythink VERB`` imports ``inftythink/cli/VERB.py``, and only then, so ``inftythink --help``
stays fast. The file names one command, or several under one verb::

    @dataclass(frozen=True)
    class SolveConfig:
        question: str = option(REQUIRED, "the question", positional=True)
        eta: Count = option(4096, "most tokens in a segment")

    def run(config: SolveConfig) -> int | None:
        from inftythink.reasoner import Reasoner  # heavy imports here, not at the top
        ...

    COMMAND = Command(SolveConfig, run, "answer a question in rounds", "inftythink solve 'What is 2 + 2?' --eta 512")

or, for ``inftythink data segment`` and its siblings, ``COMMANDS = {"segment": Command(...), ...}``. The verb and its
one-line help stand in the table ``VERBS`` of ``cli/main.py``; nothing else needs to be told.

``run`` returns an exit code, or None for 0: 0 done, 1 failed, 2 wrong usage. It raises ``UsageError`` (exit 2) or
another ``InftyThinkError`` (exit 1), of which ``main`` prints one line; it prints results on standard output and
progress on standard error. Ctrl-C reaches it as ``KeyboardInterrupt`` (or a cancelled task): it leaves its run folder
so that the same command resumes, and lets the exception pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class Command(Generic[C]):
    """One command: its configuration, what it calls, one line of help, and an example for ``--help``."""

    config: type[C]
    """A frozen dataclass whose fields are declared with ``config.option``; they are the command's flags."""
    run: Callable[[C], int | None]
    """Called with the resolved configuration; returns the exit code, or None for 0."""
    help: str
    """One line, lower case, without a full stop."""
    example: str
    """A command line (or several, one a line) that works as it is or with the user's own paths put in."""
