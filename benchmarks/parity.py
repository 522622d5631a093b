"""Token parity: are a training row's ids those that inference sends, and then those that the model returned?

    python benchmarks/parity.py --traces FILE --tokenizer FOLDER_OR_NAME [--tokenizer …] [--instances 1000]

Traces become instances as in ``inftythink data`` (a rule writes the summaries: the last lines of each segment), and
instances become training rows as in ``inftythink sft``. Then the reasoner drives the same problems with a backend that
writes down the ids it is sent, and answers with the ids of the row's completion; what it carries into the next round it
reads from the text of these ids, as with any model. Every row is compared, id for id.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from inftythink.backends import Capabilities, Delta, Request
from inftythink.data.form import instances, teach
from inftythink.data.read import Reject, Trace, read_files, to_trace
from inftythink.data.segment import segment
from inftythink.data.tokens import load_counter
from inftythink.protocol import Completion, Format, Policy, Problem, Stop, Trajectory
from inftythink.reasoner import Reasoner, run_sync
from inftythink.render import Renderer
from inftythink.train.rows import Row, rows_of


class Replay:
    """A backend that returns the completions of training rows, in order, and keeps the ids of the prompts."""

    name = "replay"
    capabilities = Capabilities(prefill=True, token_ids=True, logprobs=False)

    def __init__(self, renderer: Renderer, completions: Iterator[list[int]]) -> None:
        self.renderer, self.completions = renderer, completions
        self.sent: list[tuple[list[int], list[int]]] = []

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

    async def complete(self, request: Request) -> Completion:
        """Return the next completion; a server's text has no end-of-sequence token."""
        ids = next(self.completions)
        self.sent.append((self.renderer.ids(request.prompt), ids))
        text = self.renderer.decode(ids[:-1] if ids[-1] == self.renderer.end_id else ids)
        return Completion(text, Stop.STOP, token_ids=tuple(ids))

    async def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Not used here."""
        yield await self.complete(request)


def taught(trace: Trace, eta: int, tokenizer: str) -> Trajectory | Reject:
    """Convert one trace; the summary of a segment is its last 300 characters from a line's beginning."""
    cut = segment(trace.reasoning, eta, load_counter(tokenizer))
    if isinstance(cut, Reject):
        return cut
    summaries = [text[-300:].partition("\n")[2].strip() or text[-300:].strip() for text in cut.segments[:-1]]
    return teach(Problem(trace.id, trace.problem, trace.answer), cut.segments, summaries, trace.conclusion, Format())


def check(trajectory: Trajectory, renderer: Renderer) -> tuple[int, int, str | None]:
    """Return how many rows a trajectory has, how many tokens, and the first difference."""
    fmt = Format()
    records = instances(trajectory, fmt, renderer)
    rows = [row for row in rows_of(records, renderer, "summary", eta=0, max_length=10**9) if isinstance(row, Row)]
    completions = [[label for label in row.labels if label != -100] for row in rows]
    backend = Replay(renderer, iter(completions))
    policy = Policy(eta=10**6, gamma=10**6, phi=len(rows))
    again = run_sync(Reasoner(backend, policy=policy).solve(trajectory.problem))
    if again.conclusion != trajectory.conclusion or len(backend.sent) != len(rows) != 0:
        return (
            len(rows),
            0,
            f"{trajectory.problem.id}: drove {len(backend.sent)} of {len(rows)} rounds, {again.outcome}",
        )
    for row, (prompt, completion) in zip(rows, backend.sent, strict=True):
        if row.input_ids != prompt + completion:
            return len(rows), 0, f"{trajectory.problem.id}, round {row.k}: other ids"
    return len(rows), sum(len(row.input_ids) for row in rows), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--tokenizer", action="append", required=True)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--eta", type=int, default=1024)
    args = parser.parse_args()
    table = Table("tokenizer", "traces", "rejected", "instances", "tokens", "different")
    different = 0
    for name in args.tokenizer:
        renderer, counts, wrong = Renderer.load(name), [0, 0, 0, 0], []
        for read in track(read_files(args.traces), name, console=Console(stderr=True), transient=True):
            if counts[2] >= args.instances:
                break
            trace = read if isinstance(read, Reject) else to_trace(read)
            trajectory = trace if isinstance(trace, Reject) else taught(trace, args.eta, name)
            if isinstance(trajectory, Reject):
                counts[1] += 1
                continue
            rows, tokens, difference = check(trajectory, renderer)
            counts = [counts[0] + 1, counts[1], counts[2] + rows, counts[3] + tokens]
            wrong += [difference] if difference else []
        table.add_row(name, *(f"{count:,}" for count in counts), str(len(wrong)))
        different += len(wrong)
        for line in wrong[:10]:
            print(line, file=sys.stderr)
    Console(width=120).print(table)
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
