"""Rows from files, folders and the Hub: every layout gives the same rows, and every error names its place."""

import csv
import json
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inftythink.errors import InputError, MissingDependencyError, UsageError
from inftythink.tasks.read import Hub, read_rows

ROWS = [{"id": f"p{n}", "problem": f"What is\n{n} + 1?", "answer": str(n + 1)} for n in range(3)]


def save(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.name.endswith("array.json"):
        path.write_text("\ufeff" + json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("a.jsonl", [":1", ":3", ":5"]),
        ("lines.json", [":1", ":3", ":5"]),
        ("array.json", [": item 1", ": item 2", ": item 3"]),
        ("a.csv", [":2", ":4", ":6"]),  # each record has two lines
        ("a.parquet", [":1", ":2", ":3"]),
    ],
)
def test_every_kind_of_file_gives_the_same_rows_with_their_places(tmp_path, name, places):
    path = save(tmp_path / name, ROWS)
    found = list(read_rows(str(path), None, None))
    assert [row.data for row in found] == ROWS
    assert [row.place for row in found] == [f"{path}{place}" for place in places]
    assert [row.number for row in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', ":2: no JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', ":2: a JSON list where an object belongs"),
        ("a.jsonl", b'{"a": "\xff"}\n', ":1: no JSON"),
        ("a.json", b'[{"a": 1},', ": no JSON"),
        ("a.csv", b"a,b\n1,2\n3\n", ":3: not 2 fields"),
        ("a.csv", b'a,b\n1,2\n3,"4', ":3: no CSV"),
        ("a.csv", b"a,b\n1,\xff\n", ":1: no CSV"),
        ("a.parquet", b"PAR", ": not a readable Parquet file"),
        ("a.txt", b"What?", ": unknown kind of file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(read_rows(str(path), None, None))
    assert str(error.value).startswith(f"{path}{said}")


def test_a_folder_is_read_in_order_and_by_the_split_and_configuration_where_it_names_them(tmp_path):
    for name, number in [
        ("main/train-00000-of-00001.parquet", 0),
        ("main/test-00000-of-00001.parquet", 1),
        ("socratic/test-00000-of-00001.parquet", 2),
    ]:
        save(tmp_path / name, [ROWS[number]])
    save(tmp_path / ".cache/test.jsonl", ROWS)
    (tmp_path / "README.md").write_text("no data")
    ids = lambda *arguments: [row.data["id"] for row in read_rows(str(tmp_path), *arguments)]  # noqa: E731
    assert ids(None, Hub("a/b", "test", "main")) == ["p1"]
    assert ids("train", Hub("a/b", "test", "main")) == ["p0"]
    assert ids(None, Hub("a/b", "test")) == ["p1", "p2"]
    assert ids(None, None) == ["p1", "p0", "p2"]
    assert ids(None, Hub("a/b", "validation")) == ["p1", "p0", "p2"]  # no file is named so: all are read


def test_a_configuration_may_be_the_name_of_a_file(tmp_path):
    for name, number in [("gpqa_main.csv", 0), ("gpqa_diamond.csv", 1)]:
        save(tmp_path / name, [ROWS[number]])
    found = read_rows(str(tmp_path), None, Hub("a/b", "train", "gpqa_diamond"))
    assert [row.data["id"] for row in found] == ["p1"]


def test_nothing_to_read_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(UsageError, match="--data"):
        read_rows(None, None, None)
    with pytest.raises(InputError, match="no such file"):
        read_rows(str(tmp_path / "none.jsonl"), None, None)
    with pytest.raises(InputError, match="no file that ends in"):
        read_rows(str(tmp_path), None, None)


class Hubs:
    """Stands for the package ``datasets``, and tells what was asked of it."""

    def __init__(self, monkeypatch, answer):
        self.asked = []

        def load_dataset(name, config=None, *, split):
            self.asked.append((name, config, split))
            return answer() if callable(answer) else answer

        module = types.ModuleType("datasets")
        module.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", module)


def test_the_hub_is_asked_for_name_configuration_and_split(monkeypatch):
    hub = Hubs(monkeypatch, ROWS)
    found = list(read_rows(None, None, Hub("owner/name", "test", "main")))
    assert [row.place for row in found] == ["owner/name:1", "owner/name:2", "owner/name:3"]
    assert [row.data for row in found] == ROWS
    list(read_rows(None, "train", Hub("owner/name", "test", "main")))
    list(read_rows("another/one", None, Hub("owner/name", "train", "main")))
    list(read_rows("another/one", "dev", None))
    assert hub.asked == [
        ("owner/name", "main", "test"),
        ("owner/name", "main", "train"),
        ("another/one", None, "test"),
        ("another/one", None, "dev"),
    ]


def test_a_data_set_that_cannot_be_loaded_says_how_to_get_it(monkeypatch):
    def refuse():
        raise RuntimeError("gated.\nlong text")

    Hubs(monkeypatch, refuse)
    with pytest.raises(InputError, match=r"owner/name.*RuntimeError: gated\. .*hf auth login.*--data"):
        list(read_rows(None, None, Hub("owner/name")))


def test_a_folder_as_datasets_itself_loads_it(tmp_path, monkeypatch):
    """The real ``load_dataset``, on a local folder in place of a name on the Hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    save(tmp_path / "set/test.jsonl", ROWS)
    found = list(read_rows(None, None, Hub(str(tmp_path / "set"))))
    assert [row.data for row in found] == ROWS


@pytest.mark.parametrize(("module", "data"), [("datasets", None), ("pyarrow", "a.parquet")])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, module, data):
    path = save(tmp_path / data, ROWS) if data else None
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{module} is not installed.*inftythink\[eval\]"):
        list(read_rows(path and str(path), None, Hub("owner/name")))
