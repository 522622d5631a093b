"""What a run's rows amount to. Pure functions; docs/metrics.md defines each figure.

Every share is a mean over problems of the mean over their graded samples. A FAILED trajectory or a failed grade is no
sample: it is counted beside the figure (``Estimate.failed``). All other outcomes are samples, and wrong unless ANSWERED
rightly. Nothing depends on the order of the rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from inftythink.errors import UsageError
from inftythink.evals.cost import Architecture, Call, attention_flops, kv_bytes, linear_flops, read_architecture
from inftythink.evals.estimate import Estimate, intervals, mean
from inftythink.evals.rows import RoundRow, Row
from inftythink.evals.votes import majority_at, pass_at
from inftythink.protocol import Outcome

VERSION = 1
"""Version of the JSON form of a summary."""

Score = Callable[[Sequence[Row]], float]
"""What a problem's graded samples are worth, from 0 to 1."""
Key = tuple[str, str]


def by_problem(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Return the rows of each problem, by task and problem, in the order of names and samples."""
    found: dict[Key, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.task, row.problem, row.sample)):
        found.setdefault((row.task, row.problem), []).append(row)
    return found


def graded(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have a verdict."""
    return [row for row in rows if row.correct is not None]


def share_right(samples: Sequence[Row]) -> float:
    """Return the share of samples that are right."""
    return sum(row.correct is True for row in samples) / len(samples)


def accuracy(rows: Iterable[Row]) -> Estimate:
    """Return the mean over problems of the share of samples that are right."""
    return _estimates(rows, [share_right])[0]


def pass_at_k(rows: Iterable[Row], k: int) -> Estimate:
    """Return the chance that one of ``k`` samples is right. Problems with fewer graded samples are left out."""
    return _estimates(rows, [_pass_at(k)], k)[0]


def maj_at_k(rows: Iterable[Row], k: int) -> Estimate:
    """Return the chance that the vote of ``k`` samples is right. Problems with fewer graded samples are left out."""
    return _estimates(rows, [vote_at(k)], k)[0]


def by_rounds(rows: Iterable[Row], rounds: Sequence[int] | None = None) -> dict[int, Estimate]:
    """Return the accuracy when only the first r rounds are allowed: right, and in at most r rounds.

    ``rounds`` are the r to tell; default: 1 to the most that any row used.
    """
    rows = list(rows)
    wanted = list(range(1, max((len(row.rounds) for row in rows), default=0) + 1) if rounds is None else rounds)
    return dict(zip(wanted, _estimates(rows, [_within(lambda row: len(row.rounds), r) for r in wanted]), strict=True))


def by_budget(rows: Iterable[Row], budgets: Sequence[int] | None = None) -> dict[int, Estimate]:
    """Return the accuracy within a budget of generated tokens: right, and with at most that many tokens in all.

    ``budgets`` default to the powers of two from 256 to the first that all rows keep within.
    """
    rows = list(rows)
    wanted = list(default_budgets(max((row.tokens for row in rows), default=0)) if budgets is None else budgets)
    return dict(zip(wanted, _estimates(rows, [_within(lambda row: row.tokens, b) for b in wanted]), strict=True))


def outcomes(rows: Iterable[Row]) -> Counter[str]:
    """Return how many rows ended in each outcome; every outcome is there, in the protocol's order."""
    found = Counter({outcome.value: 0 for outcome in Outcome})
    found.update(row.outcome for row in rows)
    return found


def failures(rows: Iterable[Row]) -> dict[str, int]:
    """Return why rows have no verdict, with numbers: the trajectory failed, or what the grader's reason begins with."""
    causes = ("trajectory failed" if _failed(row) else (row.reason or "no reason given") for row in rows if _no(row))
    return dict(sorted(Counter(cause.partition(":")[0] for cause in causes).items()))


def usage(rows: Iterable[Row], architecture: Architecture | None = None) -> dict[str, Any]:
    """Return what the trajectories took, FAILED ones left out; with the model's ``architecture`` also its work.

    Tokens, characters, seconds, floating-point operations and bytes; None where there is nothing to divide by.
    """
    whole = [row for row in rows if not _failed(row)]
    used = [each for row in whole for each in row.rounds]
    seconds = sorted(row.seconds for row in whole)
    tokens = sum(row.tokens for row in whole)
    total = math.fsum(seconds)
    found: dict[str, Any] = {
        "trajectories": len(whole),
        "tokens": {
            "total": tokens,
            "mean": mean([row.tokens for row in whole]),
            **_percentiles([row.tokens for row in whole]),
        },
        "prompt_tokens": sum(each.prompt_tokens for each in used),
        "cached_tokens": sum(each.cached_tokens or 0 for each in used),
        "peak_context": {
            "max": max((row.peak_context for row in whole), default=None),
            "mean": mean([row.peak_context for row in whole]),
        },
        "rounds": {
            "mean": mean([len(row.rounds) for row in whole]),
            "max": max((len(row.rounds) for row in whole), default=None),
            "rows": {str(n): count for n, count in sorted(Counter(len(row.rounds) for row in whole).items())},
        },
        "compression": compression(used),
        "latency": {"mean": mean(seconds), **_percentiles(seconds)},
        "tokens_per_second": tokens / total if total else None,
    }
    return found if architecture is None else found | {"cost": _work(whole, architecture)}


def compression(rounds: Iterable[RoundRow]) -> float | None:
    """Return the characters of thought for one of summary, over the rounds that wrote one."""
    told = [each for each in rounds if each.summary_chars]
    return sum(each.thought_chars for each in told) / sum(each.summary_chars for each in told) if told else None


def summary(rows: Iterable[Row], model_config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all figures as ``metrics.json`` holds them: for each task, and over all problems of all tasks.

    ``model_config`` is the model's ``config.json``; of one that the cost model does not know, ``cost`` says why.
    """
    rows = sorted(rows, key=lambda row: (row.task, row.problem, row.sample))
    architecture: Architecture | None = None
    unknown = None
    if model_config is not None:
        try:
            architecture = read_architecture(model_config)
        except UsageError as error:
            unknown = str(error)
    tasks = {
        task: _block([row for row in rows if row.task == task], architecture)
        for task in dict.fromkeys(row.task for row in rows)
    }
    means = [block["accuracy"]["value"] for block in tasks.values()]
    return {
        "version": VERSION,
        "tasks": tasks,
        "all": _block(rows, architecture),
        "mean_of_tasks": mean(means) if None not in means else None,
        **({"cost_unknown": unknown} if unknown else {}),
    }


def _block(rows: list[Row], architecture: Architecture | None) -> dict[str, Any]:
    most = max((len(samples) for samples in by_problem(rows).values()), default=0)
    chances = {k: _estimates(rows, [_pass_at(k), vote_at(k)], k) for k in sizes(most)}
    groups = sorted({row.group for row in rows} - {""})
    return {
        "accuracy": accuracy(rows).to_json(),
        "pass_at": {str(k): passed.to_json() for k, (passed, _) in chances.items()},
        "maj_at": {str(k): voted.to_json() for k, (_, voted) in chances.items()},
        "by_rounds": {str(r): estimate.to_json() for r, estimate in by_rounds(rows).items()},
        "by_budget": {str(b): estimate.to_json() for b, estimate in by_budget(rows).items()},
        "outcomes": dict(outcomes(rows)),
        "failures": failures(rows),
        "usage": usage(rows, architecture),
        "groups": {group: _group([row for row in rows if row.group == group]) for group in groups},
    }


def _group(rows: list[Row]) -> dict[str, Any]:
    return {"accuracy": accuracy(rows).to_json(), "outcomes": dict(outcomes(rows)), "tokens": usage(rows)["tokens"]}


def _estimates(rows: Iterable[Row], scores: Sequence[Score], least: int = 1) -> list[Estimate]:
    """Return the mean over problems of each score; problems with fewer than ``least`` graded samples are left out."""
    problems = by_problem(rows)
    failed = sum(_no(row) for samples in problems.values() for row in samples)
    counted = [told for samples in problems.values() if len(told := graded(samples)) >= least]
    values = [[score(samples) for samples in counted] for score in scores]
    return [
        Estimate(
            mean(line), low, high, len(counted), sum(map(len, counted)), failed, left_out=len(problems) - len(counted)
        )
        for line, (low, high) in zip(values, intervals(values), strict=True)
    ]


def _pass_at(k: int) -> Score:
    return lambda samples: pass_at(len(samples), sum(row.correct is True for row in samples), k)


def vote_at(k: int) -> Score:
    """Return the score of the vote of ``k`` samples."""
    return lambda samples: majority_at(((row.extracted, row.correct is True) for row in samples), k)


def _within(size: Callable[[Row], int], limit: int) -> Score:
    return lambda samples: sum(row.correct is True and size(row) <= limit for row in samples) / len(samples)


def sizes(most: int) -> list[int]:
    """Return the k that pass@k and maj@k are told for: the powers of two up to ``most``, and ``most``."""
    return sorted({2**power for power in range(most.bit_length())} | {most}) if most else []


def default_budgets(most: int) -> list[int]:
    """Return the powers of two from 256 to the first that is at least ``most``."""
    return [2**power for power in range(8, max(9, (most - 1).bit_length() + 1))] if most else []


def _percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """Return the median and the 95th percentile: the least value that so many of them do not exceed."""
    ordered = sorted(values)
    ranks = {f"p{p}": -(-len(ordered) * p // 100) - 1 for p in (50, 95)}
    return {name: ordered[rank] if ordered else None for name, rank in ranks.items()}


def _work(rows: Sequence[Row], architecture: Architecture) -> dict[str, float | None]:
    """Return the mean work of a trajectory, and the largest key-value cache, from what each round's context was."""
    calls = [[_call(each) for each in row.rounds] for row in rows]
    return {
        "linear_flops": mean([math.fsum(linear_flops(architecture, call) for call in each) for each in calls]),
        "attention_flops": mean([math.fsum(attention_flops(architecture, call) for call in each) for each in calls]),
        "kv_bytes_max": max((kv_bytes(architecture, row.peak_context) for row in rows), default=None),
        "kv_bytes_mean": mean([kv_bytes(architecture, row.peak_context) for row in rows]),
    }


def _call(each: RoundRow) -> Call:
    """Return a round as one call that ends at its largest context: exact where a second call went on from the first."""
    return Call(max(0, each.peak_context - each.completion_tokens), each.completion_tokens)


def _failed(row: Row) -> bool:
    return row.outcome == Outcome.FAILED.value


def _no(row: Row) -> bool:
    return row.correct is None
