"""``inftythink data segment|summarise|form|build|stats``: long reasoning traces become training instances."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inftythink.cli import Command
from inftythink.cli._data_places import Step, Where, carry_out
from inftythink.config import REQUIRED, Count, option
from inftythink.errors import UsageError


@dataclass(frozen=True)
class _Output:
    output: Path = option(REQUIRED, "folder to write; the same command again goes on where it stopped", identity=False)


@dataclass(frozen=True)
class _Folders:
    input: Path = option(REQUIRED, "folder made by the stage before", identity=False)
    output: Path | None = option(None, "folder to write; the input folder when not given", identity=False)
    tokenizer: str | None = option(None, "tokenizer that tokens are counted in; the one of the segments when not given")
    tasks: int | None = option(None, "shards; as many as the stage before has files when not given, and never more")


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
    base_url: tuple[str, ...] = option(
        (),
        "OpenAI-compatible server of the summariser; give it once for each of several",
        repeat=True,
        metavar="URL",
        identity=False,
    )
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
    judge_base_url: tuple[str, ...] = option(
        (), "server of the judge, when it is another one", repeat=True, metavar="URL", identity=False
    )
    judge_threshold: int = option(7, "least score that is accepted")
    seed: int = option(0, "of the summariser's samples and of the split")
    concurrency: int = option(64, "traces at the summariser at once, over all workers", identity=False)
    requests_per_minute: float | None = option(None, "most requests a minute, over all workers", identity=False)
    tokens_per_minute: float | None = option(
        None, "most tokens a minute, of prompts and answers, over all workers", identity=False
    )
    timeout: float = option(600.0, "longest silence of a server in seconds", identity=False)


@dataclass(frozen=True)
class _Form:
    template: Literal["auto", "chat", "plain"] = option("auto", "chat template of the tokenizer, or none")
    instruction: str = option("", "text behind every question, as it will be at inference")
    validation: float = option(0.01, "share of questions kept for validation")
    jsonl: bool = option(False, "also write JSON lines beside the Parquet files")
    push_to_hub: str | None = option(None, "upload the instances as this (private) data set", identity=False)


@dataclass(frozen=True)
class SegmentConfig(_Segment, _Output, Where):
    """``data segment``."""


@dataclass(frozen=True)
class SummariseConfig(_Folders, _Summarise, Where):
    """``data summarise``."""


@dataclass(frozen=True)
class FormConfig(_Folders, _Form, Where):
    """``data form``."""

    seed: int = option(0, "of the split")


@dataclass(frozen=True)
class BuildConfig(_Segment, _Summarise, _Form, _Output, Where):
    """``data build``."""


@dataclass(frozen=True)
class StatsConfig:
    """``data stats``."""

    folder: Path = option(REQUIRED, "folder of converted data", positional=True)
    json: bool = option(False, "print JSON instead of tables")


def segment(config: SegmentConfig) -> None:
    """Cut traces into segments of at most eta tokens."""
    _carry_out("segment", config, [_segment_step(config)])


def summarise(config: SummariseConfig) -> None:
    """Have a model write the summary of each segment but the last."""
    from inftythink.data.build import read_manifest

    manifest = read_manifest(config.input)
    config = _inherit(config, manifest)
    files = _files(config.input / "segments", "data segment")
    _carry_out("summarise", config, [_summarise_step(config, config.input, files)])


def form(config: FormConfig) -> None:
    """Form training instances through the protocol."""
    from inftythink.data.build import read_manifest

    manifest = read_manifest(config.input)
    config = _inherit(config, manifest)
    files = _files(config.input / "summaries", "data summarise")
    step = _form_step(config, config.input, files, manifest["eta"], manifest["gamma"])
    if _carry_out("form", config, [step]):
        _publish(config.push_to_hub, step.run.folder)


def build(config: BuildConfig) -> None:
    """Segment, summarise and form in one."""
    folder, files = config.output, config.tasks
    first = _segment_step(_pick(config, SegmentConfig))
    second = _summarise_step(_pick(config, SummariseConfig, input=folder), folder, files)
    third = _form_step(_pick(config, FormConfig, input=folder), folder, files, config.eta, config.gamma)
    if _carry_out("build", config, [first, second, third]):
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


def _segment_step(config: SegmentConfig) -> Step:
    from inftythink.data.build import StageRun
    from inftythink.data.steps import ReadTraces, SegmentTraces

    if config.tasks < 1:
        raise UsageError(f"--tasks {config.tasks}: at least 1 is needed")
    limit = -1 if config.limit is None else config.limit
    steps = [
        ReadTraces(
            config.input, config.output, mapping=config.map, limit=limit, split=config.split, config=config.subset
        ),
        SegmentTraces(config.output, config.tokenizer, config.eta, config.partition),
    ]
    run = StageRun(("read", "segment"), config.output, config, steps, config.tasks, config.workers)
    return Step(run, _settings(config, _SEGMENT_FACTS))


def _summarise_step(config: SummariseConfig, source: Path, files: int) -> Step:
    from inftythink.data.build import StageRun
    from inftythink.data.servers import Connection
    from inftythink.data.steps import ReadShard, SummariseSegments
    from inftythink.data.summarise import Settings

    _check_summariser(config)
    assert config.tokenizer is not None
    tasks = _tasks(config.tasks, files)
    # On this machine one process: a local model is loaded once, and requests to servers need no more.
    workers = 1 if config.executor == "local" else min(config.workers, tasks)
    limits = [limit and limit / workers for limit in (config.requests_per_minute, config.tokens_per_minute)]
    connect = Connection(
        config.base_url,
        config.model,
        config.judge_base_url,
        config.judge_model,
        config.api_key_env,
        requests=limits[0],
        tokens=limits[1],
        timeout=config.timeout,
    )
    settings = Settings(
        strategy=config.strategy,
        gamma=config.gamma,
        attempts=config.attempts,
        temperature=config.temperature,
        top_p=config.top_p,
        threshold=config.judge_threshold,
        seed=config.seed,
    )
    output, concurrency = config.output or config.input, max(1, config.concurrency // workers)
    step = SummariseSegments(output, config.tokenizer, connect, settings, concurrency)
    run = StageRun(("summarise",), output, config, [ReadShard(source, "segments", files), step], tasks, workers)
    return Step(run, _settings(config, _SUMMARISE_FACTS), source)


def _form_step(config: FormConfig, source: Path, files: int, eta: int, gamma: int) -> Step:
    from inftythink.data.build import StageRun
    from inftythink.data.steps import FormInstances, ReadShard

    assert config.tokenizer is not None
    output = config.output or config.input
    step = FormInstances(
        output,
        config.tokenizer,
        eta=eta,
        gamma=gamma,
        template=config.template,
        validation=config.validation,
        seed=config.seed,
        instruction=config.instruction,
        jsonl=config.jsonl,
    )
    steps, tasks = [ReadShard(source, "summaries", files), step], _tasks(config.tasks, files)
    return Step(
        StageRun(("form",), output, config, steps, tasks, config.workers), _settings(config, _FORM_FACTS), source
    )


def _check_summariser(config: Any) -> None:
    if not config.base_url and not config.model:
        raise UsageError(
            "who is to write the summaries? Give --base-url URL [--model NAME] for an OpenAI-compatible server, or "
            "--model FOLDER_OR_HUB_NAME for a model in this process."
        )
    limited = config.requests_per_minute is not None or config.tokens_per_minute is not None
    if limited and not config.base_url:
        raise UsageError("--requests-per-minute and --tokens-per-minute are for servers; give --base-url too")


def _files(folder: Path, maker: str) -> int:
    from inftythink.data.table import shards

    found = len(shards(folder))
    if not found:
        raise UsageError(f"{folder}: no Parquet files here; make them with 'inftythink {maker}'")
    return found


def _tasks(asked: int | None, files: int) -> int:
    if asked is not None and not 1 <= asked <= files:
        raise UsageError(f"--tasks {asked}: the stage before has {files} files, each of which goes to one task")
    return asked or files


def _pick(config: BuildConfig, kind: Callable[..., Any], **more: Any) -> Any:
    """Return the part of a build's settings that one stage knows."""
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    known = {name: getattr(config, name) for name in fields if hasattr(config, name)}
    return kind(**known | more)


def _inherit(config: Any, manifest: dict[str, Any]) -> Any:
    """Fill in the tokenizer of the earlier stage, so that it is part of what must not change."""
    return config if config.tokenizer is not None else dataclasses.replace(config, tokenizer=manifest["tokenizer"])


def _settings(config: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _carry_out(verb: str, config: Where, steps: list[Step]) -> bool:
    """Carry stages out; returns whether they are whole, and not only submitted."""
    from inftythink.cli._data_tables import show_counts

    def written(step: Step) -> None:
        manifest = _manifest(step)
        if step is steps[-1]:
            show_counts(step.run.folder, manifest)

    return carry_out(verb, config, steps, written)


def _manifest(step: Step) -> dict[str, Any]:
    from inftythink.data.build import write_manifest

    folder = step.run.folder
    manifest = write_manifest(folder, step.run.stages[-1], step.source, **step.facts)
    if "form" in manifest["stages"]:
        from inftythink.data.card import card

        (folder / "instances" / "README.md").write_text(card(manifest), encoding="utf-8")
    return manifest


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
