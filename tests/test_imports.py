"""Who may import whom. The table is the architecture: a package knows only what stands above it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

FREE = {"errors"}
"""Everyone may raise this package's errors."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "protocol": set(),
    "_values": set(),
    "_process": set(),
    "config": {"_values"},
    "render": {"protocol"},
    "backends": {"protocol", "render", "config"},
    "reasoner": {"protocol", "backends"},
    "store": {"protocol", "config"},
    "data": {"_process", "protocol", "config", "render", "backends", "reasoner", "store"},
    "grade": {"_process"},
    "tasks": {"grade", "protocol", "config"},
    "train": {"protocol", "config", "render", "backends", "reasoner", "store", "data", "grade", "tasks", "evals"}
    | {"_process"},
    "evals": {"protocol", "config", "reasoner", "tasks", "grade", "store"},
    "serve": {"protocol", "reasoner", "backends"},
    "clients": set(),
    "report": {"protocol", "store", "evals", "train"},
    "adapters": {"protocol", "config", "render", "backends", "reasoner", "grade", "tasks", "train"},
}
MAY_IMPORT["lab"] = set(MAY_IMPORT)
MAY_IMPORT["cli"] = set(MAY_IMPORT)
MAY_IMPORT["__main__"] = {"cli"}

HEAVY = {"torch", "transformers", "trl", "vllm", "datasets", "datatrove", "matplotlib", "pyarrow", "numpy", "pandas"}
HEAVY |= {"aiohttp", "rich", "yaml"}


def modules(src: Path) -> dict[str, str]:
    """Dotted module name -> source, for every file of the package."""
    names = {path: path.relative_to(src).with_suffix("").parts for path in sorted((src / "inftythink").rglob("*.py"))}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path.read_text("utf-8")
        for path, parts in names.items()
    }


def imported(source: str) -> set[str]:
    """The modules a source imports, anywhere in it; ``from inftythink import x`` counts as ``inftythink.x``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides what is imported"
            assert node.module is not None
            root = node.module == "inftythink"
            found |= {f"inftythink.{alias.name}" for alias in node.names} if root else {node.module}
    return found


def violations(files: dict[str, str]) -> list[str]:
    """Imports that the table does not allow, each with its module."""
    found = []
    for module, source in files.items():
        if module == "inftythink":  # the root names things of all packages, and loads each on first use
            continue
        package = module.split(".")[1]
        if package not in MAY_IMPORT:
            found.append(f"{module}: {package} is not in the table")
            continue
        allowed = MAY_IMPORT[package] | FREE | {package, "__version__"}
        for name in sorted(imported(source)):
            top, _, rest = name.partition(".")
            if top == "inftythink" and rest.split(".")[0] not in allowed:
                found.append(f"{module} imports {name}")
            if package == "protocol" and top != "inftythink" and top not in sys.stdlib_module_names:
                found.append(f"{module} imports {name}, which is not the standard library")
    return found


def test_imports_only_point_up_the_table() -> None:
    assert violations(modules(SRC)) == []


def test_the_table_has_no_way_round() -> None:
    def above(package: str, seen: tuple[str, ...] = ()) -> None:
        assert package not in seen, f"{package} is above itself: {seen}"
        for other in MAY_IMPORT[package] - {package, "cli"}:
            above(other, (*seen, package))

    for package in MAY_IMPORT:
        above(package)


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("inftythink.protocol.types", "import json\nfrom inftythink.errors import ProtocolError", []),
        ("inftythink.protocol.types", "def f():\n    import yaml", ["yaml, which is not the standard library"]),
        ("inftythink.protocol.types", "from inftythink import render", ["imports inftythink.render"]),
        ("inftythink.render", "from inftythink.backends.base import Request", ["imports inftythink.backends.base"]),
        ("inftythink.backends.base", "if True:\n    import inftythink.cli.main", ["imports inftythink.cli.main"]),
        ("inftythink.cli.solve", "from inftythink.reasoner import Reasoner", []),
        ("inftythink.utils", "", ["utils is not in the table"]),
    ],
)
def test_the_check_finds_a_wrong_import(module: str, source: str, found: list[str]) -> None:
    result = violations({module: source})
    assert len(result) == len(found)
    assert all(text in line for text, line in zip(found, result, strict=True))


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after ``code``."""
    code += "\nimport sys, json\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("code", ["import inftythink", "import inftythink.cli.main", "import inftythink.protocol"])
def test_import_is_light(code: str) -> None:
    assert loaded_by(code).isdisjoint(HEAVY)


def test_the_public_names_are_there() -> None:
    import inftythink

    for name in inftythink.__all__:
        assert getattr(inftythink, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        inftythink.nothing  # noqa: B018 - reading it is the test


def test_every_module_imports_cleanly() -> None:
    left_out = {"inftythink.__main__", "inftythink.clients.langchain"}
    left_out |= {"inftythink.adapters.verl", "inftythink.adapters.verifiers"}  # need engines of their own
    left_out |= {"inftythink.train.trainer"} if sys.version_info < (3, 11) else set()  # TRL
    names = [name for name in modules(SRC) if name not in left_out]
    code = f"import importlib\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_whose_extra_is_not_installed_says_which() -> None:
    code = "import sys; sys.modules['langchain_openai'] = None; import inftythink.clients.langchain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'inftythink[langchain]'" in done.stderr
