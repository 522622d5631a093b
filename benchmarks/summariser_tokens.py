"""What summaries cost: the incremental way, one attempt, against the published way (cumulative, four samples).

    python benchmarks/summariser_tokens.py --traces traces.jsonl --tokenizer FOLDER [--eta 1024] [--output FILE.json]

A scripted summariser answers every request with a text of ``--summary`` tokens, so that only the requests differ.
Published (InftyThink, section 3.2 and its scripts): every segment is summarised, the last one too, from the question
and all reasoning up to there, four samples each. Samples of one request may share its prompt on a server, so that the
published prompt tokens are counted both ways.
"""

import argparse
import asyncio
import json

from rich.console import Console
from rich.table import Table

from inftythink.backends import Request
from inftythink.backends.scripted import Scripted, prompt_text
from inftythink.data.read import Trace, read_files, to_trace
from inftythink.data.segment import Segmented as Cut
from inftythink.data.segment import segment
from inftythink.data.summarise import Segmented, Settings, Summarised, Summariser
from inftythink.data.tokens import Counter, load_counter
from inftythink.protocol import Completion, Problem, Stop

SAMPLES = 4


def traces(path: str, eta: int, counter: Counter) -> list[Segmented]:
    found = []
    for row in read_files(path):
        trace = to_trace(row)
        assert isinstance(trace, Trace), trace
        cut = segment(trace.reasoning, eta, counter)
        assert isinstance(cut, Cut), cut
        found.append(Segmented(Problem(trace.id, trace.problem, context=trace.context), tuple(cut.segments)))
    return found


async def incremental(all_of_them: list[Segmented], counter: Counter, summary: str) -> dict[str, int]:
    """Run the real summariser; its own books are the figures."""
    tokens = counter.count(summary)

    def reply(request: Request) -> Completion:
        return Completion(
            summary, Stop.STOP, prompt_tokens=counter.count(prompt_text(request.prompt)), completion_tokens=tokens
        )

    summariser = Summariser(Scripted(reply, keep=0), counter, Settings(gamma=1024, attempts=1))
    for one in all_of_them:
        done = await summariser.summarise(one, lambda key, backend, request: backend.complete(request))
        assert isinstance(done, Summarised), done
    usage = summariser.usage
    return {"calls": usage.calls, "prompt tokens": usage.prompt_tokens, "output tokens": usage.completion_tokens}


def published(all_of_them: list[Segmented], counter: Counter, summary: str) -> dict[str, int]:
    """Count the requests that the published scripts would make."""
    writer = Summariser(Scripted([]), counter, Settings(strategy="cumulative", gamma=1024))
    calls = prompt_tokens = 0
    for one in all_of_them:
        for number in range(len(one.segments)):
            calls += 1
            prompt_tokens += counter.count(prompt_text(writer.prompt(one, [], number)))
    return {
        "calls": SAMPLES * calls,
        "prompt tokens": SAMPLES * prompt_tokens,
        "prompt tokens, shared by samples": prompt_tokens,
        "output tokens": SAMPLES * calls * counter.count(summary),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--eta", type=int, default=1024)
    parser.add_argument("--summary", type=int, default=300, help="tokens of a summary")
    parser.add_argument("--output", help="also write the figures here, as JSON")
    args = parser.parse_args()
    counter = load_counter(args.tokenizer)
    summary = " one" * args.summary
    all_of_them = traces(args.traces, args.eta, counter)
    ours = asyncio.run(incremental(all_of_them, counter, summary))
    theirs = published(all_of_them, counter, summary)
    table = Table("", "published", "incremental", "ratio", title=f"{len(all_of_them):,} traces, eta {args.eta}")
    ratios = {}
    for name, figure in theirs.items():
        mine = ours[name.split(",")[0]]
        ratios[name] = round(figure / mine, 2)
        table.add_row(name, f"{figure:,}", f"{mine:,}", f"{ratios[name]:.2f}")
    Console().print(table)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            json.dump({"published": theirs, "incremental": ours, "ratio": ratios}, file, indent=2)


if __name__ == "__main__":
    main()
