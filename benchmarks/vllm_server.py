"""What the benchmarks on a real vLLM server share: a random model, the server, its metrics, rounds of fixed length.

    python benchmarks/vllm_server.py FOLDER       # makes the model there, serves it, and prints the address

vLLM has an environment of its own (``make .venv-vllm/.ready``). The model is a Llama with random weights, made here,
with the tokenizer of the model that ships: what it writes means nothing, and costs what any of its shape costs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from inftythink.backends import Capabilities, Delta, Request
from inftythink.backends.openai import OpenAI
from inftythink.protocol import Completion, Stop

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-vllm/bin/python"
SHIPPED = ROOT / "src/inftythink/shipped/inftythink"
EXACT = {"ignore_eos": True}
"""Put into every request: a call generates all of its ``max_tokens``."""


POSITIONS = 34 * 1024
HIDDEN, LAYERS = 256, 2
SEQUENCES = 16


def make_model(folder: Path, positions: int = POSITIONS, hidden: int = HIDDEN, layers: int = LAYERS) -> Path:
    """Write a Llama with random weights, heads of 64, as many for keys as for queries; bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    read = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    config = LlamaConfig(
        vocab_size=read["vocab_size"],
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        eos_token_id=read["eos_token_id"],
        pad_token_id=read["pad_token_id"],
        bos_token_id=read["bos_token_id"],
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SHIPPED / name, folder)
    return folder


@contextmanager
def serving(model: Path, python: Path = PYTHON, sequences: int = SEQUENCES, cache_gib: int = 1) -> Iterator[str]:
    """Serve ``model`` to at most ``sequences`` requests at once; give the base URL, and stop the server at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16"]
    command += ["--max-num-seqs", str(sequences), "--enforce-eager", "--enable-prompt-tokens-details"]
    environment = {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib), "VLLM_LOGGING_LEVEL": "WARNING"}
    log = model / "server.log"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the server would live on
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**environment, **os.environ})
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 1800
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the server ended: {log.read_text()[-4000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise SystemExit(f"no answer within half an hour: {log.read_text()[-4000:]}")


@contextmanager
def served(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Give URL and model of the server that ``add_options`` named, or of one that is started for the time."""
    if args.url:
        yield args.url, args.model
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        with serving(model, args.python) as url:
            yield url, model


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what says where the server is."""
    parser.add_argument("--python", type=Path, default=PYTHON, help="the interpreter that has vLLM")
    parser.add_argument("--url", help="a server that runs already (this script's), with --model, its folder")
    parser.add_argument("--model", type=Path, help="the model's folder")


def metrics(base_url: str) -> Counter[str]:
    """Return the server's metrics, summed over their labels."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/metrics") as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for name, value in re.findall(r"^vllm:(\w+)(?:\{[^}]*\})? ([0-9.e+-]+)$", text, re.MULTILINE):
        found[name] += float(value)
    return found


def processor(base_url: str) -> float:
    """Return the processor's seconds that the server has taken, all its processes together."""
    port = base_url.rsplit(":", 1)[1].removesuffix("/v1")
    server = next(process for process in psutil.process_iter(["cmdline"]) if port in (process.info["cmdline"] or []))
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@dataclass
class Paced:
    """A real engine's work and a script's words.

    Call number i of the question "NAME …" generates exactly ``lengths[NAME][i]`` tokens. What the reasoner gets to read
    is a thought, and ``summary`` or, in the last call, a conclusion. ``sent`` has every request as the engine got it.
    """

    engine: OpenAI
    lengths: Mapping[str, Sequence[int]]
    summary: str
    sent: list[Request] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    name = "paced"
    capabilities = Capabilities(prefill=True, token_ids=False, logprobs=False)

    async def start(self) -> None:
        """Start the engine's client."""
        await self.engine.start()

    async def aclose(self) -> None:
        """Close the engine's client."""
        await self.engine.aclose()

    async def complete(self, request: Request) -> Completion:
        """Generate the scripted number of tokens."""
        name = request.prompt.turns[-1].text.split()[0]
        lengths, call = self.lengths[name], self.calls[name]
        self.calls[name] += 1
        exact = replace(request, max_tokens=lengths[call], stop=())
        self.sent.append(exact)
        done = await self.engine.complete(exact)
        if done.completion_tokens != lengths[call]:
            raise SystemExit(f"{name}: {done.completion_tokens} tokens came where {lengths[call]} were asked for")
        last = call == len(lengths) - 1
        summary = f"<summary>\n{name} {call}: {self.summary}\n</summary>"
        text = "thought\n</think>\n\n" + ("done" if last else summary)
        return replace(done, text=text, stop=Stop.STOP, token_ids=None, logprobs=None)

    async def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Generate, and hand out the completion alone."""
        yield await self.complete(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", type=Path, default=PYTHON, help="the interpreter that has vLLM")
    args = parser.parse_args()
    with serving(make_model(args.folder), args.python) as url:
        print(url, flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
