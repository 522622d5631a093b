"""``inftythink serve`` as it is started: its settings, the model that ships, and how it stops."""

import re
import signal
import socket
import subprocess
import sys
import threading

import httpx
import openai
import pytest

from inftythink.cli.main import main, run_command
from inftythink.cli.serve import COMMAND
from inftythink.errors import UsageError
from tests.serve.places import FakeServer, reply, wait_until
from tests.serve.raw import STREAM, RawServer, event
from tests.servers import in_thread

START = "import sys; from inftythink.cli.main import run_command; from inftythink.cli.serve import COMMAND; "
START += "sys.exit(run_command('inftythink serve', COMMAND, sys.argv[1:]))"


class Process:
    """The command in a process of its own; its address is read from what it prints."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", START, "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving at (http://\S+)", line):
                self.url = found[1]
                break
        # What else is printed is read too, so that the process never waits for a full pipe.
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True).start()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def test_the_model_that_ships_solves_its_puzzles_and_says_what_it_cannot_do():
    with Process() as served:
        client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=200.0)
        ask = [{"role": "user", "content": "How many Collatz steps from 7?"}]
        answer = client.chat.completions.create(model="inftythink", messages=ask)
        assert "16" in answer.choices[0].message.content
        assert answer.inftythink["rounds"] > 1
        with pytest.raises(openai.BadRequestError, match="three kinds of puzzles"):
            client.chat.completions.create(model="inftythink", messages=[{"role": "user", "content": "Hi"}])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(100) == 0


def test_workers_share_an_address():
    fake = FakeServer("vllm")
    fake.reply = reply
    with in_thread(fake), Process("--upstream", fake.url, "--workers", "2", "--eta", "64", "--grace", "1") as served:
        body = {"messages": [{"role": "user", "content": "What is 6 * 7?"}]}
        for _ in range(3):
            answer = httpx.post(served.url + "/chat/completions", json=body, timeout=200.0).json()
            assert answer["choices"][0]["message"]["content"] == "The answer is 42."
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(100) == 0


def test_a_connection_that_nobody_reads_is_broken():
    with (
        in_thread(RawServer([STREAM, *[event("x" * 8192)] * 8000])) as raw,
        Process("--upstream", raw.url, "--stall-timeout", "1") as served,
        socket.socket() as sock,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", int(served.url.split(":")[2].split("/")[0])))
        body = b'{"messages": [{"role": "user", "content": "What is 6 * 7?"}], "stream": true}'
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)
        wait_until(lambda: raw.open == 1, 100)
        wait_until(lambda: raw.open == 0, 100)
        metrics = httpx.get(served.url.removesuffix("/v1") + "/metrics", timeout=200.0).text
        assert "inftythink_in_flight 0.0" in metrics
        if sys.platform == "linux":  # elsewhere the socket stays until its client closes it
            wait_until(lambda: broken(sock), 100)


def broken(sock: socket.socket) -> bool:
    """Whether the other side knows nothing of the connection any more."""
    try:
        sock.send(b" ")
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--no-auth"),
        (["--key-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (["--workers", "2"], "--workers"),
        (["--upstream", "http://localhost:1", "--base-url", "http://localhost:1"], "--upstream"),
        (["--keep-alive", "0"], "--keep-alive"),
        (["--stall-timeout", "0"], "--stall-timeout"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(arguments, said):
    with pytest.raises(UsageError, match=said):
        run_command("inftythink serve", COMMAND, arguments)


def test_a_port_that_is_taken_and_a_key_file_without_keys(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            run_command("inftythink serve", COMMAND, ["--port", str(taken.getsockname()[1])])
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(UsageError, match="no key"):
        run_command("inftythink serve", COMMAND, ["--host", "0.0.0.0", "--key-file", str(tmp_path / "keys")])
    assert main(["--help"]) == 0
