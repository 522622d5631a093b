"""The command line's mechanism, on commands defined here."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from inftythink import __version__
from inftythink.cli import Command
from inftythink.cli.main import VERBS, main
from inftythink.config import Count, option
from inftythink.errors import InputError, UsageError, missing


@dataclass(frozen=True)
class EchoConfig:
    word: str = option("nothing", "the word", positional=True)
    eta: Count = option(4096, "most tokens")
    fail: str = option("", "how to fail")


def echo(config: EchoConfig) -> int | None:
    failures = {
        "usage": UsageError("eta 1 is too small for gamma 2"),
        "input": InputError("a.jsonl:3: not JSON"),
        "missing": missing("torch", "hf"),
        "disk": OSError(28, "No space left on device", "out/a"),
        "ctrl-c": KeyboardInterrupt(),
        "pipe": BrokenPipeError(),
        "bug": ZeroDivisionError("a bug"),
    }
    if config.fail in failures:
        raise failures[config.fail]
    print(f"{config.word} {config.eta}")
    return 1 if config.fail == "code" else None


ECHO = Command(EchoConfig, echo, "say a word", "inftythink echo hello --eta 4k")
TABLE = {"echo": ("test_verb_echo", "say a word"), "group": ("test_verb_group", "several commands")}


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    single, group = types.ModuleType("test_verb_echo"), types.ModuleType("test_verb_group")
    single.__dict__["COMMAND"] = ECHO
    group.__dict__["COMMANDS"] = {"echo": ECHO}
    monkeypatch.setitem(sys.modules, "test_verb_echo", single)
    monkeypatch.setitem(sys.modules, "test_verb_group", group)
    monkeypatch.delenv("INFTYTHINK_DEBUG", raising=False)


def run(*argv: str) -> int:
    return main(argv, TABLE)


@pytest.mark.parametrize("start", [("echo",), ("group", "echo")])
def test_a_command_gets_its_configuration(
    start: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text("word: hello\neta: 1\n")
    assert run(*start, "--config", str(tmp_path / "a.yaml"), "--eta", "2", "--set", "eta=4k") == 0
    assert capsys.readouterr().out == "hello 4096\n"


@pytest.mark.parametrize("argv", [("hi", "--eta", "1"), ("--eta", "1", "hi"), ("--eta=1", "hi", "--fail", "")])
def test_the_positional_setting_may_stand_anywhere(argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("echo", *argv) == 0
    assert capsys.readouterr().out == "hi 1\n"


def test_the_exit_code_of_a_command_is_kept() -> None:
    assert run("echo", "--fail", "code") == 1


@pytest.mark.parametrize(
    ("fail", "code", "line"),
    [
        ("usage", 2, "error: eta 1 is too small for gamma 2"),
        ("input", 1, "error: a.jsonl:3: not JSON"),
        ("missing", 1, "error: torch is not installed. Install it with: pip install 'inftythink[hf]'"),
        (
            "disk",
            1,
            "error: [Errno 28] No space left on device: 'out/a'. What is on record is safe: free some space and run "
            "the same command again.",
        ),
        ("ctrl-c", 130, "interrupted, resume with the same command"),
    ],
)
def test_a_failure_is_one_clean_line(fail: str, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("echo", "--fail", fail) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", line + "\n")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run("echo", "--fail", "bug")


@pytest.mark.parametrize(("fail", "kind"), [("input", InputError), ("disk", OSError), ("pipe", BrokenPipeError)])
def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, fail: str, kind: type[Exception]) -> None:
    monkeypatch.setenv("INFTYTHINK_DEBUG", "1")
    with pytest.raises(kind):
        run("echo", "--fail", fail)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("ecko",), ["no command 'ecko'", "did you mean 'echo'"]),
        (("zzz",), ["no command 'zzz'", "there are: echo, group"]),
        (("group", "ecko"), ["no inftythink group command 'ecko'", "inftythink group --help"]),
        (("echo", "--etta", "4"), ["unrecognized arguments: --etta", "inftythink echo --help"]),
        (("echo", "--eta", "many"), ["--eta: eta is to be a count", "not many"]),
        (("echo", "--set", "etta=4"), ["did you mean 'eta'"]),
        (("echo", "--config", "none.yaml"), ["none.yaml: cannot be read"]),
        ((), ["usage: inftythink COMMAND"]),
        (("group",), ["usage: inftythink group COMMAND"]),
    ],
)
def test_wrong_usage_is_code_2_on_standard_error(
    argv: tuple[str, ...], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(word in err for word in words), err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--help",), ["usage: inftythink COMMAND", "echo   say a word", "group  several commands", "--version"]),
        (("group", "--help"), ["usage: inftythink group COMMAND", "Several commands.", "echo  say a word"]),
        (("echo", "--help"), ["Say a word.", "inftythink echo hello --eta 4k", "(default: 4096)", "--config", "--set"]),
        (("group", "echo", "-h"), ["usage: inftythink group echo"]),
        (("--version",), [__version__]),
    ],
)
def test_help_is_on_standard_output(
    argv: tuple[str, ...], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert all(word in out for word in words), out


def test_every_verb_of_the_table_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    for verb, (module_name, line) in VERBS.items():
        assert line
        module = import_module(module_name)
        commands = module.COMMANDS if hasattr(module, "COMMANDS") else {"": module.COMMAND}
        for name, command in commands.items():
            assert f"inftythink {verb} {name}".strip() in command.example
            assert main([verb, *([name] if name else []), "--help"]) == 0
            assert command.example.strip().splitlines()[0] in capsys.readouterr().out


def test_help_imports_no_verb_and_nothing_heavy() -> None:
    code = (
        "import sys\nfrom inftythink.cli.main import main\nassert main(['--help']) == 0\n"
        "heavy = 'torch transformers vllm datasets datatrove pyarrow aiohttp rich numpy yaml asyncio'.split()\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)\n"
        "print([name for name in sys.modules if name.startswith('inftythink.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, ours = done.stderr.splitlines()
    assert heavy == "[]"
    expected = ["inftythink._process", "inftythink.cli", "inftythink.cli.main", "inftythink.errors"]
    assert sorted(ast.literal_eval(ours)) == expected


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys, types\nfrom dataclasses import dataclass\nfrom inftythink.cli import Command\n"
        "from inftythink.cli.main import main\n"
        "@dataclass(frozen=True)\nclass A: pass\n"
        "def run(config):\n    for n in range(100000): print(n)\n"
        "many = types.ModuleType('many')\nmany.COMMAND = Command(A, run, 'count', 'x')\nsys.modules['many'] = many\n"
        "sys.exit(main(['many'], {'many': ('many', 'count')}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_python_m_inftythink_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inftythink", "--version"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (0, f"inftythink {__version__}\n")
