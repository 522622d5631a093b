"""Uploading to the Hub, with the Hub's own client against a local server that speaks its interface."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inftythink.data.card import push
from inftythink.errors import InputError

NAME = "someone/math-rounds"


class Hub(ThreadingHTTPServer):
    """Keeps the files of one repository; ``refuses`` answers everything with 401."""

    def __init__(self, refuses: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses, self.files, self.created = refuses, dict[str, bytes](), dict[str, Any]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        length, chunked = self.headers.get("Content-Length"), self.headers.get("Transfer-Encoding") == "chunked"
        body = self._chunks() if chunked else self.rfile.read(int(length or 0))
        if self.server.refuses:
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": f"{self.server.url}/datasets/{NAME}", "name": NAME})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {"commitUrl": f"{self.server.url}/datasets/{NAME}/commit/1", "commitOid": "1", "hookOutput": ""}
            )
        else:
            self._answer({"error": f"unknown: {self.path}"}, 404)

    def do_GET(self) -> None:
        if self.server.refuses:
            self._answer({"error": "Invalid username or password."}, 401)
        else:
            self._answer({"id": NAME, "siblings": []})

    def _chunks(self) -> bytes:
        parts = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts += self.rfile.read(size)
            self.rfile.readline()
        return parts

    def _answer(self, data: dict[str, Any], status: int = 200) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture(params=[False, True], ids=["takes", "refuses"])
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    server = Hub(request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "instances" / "train").mkdir(parents=True)
    (tmp_path / "instances" / "README.md").write_text("# data\n")
    (tmp_path / "instances" / "train" / "00000.parquet").write_bytes(b"PAR1 rows PAR1")
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "rejects.jsonl").write_text('{"id": "1"}\n')
    return tmp_path


def test_the_hub_gets_instances_and_books_or_the_error_says_that_the_data_is_safe(hub: Hub, folder: Path) -> None:
    # The client reads its address once, when it is imported: so in a process of its own.
    code = (
        f"from pathlib import Path; from inftythink.data.card import push; print(push(Path({str(folder)!r}), {NAME!r}))"
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(folder / "home"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if hub.refuses:
        assert done.returncode != 0
        assert f"the Hugging Face Hub did not take '{NAME}'" in done.stderr
        assert f"the data is safe in {folder}" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(NAME)
    assert hub.created["type"] == "dataset"
    # Older clients say private=true, newer ones visibility=private.
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private", hub.created
    assert set(hub.files) == {"README.md", "train/00000.parquet", "manifest.json", "rejects.jsonl"}
    assert hub.files["train/00000.parquet"] == b"PAR1 rows PAR1"


def test_there_must_be_something_to_upload(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no instances to upload"):
        push(tmp_path, NAME)
