"""The entry point ``inftythink``: finds the verb, imports its file, and turns what happened into an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C, 141 the reader of the output went away,
143 terminated by SIGTERM.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

from inftythink import __version__
from inftythink._process import terminable
from inftythink.cli import Command
from inftythink.errors import InftyThinkError, UsageError, describe

VERBS: dict[str, tuple[str, str]] = {
    "data": ("inftythink.cli.data", "turn long reasoning traces into InftyThink training instances"),
    "sft": ("inftythink.cli.sft", "train a model on converted data"),
    "rl": ("inftythink.cli.rl", "train a model by reinforcement learning over whole trajectories"),
    "lab": ("inftythink.cli.lab", "run the papers' experiments in minutes with a small model, and write a report"),
    "solve": ("inftythink.cli.solve", "answer a question, or a file of them, in rounds of bounded context"),
    "serve": ("inftythink.cli.serve", "an OpenAI-compatible server that lets any model reason in rounds"),
    "eval": ("inftythink.cli.evaluate", "answer and grade the problems of a task, and tell what came of it"),
    "rescore": ("inftythink.cli.rescore", "grade the answers of a run again"),
    "compare": ("inftythink.cli.compare", "tell whether one of two runs is better, on the problems that both have"),
    "restart": (
        "inftythink.cli.restart",
        "continue a run from its own, empty, shuffled summaries: what do they carry?",
    ),
    "export": ("inftythink.cli.export", "write a run as the per-sample logs of lm-evaluation-harness"),
    "cost": ("inftythink.cli.cost", "tell what reasoning costs in one chain and in rounds"),
    "report": ("inftythink.cli.report", "show runs on a page that opens from disk"),
}
"""Verb -> the module that is imported when it is called, and its line in ``--help``."""

DONE, FAILED, USAGE, INTERRUPTED, PIPE_CLOSED, TERMINATED = 0, 1, 2, 130, 141, 143


def main(argv: Sequence[str] | None = None, verbs: Mapping[str, tuple[str, str]] = VERBS) -> int:
    """Run one command line and return its exit code; never raises for what a user can cause.

    Args:
        argv: the arguments behind the program's name; those of the process when None.
        verbs: the table of verbs.

    An error of this package, or of the operating system, is one line on standard error. With ``INFTYTHINK_DEBUG=1`` in
    the environment it is raised instead, with its traceback. Anything else is a bug and is always raised.
    """
    debug = os.environ.get("INFTYTHINK_DEBUG", "") not in ("", "0")
    # Read when torch is loaded. Threads that wait by spinning make a small model twenty times slower beside other jobs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with terminable() as terminated:
        code = _run(list(sys.argv[1:] if argv is None else argv), verbs, debug, terminated)
    return TERMINATED if terminated and code == INTERRUPTED else code


def _run(argv: list[str], verbs: Mapping[str, tuple[str, str]], debug: bool, terminated: list[int]) -> int:
    """Run one command line; turn what it raises into an exit code."""
    try:
        code = _dispatch(argv, verbs)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        how = "terminated" if terminated else "interrupted"
        print(f"{how}, resume with the same command", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if debug:
            raise
        # The interpreter flushes standard output once more at exit, which would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (InftyThinkError, OSError) as error:
        if debug:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else FAILED


def _dispatch(argv: list[str], verbs: Mapping[str, tuple[str, str]]) -> int:
    """Parse down to one command, build its configuration and run it."""
    if not argv or argv[0] in ("-h", "--help"):
        (print if argv else _print_error)(_overview(verbs))
        return DONE if argv else USAGE
    if argv[0] in ("-V", "--version"):
        print(f"inftythink {__version__}")
        return DONE
    verb, *rest = argv
    if verb not in verbs:
        raise UsageError(_unknown("command", verb, verbs) + "; see inftythink --help")
    module = import_module(verbs[verb][0])
    name, command = f"inftythink {verb}", getattr(module, "COMMAND", None)
    if command is None:
        commands: dict[str, Command[Any]] = module.COMMANDS
        if not rest or rest[0] in ("-h", "--help"):
            lines = {sub: ("", each.help) for sub, each in commands.items()}
            (print if rest else _print_error)(_overview(lines, name, verbs[verb][1]))
            return DONE if rest else USAGE
        if rest[0] not in commands:
            raise UsageError(_unknown(f"{name} command", rest[0], commands) + f"; see {name} --help")
        name, command, rest = f"{name} {rest[0]}", commands[rest[0]], rest[1:]
    return run_command(name, command, rest)


def run_command(name: str, command: Command[Any], argv: Sequence[str]) -> int:
    """Parse ``argv`` for one command, resolve its configuration and run it; returns the exit code.

    Raises:
        UsageError: a flag or a setting is wrong.
    """
    from inftythink.config import add_arguments, given, resolve

    parser = _Parser(
        prog=name,
        description=command.help[:1].upper() + command.help[1:] + ".",
        epilog="example:\n" + "\n".join(f"  {line}" for line in command.example.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser, command.config)
    shared = parser.add_argument_group("settings from elsewhere (defaults < --config < flags < --set)")
    shared.add_argument("--config", metavar="FILE.yaml", help="read settings from a YAML file")
    shared.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set any setting by its (dotted) name"
    )
    try:
        args = parser.parse_args(argv)
    except SystemExit:  # --help was printed; errors are raised by _Parser
        return DONE
    return command.run(resolve(command.config, args.config, args.set, given(args))) or DONE


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the process, so that every wrong usage ends in one place."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError`` with argparse's message."""
        raise UsageError(f"{message}; see {self.prog} --help")


def _overview(verbs: Mapping[str, tuple[str, str]], name: str = "inftythink", about: str = "") -> str:
    """The help of a level that has commands below it."""
    about = about[:1].upper() + about[1:] or "Reasoning without a length limit: short rounds joined by summaries"
    width = max((len(verb) for verb in verbs), default=0)
    lines = "\n".join(f"  {verb:<{width}}  {text}" for verb, (_, text) in verbs.items())
    tail = f"'{name} COMMAND --help' shows a command's settings and an example."
    version = "\n  --version   print the version" if name == "inftythink" else ""
    return (
        f"usage: {name} COMMAND …\n\n{about}.\n\ncommands:\n{lines}\n\n"
        f"options:\n  -h, --help  print this{version}\n\n{tail}"
    )


def _unknown(what: str, name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"no {what} {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}")


def _print_error(text: str) -> None:
    print(text, file=sys.stderr)
