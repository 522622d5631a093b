"""The data card of a folder of instances, and its way to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from inftythink.errors import BackendError, InputError, missing

_TEXT = """
# InftyThink training instances

Long reasoning traces, cut into rounds of at most {eta} tokens and joined by summaries of at most {gamma} tokens
(InftyThink, arXiv 2503.06692), made with [inftythink](https://pypi.org/project/inftythink/) {version}.

| | |
|---|---|
| traces read | {read} |
| traces converted | {out} |
| rejected, with reasons in `rejects.jsonl` | {rejected} |
| instances, train / validation | {train} / {validation} |
| tokenizer | `{tokenizer}` |
| partition, summaries | {partition}, {strategy} |
| calls to the summariser, tokens in / out | {calls} / {prompt_tokens} / {completion_tokens} |

The split is by question: all traces and rounds of a question are on one side.

## Columns

- `prompt`, `completion`: the text of round `round` of `rounds`, special tokens spelt out. The loss belongs on the
  completion alone.
- `messages`: the same as a conversation, for trainers that read nothing else. The last message begins with the history;
  a loss on all of it also trains on what the model is given.
- `prompt_tokens`, `completion_tokens`: lengths in tokens of the tokenizer above, the end-of-sequence token included.
- `problem`, `history`, `thought`, `summary`, `conclusion`, `answer`: the parts of the round.
- `id`, `source`: where the trace came from. `eta`, `gamma`: the limits.
"""


def card(manifest: dict[str, Any]) -> str:
    """Return the README.md of a data set, with the header that the Hub and ``datasets`` read."""
    header = {
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": s, "path": f"{s}/*.parquet"} for s in ("train", "validation")],
            }
        ],
        "tags": ["inftythink", "reasoning"],
        "task_categories": ["text-generation"],
    }
    stages, usage = manifest["stages"], manifest.get("usage", {})
    text = _TEXT.format(
        eta=manifest.get("eta"),
        gamma=manifest.get("gamma"),
        version=manifest["versions"]["inftythink"],
        read=manifest["counts"]["in"],
        out=manifest["counts"]["out"],
        rejected=manifest["counts"]["rejected"],
        train=stages["form"]["train"],
        validation=stages["form"]["validation"],
        tokenizer=manifest.get("tokenizer"),
        partition=manifest.get("partition"),
        strategy=manifest.get("strategy"),
        calls=usage.get("calls", 0),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{text}"


def push(folder: Path, name: str, private: bool = True) -> str:
    """Upload ``folder/instances`` and the books to the Hub as data set ``name``; return its address.

    Raises ``InputError`` when there is nothing to upload, ``BackendError`` when the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing("huggingface_hub", "data") from error
    instances = folder / "instances"
    if not (instances / "README.md").is_file():
        raise InputError(f"{folder}: no instances to upload; run 'inftythink data form' first")
    api = HfApi()
    try:
        url = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=instances)
        for book in ("manifest.json", "rejects.jsonl"):
            api.upload_file(repo_id=name, repo_type="dataset", path_or_fileobj=folder / book, path_in_repo=book)
    except Exception as error:
        raise BackendError(
            f"the Hugging Face Hub did not take {name!r}: {error}. Log in with 'hf auth login'; "
            f"the data is safe in {folder}."
        ) from error
    return str(url)
