"""Does summary fidelity tell true summaries from others? ``python benchmarks/fidelity.py --traces FILE [--limit 200]``.

Real traces are cut into pieces of about ``--chars`` characters. The "summary" of a piece is then made without a model,
so that what is right is known: the end of the piece itself; the same in another notation; the same with one number in
ten changed; and the end of a piece of another trace.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from inftythink.data.read import Reject, Trace, read_files, to_trace
from inftythink.evals.facts import numbers
from inftythink.evals.fidelity import Chain, measure


def chains(path: Path, limit: int, chars: int) -> Iterator[Chain]:
    """Yield traces as chains without summaries; those of one piece have none to measure."""
    read = (to_trace(row) for row in read_files(path) if not isinstance(row, Reject))
    whole = (trace for trace in read if isinstance(trace, Trace) and len(trace.reasoning) > 2 * chars)
    for trace in islice(whole, limit):
        text = trace.reasoning
        pieces = tuple(text[at : at + chars] for at in range(0, len(text), chars))
        yield Chain(trace.id, trace.problem, pieces, (None,) * len(pieces))


def rewritten(text: str) -> str:
    """Write mathematics in another notation: other fractions, delimiters, spaces, digits and thousands."""
    text = re.sub(r"\$([^$\n]+)\$", r"\\( \1 \\)", text).replace("\\frac", "\\dfrac").replace(" = ", "=")
    text = re.sub(r"(?<![\d.,])(\d{1,3})(\d{3})(?![\d.,])", r"\1{,}\2", text)
    return text.replace("\\times", "\\cdot").replace("7", "７")


def changed(text: str, draw: random.Random) -> str:
    """Change one number in ten into one that does not stand there."""
    known = set(numbers(text))

    def other(match: re.Match[str]) -> str:
        if draw.random() > 0.1:
            return match[0]
        return next(value for value in iter(lambda: str(draw.randint(10**5, 10**6)), "") if value not in known)

    return re.sub(r"(?<![\d.])\d+(?![\d.])", other, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--chars", type=int, default=4000)
    parser.add_argument("--tail", type=int, default=800, help="characters of a summary")
    args = parser.parse_args()
    found = list(chains(args.traces, args.limit, args.chars))
    draw = random.Random(0)

    def tails(chain: Chain) -> list[str]:
        """Return the ends of the pieces but the last, from the start of a line: a cut number is another number."""
        return [piece[-args.tail :].partition("\n")[2] for piece in chain.thoughts[:-1]]

    kinds: dict[str, Callable[[int], list[str]]] = {
        "the end of the piece": lambda place: tails(found[place]),
        "in another notation": lambda place: [rewritten(text) for text in tails(found[place])],
        "one number in ten changed": lambda place: [changed(text, draw) for text in tails(found[place])],
        "of another trace": lambda place: tails(found[place - 1]),
    }
    print(f"{len(found)} traces")
    for name, make in kinds.items():
        start, told = time.process_time(), []
        for place, chain in enumerate(found):
            pieces = len(chain.thoughts) - 1
            texts = (make(place) * pieces)[:pieces]
            told.append(Chain(chain.id, chain.question, chain.thoughts, (*texts, None)))
        report = measure(told).to_json()
        shares = [f"{100 * report[kind]['share']:6.2f}% of {report[kind]['of']:,}" for kind in ("numbers", "formulas")]
        print(f"{name:<26} numbers {shares[0]}, formulas {shares[1]}, {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    main()
