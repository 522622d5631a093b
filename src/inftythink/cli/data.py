"""``inftythink data segment|summarise|form|build|stats``: long reasoning traces become training instances."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from inftythink.cli import Command
from inftythink.config import REQUIRED, Count, option
from inftythink.errors import UsageError

if TYPE_CHECKING:
    from inftythink.backends.base import Backend
    from inftythink.data.build import StageRun


@dataclass(frozen=True)
class _Output:
    output: Path = option(REQUIRED, "folder to write; the same command again goes on where it stopped", identity=False)


@dataclass(frozen=True)
class _Folders:
    input: Path = option(REQUIRED, "folder made by the stage before", identity=False)
    output: Path | None = option(None, "folder to write; the input folder when not given", identity=False)
    tokenizer: str | None = option(None, "tokenizer that tokens are counted in; the one of the segments when not given")


@dataclass(frozen=True)
class _Workers:
    workers: int = option(max(1, min(8, os.cpu_count() or 1)), "processes at work at once", identity=False)


@dataclass(frozen=True)
class _Segment:
    input: str = option(REQUIRED, "traces: a JSONL or Parquet file, a folder of them, or a Hugging Face data set")
    tokenizer: str = option(REQUIRED, "folder or hub name of the target model's tokenizer")
    eta: Count = option(4096, "most tokens in a segment")
    partition: Literal["greedy", "balanced", "reference"] = option(
        "greedy", "how thoughts are packed; reference is the published script's rule, which exceeds eta"
    )
    map: dict[str, str] = option(
        {}, "columns by hand, for example problem=question reasoning=cot", metavar="FIELD=COLUMN"
    )
    split: str = option("train", "split of a Hugging Face data set")
    subset: str | None = option(None, "configuration of a Hugging Face data set")
    limit: int | None = option(None, "read only so many traces a shard, for a trial")
    tasks: int = option(max(1, min(8, os.cpu_count() or 1)), "shards; each is one file of output and resumes by itself")


@dataclass(frozen=True)
class _Summarise:
    base_url: str | None = option(None, "OpenAI-compatible server of the summariser")
    model: str | None = option(None, "the summariser: its name on the server, or without one a folder or hub name")
    api_key_env: str | None = option(
        None, "variable that holds the server's key (default: INFTYTHINK_API_KEY, then OPENAI_API_KEY)", identity=False
    )
    strategy: Literal["incremental", "cumulative"] = option(
        "incremental", "what the summariser sees: question, last summary and segment; or question and all so far"
    )
    gamma: Count = option(1024, "most tokens in a summary")
    attempts: int = option(10, "tries for each summary")
    temperature: float = option(0.5, "of the summariser")
    top_p: float = option(0.95, "of the summariser")
    judge_model: str | None = option(None, "model that scores each summary 0-10; none when not given")
    judge_base_url: str | None = option(None, "server of the judge, when it is another one")
    judge_threshold: int = option(7, "least score that is accepted")
    seed: int = option(0, "of the summariser's samples and of the split")
    concurrency: int = option(64, "traces at the summariser at once", identity=False)


@dataclass(frozen=True)
class _Form:
    template: Literal["auto", "chat", "plain"] = option("auto", "chat template of the tokenizer, or none")
    instruction: str = option("", "text behind every question, as it will be at inference")
    validation: float = option(0.01, "share of questions kept for validation")
    jsonl: bool = option(False, "also write JSON lines beside the Parquet files")
    push_to_hub: str | None = option(None, "upload the instances as this (private) data set", identity=False)


@dataclass(frozen=True)
class SegmentConfig(_Segment, _Output, _Workers):
    """``data segment``."""


@dataclass(frozen=True)
class SummariseConfig(_Folders, _Summarise):
    """``data summarise``."""


@dataclass(frozen=True)
class FormConfig(_Folders, _Form, _Workers):
    """``data form``."""

    seed: int = option(0, "of the split")


@dataclass(frozen=True)
class BuildConfig(_Segment, _Summarise, _Form, _Output, _Workers):
    """``data build``."""


@dataclass(frozen=True)
class StatsConfig:
    """``data stats``."""

    folder: Path = option(REQUIRED, "folder of converted data", positional=True)
    json: bool = option(False, "print JSON instead of tables")


@dataclass(frozen=True)
class Connection:
    """Connects to the summariser, and to the judge if there is one, in the process that will use them."""

    base_url: str | None
    model: str | None
    judge_base_url: str | None
    judge_model: str | None
    api_key_env: str | None

    def __call__(self) -> tuple[Backend, Backend | None]:
        """Return the two backends, not started yet."""
        judge = self._one(self.judge_base_url or self.base_url, self.judge_model) if self.judge_model else None
        return self._one(self.base_url, self.model), judge

    def _one(self, base_url: str | None, model: str | None) -> Backend:
        from inftythink.backends.connect import ModelSettings, connect

        mode: Literal["auto", "chat"] = "auto" if base_url is None else "chat"
        chosen = ModelSettings(model=model, base_url=base_url, mode=mode, api_key_env=self.api_key_env)
        return connect(chosen, carry="two_call", command="inftythink data summarise --input DIR")


def segment(config: SegmentConfig) -> None:
    """Cut traces into segments of at most eta tokens."""
    _run([_segment_stage(config)])
    _finish(config.output, "segment", None, _settings(config, _SEGMENT_FACTS))


def summarise(config: SummariseConfig) -> None:
    """Have a model write the summary of each segment but the last."""
    config = _inherit(config)
    output = config.output or config.input
    _run([_summarise_stage(config, config.input, output)])
    _finish(output, "summarise", config.input, _settings(config, _SUMMARISE_FACTS))


def form(config: FormConfig) -> None:
    """Form training instances through the protocol."""
    config = _inherit(config)
    output = config.output or config.input
    _run([_form_stage(config, config.input, output)])
    _finish(output, "form", config.input, _settings(config, _FORM_FACTS))
    _publish(config.push_to_hub, output)


def build(config: BuildConfig) -> None:
    """Segment, summarise and form in one."""
    _check_summariser(config)
    folder = config.output
    first = _pick(config, SegmentConfig)
    _run([_segment_stage(first)])
    _manifest(folder, "segment", None, _settings(first, _SEGMENT_FACTS))
    second = _pick(config, SummariseConfig, input=folder)
    _run([_summarise_stage(second, folder, folder)])
    _manifest(folder, "summarise", None, _settings(second, _SUMMARISE_FACTS))
    third = _pick(config, FormConfig, input=folder)
    _run([_form_stage(third, folder, folder)])
    _finish(folder, "form", None, _settings(third, _FORM_FACTS))
    _publish(config.push_to_hub, folder)


def stats(config: StatsConfig) -> None:
    """Show what a folder holds."""
    import json

    from inftythink.cli._data_tables import show_statistics
    from inftythink.data.build import read_manifest
    from inftythink.data.stats import statistics

    manifest = read_manifest(config.folder)
    found = {"counts": manifest["counts"]} | statistics(config.folder) | _fidelity(config.folder)
    if config.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show_statistics(config.folder, manifest, found)


def _fidelity(folder: Path) -> dict[str, Any]:
    """Return how faithful the summaries of a folder are, as ``fidelity``; nothing where there are none."""
    from inftythink.data.table import read_rows, shards
    from inftythink.evals.fidelity import measure, of_row

    rows = (row for path in shards(folder / "summaries") for row in read_rows(path, "summaries"))
    figures = measure(map(of_row, rows)).to_json()
    return {"fidelity": figures} if figures["summaries"] else {}


_SEGMENT_FACTS = ("eta", "tokenizer", "partition", "input")
_SUMMARISE_FACTS = ("gamma", "strategy", "model", "base_url", "judge_model", "attempts")
_FORM_FACTS = ("template", "instruction", "validation", "seed")


def _segment_stage(config: SegmentConfig) -> StageRun:
    from inftythink.data.build import StageRun
    from inftythink.data.steps import ReadTraces, SegmentTraces

    limit = -1 if config.limit is None else config.limit
    steps = [
        ReadTraces(
            config.input, config.output, mapping=config.map, limit=limit, split=config.split, config=config.subset
        ),
        SegmentTraces(config.output, config.tokenizer, config.eta, config.partition),
    ]
    return StageRun(("read", "segment"), config.output, config, steps, config.tasks, config.workers)


def _summarise_stage(config: SummariseConfig, source: Path, output: Path) -> StageRun:
    from inftythink.data.build import StageRun, read_manifest
    from inftythink.data.steps import ReadShard, SummariseSegments
    from inftythink.data.summarise import Settings

    _check_summariser(config)
    tokenizer = config.tokenizer or read_manifest(source)["tokenizer"]
    tasks = _shards(source / "segments", "data segment")
    connect = Connection(config.base_url, config.model, config.judge_base_url, config.judge_model, config.api_key_env)
    settings = Settings(
        strategy=config.strategy,
        gamma=config.gamma,
        attempts=config.attempts,
        temperature=config.temperature,
        top_p=config.top_p,
        threshold=config.judge_threshold,
        seed=config.seed,
    )
    step = SummariseSegments(output, tokenizer, connect, settings, config.concurrency)
    # One process: a local model is loaded once, and requests to a server need no more.
    return StageRun(("summarise",), output, config, [ReadShard(source, "segments"), step], tasks, workers=1)


def _form_stage(config: FormConfig, source: Path, output: Path) -> StageRun:
    from inftythink.data.build import StageRun, read_manifest
    from inftythink.data.steps import FormInstances, ReadShard

    manifest = read_manifest(source)
    tasks = _shards(source / "summaries", "data summarise")
    step = FormInstances(
        output,
        config.tokenizer or manifest["tokenizer"],
        eta=manifest["eta"],
        gamma=manifest["gamma"],
        template=config.template,
        validation=config.validation,
        seed=config.seed,
        instruction=config.instruction,
        jsonl=config.jsonl,
    )
    return StageRun(("form",), output, config, [ReadShard(source, "summaries"), step], tasks, config.workers)


def _check_summariser(config: Any) -> None:
    if not config.base_url and not config.model:
        raise UsageError(
            "who is to write the summaries? Give --base-url URL [--model NAME] for an OpenAI-compatible server, or "
            "--model FOLDER_OR_HUB_NAME for a model in this process."
        )


def _shards(folder: Path, maker: str) -> int:
    from inftythink.data.table import shards

    found = len(shards(folder))
    if not found:
        raise UsageError(f"{folder}: no Parquet files here; make them with 'inftythink {maker}'")
    return found


def _pick(config: BuildConfig, kind: Callable[..., Any], **more: Any) -> Any:
    """Return the part of a build's settings that one stage knows."""
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = {name: getattr(config, name) for name in fields if hasattr(config, name)}
    return kind(**known | more)


def _inherit(config: Any) -> Any:
    """Fill in the tokenizer of the earlier stage, so that it is part of what must not change."""
    from inftythink.data.build import read_manifest

    if config.tokenizer is not None:
        return config
    return dataclasses.replace(config, tokenizer=read_manifest(config.input)["tokenizer"])


def _settings(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _run(stages: list[StageRun]) -> None:
    from inftythink.cli._data_tables import progress

    for stage in stages:
        with progress(stage.stages) as tell:
            stage.run(tell)


def _manifest(folder: Path, last: str, source: Path | None, facts: dict[str, Any]) -> dict[str, Any]:
    from inftythink.data.build import write_manifest

    manifest = write_manifest(folder, last, source, **facts)
    if "form" in manifest["stages"]:
        from inftythink.data.card import card

        (folder / "instances" / "README.md").write_text(card(manifest), encoding="utf-8")
    return manifest


def _finish(folder: Path, last: str, source: Path | None, facts: dict[str, Any]) -> None:
    from inftythink.cli._data_tables import show_counts

    show_counts(folder, _manifest(folder, last, source, facts))


def _publish(name: str | None, folder: Path) -> None:
    if name is not None:
        from inftythink.data.card import push

        print(f"uploaded to {push(folder, name)}")


COMMANDS: dict[str, Command[Any]] = {
    "segment": Command(
        SegmentConfig,
        segment,
        "cut reasoning traces into segments of at most eta tokens",
        "inftythink data segment --input traces.jsonl --tokenizer Qwen/Qwen2.5-Math-7B --eta 4k --output data/math",
    ),
    "summarise": Command(
        SummariseConfig,
        summarise,
        "have a model write the summary of each segment but the last",
        "inftythink data summarise --input data/math --base-url http://localhost:8000/v1 --gamma 1k --attempts 10",
    ),
    "form": Command(
        FormConfig,
        form,
        "form training instances, split by question",
        "inftythink data form --input data/math --validation 0.02",
    ),
    "build": Command(
        BuildConfig,
        build,
        "segment, summarise and form in one; resumable",
        "inftythink data build --input traces.jsonl --tokenizer Qwen/Qwen2.5-Math-7B --eta 4k --gamma 1k "
        "--base-url http://localhost:8000/v1 --output data/math",
    ),
    "stats": Command(
        StatsConfig, stats, "show what a folder of converted data holds", "inftythink data stats data/math"
    ),
}
