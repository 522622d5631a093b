"""Settings: declared once, resolved in layers, saved with a digest, compared by name."""

from __future__ import annotations

import argparse
import ast
import enum
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from inftythink.config import (
    REQUIRED,
    Count,
    add_arguments,
    difference,
    digest,
    dump,
    given,
    load_dumped,
    option,
    resolve,
    to_dict,
)
from inftythink.errors import InputError, UsageError

SRC = Path(__file__).parent.parent / "src" / "inftythink"


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclass(frozen=True)
class Sampling:
    temperature: float = option(0.7, "how random")
    top_p: float = option(0.95, "nucleus", flag="--top-p")
    seed: int | None = option(None, "seed")


@dataclass(frozen=True)
class Judge:
    model: str = option(REQUIRED, "the judge's model")
    bar: int = option(7, "lowest score that passes")


@dataclass(frozen=True)
class Settings:
    question: str = option(REQUIRED, "the question", positional=True)
    eta: Count = option(4096, "most tokens in a segment")
    budget: Count | None = option(None, "most tokens in all")
    carry: Literal["summary", "tail", "none"] = option("summary", "what crosses a round")
    colour: Colour = option(Colour.RED, "a colour")
    names: tuple[str, ...] = option((), "names")
    tags: tuple[str, ...] = option((), "tags", repeat=True)
    span: tuple[int, int] = option((1, 2), "from, to")
    rename: dict[str, str] = option({}, "columns to rename")
    layout: str = option("auto", "layout", choices=("auto", "openr1"))
    split: bool = option(True, "100% split")
    limit: int | Literal["all"] = option("all", "how many")
    output: Path = option(Path("out"), "where", identity=False)
    workers: int = option(2, "how many at once", identity=False)
    sampling: Sampling = option(Sampling(temperature=0.5), "sampling")
    judge: Judge | None = option(None, "judge")

    def __post_init__(self) -> None:
        if self.eta == 0:
            raise ValueError("eta must be above 0")


def parse(*argv: str, **resolve_args: Any) -> Settings:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Settings)
    return resolve(Settings, flags=given(parser.parse_args(argv)), **resolve_args)


def test_defaults_of_the_outer_setting_reach_the_inner_one() -> None:
    config = parse("why?")
    assert config == Settings(question="why?")
    assert config.sampling.temperature == 0.5
    assert config.sampling.top_p == 0.95


def test_each_layer_is_over_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("eta: 1k\nbudget: 10\nworkers: 5\nsampling: {temperature: 1e-1, seed: 3}\n")
    config = parse("why?", "--budget", "32k", "--workers", "6", yaml_file=path, sets=["workers=7"])
    assert (config.eta, config.budget, config.workers) == (1024, 32768, 7)
    assert config.sampling == Sampling(temperature=0.1, seed=3)


def test_the_same_setting_reads_the_same_from_a_flag_a_set_and_yaml(tmp_path: Path) -> None:
    flags = parse(
        *["q", "--eta", "1m", "--carry", "tail", "--colour", "dark-blue", "--names", "a", "b, c", "--tags", "x"],
        *[
            "--tags",
            "y",
            "--span",
            "3",
            "4",
            "--rename",
            "q=question",
            "--rename",
            "a=b=c",
            "--no-split",
            "--limit",
            "5",
        ],
        *["--output", "here", "--sampling-temperature", "0", "--top-p", "1e-2", "--judge-model", "m"],
    )
    sets = parse(
        sets=[
            *["question=q", "eta=1M", "carry=tail", "colour=dark-blue", "names=[a, 'b, c']", "tags=[x, y]"],
            *["span=[3, 4]", "rename.q=question", "rename.a=b=c", "split=false", "limit=5", "output=here"],
            *["sampling.temperature=0", "sampling.top_p=0.01", "judge.model=m"],
        ]
    )
    path = tmp_path / "a.yaml"
    path.write_text(
        "question: q\neta: 1m\ncarry: tail\ncolour: dark-blue\nnames: [a, 'b, c']\ntags: [x, y]\nspan: [3, 4]\n"
        "rename: {q: question, a: b=c}\nsplit: no\nlimit: 5\noutput: here\nsampling.temperature: 0\n"
        "sampling: {top_p: 1e-2}\njudge: {model: m}\n"
    )
    assert flags == sets == resolve(Settings, path)
    assert flags.eta == 1024 * 1024
    assert flags.colour is Colour.DARK_BLUE
    assert flags.names == ("a", "b, c")
    assert flags.rename == {"q": "question", "a": "b=c"}
    assert flags.judge == Judge(model="m")


def test_null_takes_an_optional_setting_back(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("question: q\nbudget: 5\njudge: {model: m}\n")
    config = resolve(Settings, path, sets=["budget=null", "judge=null"])
    assert (config.budget, config.judge) == (None, None)
    again = resolve(Settings, path, sets=["judge=null", "judge.model=other"])
    assert again.judge == Judge(model="other")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("etta=5", ["--set etta=5", "unknown setting 'etta'", "did you mean 'eta'"]),
        ("sampling.temprature=5", ["did you mean 'sampling.temperature'"]),
        ("zzzzzz=5", ["unknown setting 'zzzzzz'", "known: question, eta"]),
        ("eta.x=5", ["unknown setting 'eta.x'"]),
        ("eta=4q", ["eta is to be a count", "4k = 4096", "not 4q"]),
        ("eta=-1", ["eta is to be a count", "not -1"]),
        ("budget=x", ["budget is to be a count", "or null"]),
        ("carry=tale", ["carry is to be one of summary, tail, none", "not tale"]),
        ("colour=green", ["colour is to be one of red, dark-blue"]),
        ("layout=odd", ["layout is to be one of auto, openr1", "not odd"]),
        ("split=maybe", ["split is to be true or false"]),
        ("workers=1.5", ["workers is to be a whole number", "not 1.5"]),
        ("span=1,2,3", ["span is to be a list of 2"]),
        ("limit=some", ["limit is to be a whole number or one of all"]),
        ("rename=x", ["rename is to be a mapping"]),
        ("names=[a", ["names is to be a list"]),
        ("output=", ["output is to be a path"]),
        ("sampling=5", ["sampling is a group of settings", "sampling.NAME"]),
        ("sampling.temperature=hot", ["sampling.temperature is to be a number", "not hot"]),
        ("eta", ["--set eta: expected KEY=VALUE"]),
        ("eta=0", ["eta must be above 0"]),
        ("judge.bar=3", ["missing: judge.model", "--judge-model"]),
    ],
)
def test_wrong_settings_are_refused_by_name(setting: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse("q", sets=[setting])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("etta: 5", ["a.yaml", "'etta'", "did you mean 'eta'"]),
        ("sampling: {temp: 5}", ["a.yaml", "'sampling.temp'"]),
        ("eta: [1]", ["a.yaml", "eta is to be a count", "not [1]"]),
        ("split: 'yes'", ["split is to be true or false", "not yes"]),
        ("eta: true", ["eta is to be a count", "not true"]),
        ("eta: 1.0", ["eta is to be a count"]),
        ("workers: '3'", ["workers is to be a whole number"]),
        ("question: 7", ["question is to be text", "not 7"]),
        ("names: a", ["names is to be a list, each text"]),
        ("sampling: 5", ["sampling is a group"]),
        ("eta: 1\neta: 2", ["a.yaml", "'eta' is given twice"]),
        ("- eta", ["expected a mapping"]),
        ("eta: [", ["not YAML", "line"]),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        parse("q", yaml_file=path)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_and_a_missing_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read"):
        parse("q", yaml_file=tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="missing: question"):
        parse()


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# nothing\n")
    assert parse("q", yaml_file=path) == parse("q")


def test_help_shows_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Settings)
    text = " ".join(parser.format_help().split())
    assert "most tokens in a segment (default: 4096)" in text
    assert "how random (default: 0.5)" in text
    assert "the question (required)" in text
    assert "{summary,tail,none}" in text
    assert "--split, --no-split 100% split (default: true)" in text


def test_a_saved_configuration_comes_back(tmp_path: Path) -> None:
    config = parse("問?", "--names", "a", "--judge-model", "m", "--rename", "a=b", "--budget", "4k")
    dump(config, tmp_path / "config.yaml")
    assert load_dumped(Settings, tmp_path / "config.yaml") == config
    assert resolve(Settings, tmp_path / "config.yaml") == config
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert saved == {"digest": digest(config), **to_dict(config)}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_saved_configuration_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    dump(parse("q"), path)
    path.write_text(path.read_text().replace("eta: 4096", "eta: 2048"))
    with pytest.raises(InputError, match="edited by hand"):
        load_dumped(Settings, path)
    path.write_text("eta_old: 5\n")
    with pytest.raises(InputError, match="eta_old"):
        load_dumped(Settings, path)
    with pytest.raises(InputError, match="no saved configuration"):
        load_dumped(Settings, tmp_path / "nowhere" / "config.yaml")


def test_difference_names_what_differs() -> None:
    made, asked = parse("q", "--eta", "4k"), parse("q", "--eta", "2k", "--judge-model", "m", "--carry", "tail")
    assert difference(made, made) == []
    assert difference(made, asked) == [
        "made with eta=4096, you asked eta=2048",
        "made with carry=summary, you asked carry=tail",
        "made with judge.model=null, you asked judge.model=m",
        "made with judge.bar=null, you asked judge.bar=7",
    ]


def test_settings_that_change_no_result_do_not_count() -> None:
    a, b = parse("q", "--workers", "1", "--output", "x"), parse("q", "--workers", "2", "--output", "y")
    assert digest(a) == digest(b)
    assert difference(a, b) == []
    assert digest(a) != digest(parse("q", "--eta", "1"))


def test_the_digest_is_the_same_in_another_process() -> None:
    code = (
        "from dataclasses import dataclass\nfrom inftythink.config import digest, option\n"
        "@dataclass(frozen=True)\nclass A:\n    a: int = option(1, '')\n"
        "    b: str = option('x', '')\nprint(digest(A()))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 12


@hypothesis_given(
    st.builds(
        Settings,
        question=st.text(st.characters(codec="utf-8"), min_size=1),
        eta=st.integers(1, 10**9),
        budget=st.none() | st.integers(0, 10**9),
        names=st.lists(st.text(st.characters(codec="utf-8"))).map(tuple),
        rename=st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
        colour=st.sampled_from(Colour),
        sampling=st.builds(Sampling, temperature=st.floats(0, 2), seed=st.none() | st.integers()),
        judge=st.none() | st.builds(Judge, model=st.text(st.characters(codec="utf-8"))),
    )
)
def test_any_configuration_survives_being_saved(tmp_path_factory: pytest.TempPathFactory, config: Settings) -> None:
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    dump(config, path)
    assert load_dumped(Settings, path) == config


def unread_settings(files: dict[str, str]) -> list[str]:
    """Fields declared with ``option`` that no code outside their class reads as an attribute."""
    declared: list[tuple[str, str]] = []
    readers: dict[str, set[str]] = {}

    def walk(node: ast.AST, home: str) -> None:
        if isinstance(node, ast.ClassDef):
            home = f"{home.split(':')[0]}:{node.name}"
            declared.extend((home, item.target.id) for item in node.body if is_option(item))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            readers.setdefault(node.attr, set()).add(home)
        for child in ast.iter_child_nodes(node):
            walk(child, home)

    for name, source in files.items():
        walk(ast.parse(source), name)
    return [f"{home}.{field}" for home, field in declared if not readers.get(field, set()) - {home}]


def is_option(node: ast.stmt) -> bool:
    match node:
        case ast.AnnAssign(target=ast.Name(), value=ast.Call(func=ast.Name("option") | ast.Attribute(attr="option"))):
            return True
    return False


def test_every_setting_is_read_somewhere() -> None:
    unread = unread_settings({str(path.relative_to(SRC)): path.read_text("utf-8") for path in SRC.rglob("*.py")})
    assert not unread, "settings that no code reads: " + ", ".join(unread)


def test_the_check_finds_a_setting_that_nothing_reads() -> None:
    source = (
        "class A:\n    used: int = option(1, '')\n    unread: int = option(1, '')\n"
        "    own: int = config.option(1, '')\n"
        "    def f(self):\n        return self.own\n"
        "def run(a):\n    a.unread = 2\n    return a.used"
    )
    assert unread_settings({"a.py": source}) == ["a.py:A.unread", "a.py:A.own"]
