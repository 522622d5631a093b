"""docs/scaling.md says what its script computes, and its command lines are accepted."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from inftythink.cli.main import main
from inftythink.evals.cost import training_flops, vanilla

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))

import scaling  # noqa: E402
import training  # noqa: E402

PAGE = (ROOT / "docs/scaling.md").read_text("utf-8")
LAUNCHED = re.findall(r"^    accelerate launch (.*?) -m inftythink (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", scaling.tables())
def test_the_page_has_the_scripts_tables(name):
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
    assert found[1] == scaling.tables()[name], "run: python benchmarks/scaling.py --write"


@pytest.mark.parametrize(("launcher", "line"), LAUNCHED)
def test_what_is_launched_has_flags_and_files_that_exist(launcher, line, capsys):
    arguments = shlex.split(line)
    try:
        code = main([*arguments, "--help"])
    except SystemExit as ended:  # argparse ends this way
        code = ended.code
    assert code == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"{re.escape(each)}\b", shown) for each in arguments if each.startswith("--"))
    for file in re.findall(r"recipes/\S+\.yaml", f"{launcher} {line}"):
        assert (ROOT / file).is_file()


def test_one_eight_and_sixty_four_gpus_are_launched():
    assert len(LAUNCHED) == 6


def test_training_takes_three_times_the_operations_of_reading():
    model = scaling.architecture("Qwen2.5-Math-7B")
    forward = 2 * ((model.active + model.head) * 100 + model.query_dim * len(model.windows) * 100 * 101 / 2)
    assert training_flops(model, 100) == pytest.approx(3 * forward)


def test_what_is_told_of_published_runs_is_near_to_them():
    assert all(0.25 < share < 0.5 for share in scaling.shares().values())
    assert 0.28 < scaling.MFU < 0.38
    model = scaling.read_architecture(scaling.QWEN3_32B)
    told = scaling.rl_step(model, 4, vanilla(300, scaling.RL_TOKENS - 300), scaling.RL_ROWS, scaling.RL_TOKENS)
    assert sum(told) / scaling.RL_GPUS == pytest.approx(scaling.RL_STEP, rel=0.3)


def test_what_is_no_padding_is_counted():
    lengths = [4, 1, 1, 1, 1, 4, 2, 2]
    whole = training.Shape(8, 1)
    assert training.used(lengths, whole) == 0.5
    alike = training.Shape(8, 4)
    assert training.used(lengths, alike) == 1.0


@pytest.mark.parametrize("name", training.SHAPES)
def test_the_page_has_the_padding_of_real_traces(name):
    page = (ROOT / "docs/performance.md").read_text("utf-8")
    args = training.parser().parse_args([])
    assert f"| {name} | {' | '.join(training.padding(args)[name])} |" in page
