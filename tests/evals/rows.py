"""Rows for the tests of the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from inftythink.evals.rows import RoundRow, Row


def round_row(tokens: int = 50, prompt: int = 10, thought: int = 200, summary: int = 0) -> RoundRow:
    return RoundRow(prompt, tokens, None, 1.0, prompt + tokens, thought, summary)


def row(
    problem: str = "1",
    sample: int = 0,
    correct: bool | None = True,
    answer: str | None = "4",
    *,
    task: str = "sums",
    group: str = "",
    outcome: str = "answered",
    rounds: Sequence[RoundRow] = (round_row(),),
    reason: str | None = None,
) -> Row:
    return Row(
        task=task,
        problem=problem,
        sample=sample,
        group=group,
        outcome=outcome,
        correct=correct,
        extracted=answer,
        reason=reason,
        rounds=tuple(rounds),
        tokens=sum(each.completion_tokens for each in rounds),
        peak_context=max((each.peak_context for each in rounds), default=0),
        seconds=sum(each.seconds for each in rounds),
    )
