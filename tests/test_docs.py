"""The documents are true: command lines parse, code compiles, links lead somewhere, tables are the program's own."""

import re
import shlex
from pathlib import Path

import pytest

from inftythink.cli.main import main
from inftythink.protocol.machine import describe_table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line.strip())
    for page in PAGES
    for line in re.sub(r"\\\n\s*", "", page.read_text("utf-8")).splitlines()
    if line.startswith("    inftythink ")
]


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_line_has_flags_that_exist(page, line, capsys):
    """``--help`` at the end makes a command line that parses print its help; one that does not says what is wrong."""
    arguments = shlex.split(line, comments=True)[1:]
    flags = [argument for argument in arguments if argument.startswith("--")]
    try:
        code = main([*arguments, "--help"])
    except SystemExit as ended:  # argparse ends this way
        code = ended.code
    assert code == 0
    shown = capsys.readouterr().out
    for flag in flags:
        assert re.search(rf"{re.escape(flag)}\b", shown), f"{page}: {flag} is no flag of this command"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles_and_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, page.name, "exec")
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link} leads nowhere"


def test_the_transition_table_of_the_docs_is_the_machines():
    assert describe_table() in (ROOT / "docs/protocol.md").read_text("utf-8")
