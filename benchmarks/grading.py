r"""What the grader of mathematics gets right, and what hanging graders cost.

    python benchmarks/grading.py --data math500.jsonl aime2024.jsonl gsm8k_test200.jsonl --hanging 10000

Every reference is graded against itself, against six rewritings that say the same (all should be right), and against
wrong answers (none should be): references of other problems, and near misses such as a changed digit or sign.
``--traces FILE`` grades the conclusions of real models (lines with messages and answer) and lists where math-verify by
itself says otherwise. ``--hanging N`` grades N answers of which one in a hundred hangs for ever where no alarm reaches
it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inftythink.grade.base import Ask, Grade
from inftythink.grade.math import grade_math
from inftythink.grade.pool import GradePool

Case = tuple[str, str, str, str]
"""Kind, problem's id, reference, conclusion."""


def rewritings(gold: str) -> Iterator[tuple[str, str]]:
    """Yield ``(kind, conclusion)`` that say the same as the reference."""
    yield "itself", gold
    yield "boxed", rf"\boxed{{{gold}}}"
    yield "dollars", f"The answer is ${gold}$."
    yield "spaces", rf"\boxed{{ {spaced(gold)} }}"
    yield "dfrac", rf"\boxed{{{re.sub(r'[td]?frac(?![a-z])', 'dfrac', gold)}}}"
    yield "units", rf"\boxed{{{with_unit(gold)}}}"
    yield (
        "trailing text",
        rf"So the answer is $\boxed{{{gold}}}$. This is what was asked for; 17 was only a step on the way.",
    )


def spaced(gold: str) -> str:
    """Put spaces around operators, brackets and commas, but not into numbers, words or commands."""
    if "\\text" in gold or "\\mbox" in gold:
        return gold
    return re.sub(r"(?<!\\)([()\[\]+=])|(?<!\d),|,(?!\d{3})(?!\\!)", lambda found: f" {found.group()} ", gold)


def with_unit(gold: str) -> str:
    """Add a unit where one makes sense: to a number that has none; else a full stop."""
    plain = re.fullmatch(r"-?[\d.,]+|-?\\[td]?frac\s*(\d|\{\d+\})\s*(\d+|\{\d+\})", gold)
    if plain is None:
        return gold + ("" if gold.endswith("}") else "^\\circ" if re.fullmatch(r"-?[\d.]*\\pi", gold) else ".")
    return gold + random.Random(gold).choice([r"\text{ units}", r"\ \mathrm{cm}", r"^\circ", r" \text{ square inches}"])


def near_misses(gold: str) -> Iterator[tuple[str, str]]:
    """Yield ``(kind, wrong answer)`` that look like the reference."""
    digits = [found.start() for found in re.finditer(r"\d", gold)]
    if digits:
        place = digits[-1] if not re.search(r"_\{?\d+\}?$", gold) else digits[0]
        changed = str((int(gold[place]) + 1) % 10)
        yield "digit", gold[:place] + changed + gold[place + 1 :]
        yield "one more digit", gold[: digits[0]] + "1" + gold[digits[0] :]
    if re.match(r"-", gold):
        yield "sign", gold[1:]
    elif re.match(r"[1-9]|\\frac|\\sqrt|\\pi|[a-z]", gold) and "," not in gold and "=" not in gold and "pm" not in gold:
        yield "sign", "-" + (f"({gold})" if re.search(r".[+-]", gold) else gold)
    if swapped := re.fullmatch(r"\\[td]?frac\{(\d+)\}\{(\d+)\}", gold):
        yield "upside down", rf"\frac{{{swapped[2]}}}{{{swapped[1]}}}"
    if pair := re.fullmatch(r"\(([^(),]+),([^(),]+)\)", gold):
        yield "order", f"({pair[2]},{pair[1]})"
    if re.fullmatch(r"[(\[].*,.*[)\]]", gold) and ("infty" in gold or "[" in gold or "]" in gold):
        yield "open or closed", ("[" if gold[0] == "(" else "(") + gold[1:]
    if re.search(r"[a-z](?![a-z{])", gold) and "\\" not in gold and "x" in gold:
        yield "variable", gold.replace("x", "w") if "=" not in gold else gold + "+1"
    if "," in gold and not re.fullmatch(r"[\d,.]+", gold.replace("\\!", "").replace(" ", "")) and gold[0] not in "([":
        yield "one left out", gold.split(",")[0].lstrip("\\{")
    if "\\sqrt" in gold:
        yield "root left out", gold.replace("\\sqrt", "")
    if re.fullmatch(r"-?\d+", gold):
        yield "ten times", gold + "0" if gold != "0" else "10"
        if gold != "0":
            yield "variable added", gold + "x"


def right_cases(problems: list[dict[str, Any]]) -> list[Case]:
    return [(kind, p["id"], p["answer"], text) for p in problems for kind, text in rewritings(p["answer"])]


def wrong_cases(problems: list[dict[str, Any]], others: int) -> list[Case]:
    cases: list[Case] = []
    for place, problem in enumerate(problems):
        gold = problem["answer"]
        cases += [(kind, problem["id"], gold, rf"\boxed{{{wrong}}}") for kind, wrong in near_misses(gold)]
        random_ = random.Random(place)
        for other in random_.sample(problems, min(others, len(problems))):
            if value(other["answer"]) != value(gold):
                cases.append(("another's", problem["id"], gold, rf"\boxed{{{other['answer']}}}"))
    return cases


def value(gold: str) -> object:
    """Return what tells whether two references are the same; not by the grader that is measured."""
    text = re.sub(r"\\(?:text|mbox)\{\s*([^{}]*)\}(?:\^2)?|\\!|\\\$|\s|\^\\circ|\\left|\\right|[{}]", "", gold)
    text = re.sub(r"\\[td]frac", r"\\frac", text).replace(",", "") if re.fullmatch(r"[\d,\\!\s$]+", gold) else text
    try:
        return float(text)
    except ValueError:
        return re.sub(r"\\frac", "frac", text)


def grade_all(cases: list[Case], workers: int) -> list[Grade]:
    with GradePool(workers, 10.0) as pool:
        futures: list[Future[Grade]] = [pool.submit(grade_math, Ask("", gold, text)) for _, _, gold, text in cases]
        return [future.result() for future in futures]


def report(title: str, cases: list[Case], grades: list[Grade], right: bool) -> None:
    """Print how many of each kind were graded as they should, and all that were not."""
    counts = Counter(kind for kind, *_ in cases)
    good = Counter(kind for (kind, *_), grade in zip(cases, grades, strict=True) if grade.correct is right)
    table = Table(title=title)
    for column in ("kind", "cases", "as it should", "share"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, count in counts.items():
        table.add_row(kind, str(count), str(good[kind]), f"{good[kind] / count:.1%}")
    console = Console(width=120)
    console.print(table)
    for (kind, problem, gold, text), grade in zip(cases, grades, strict=True):
        if grade.correct is not right:
            print(f"  {problem} [{kind}] {gold!r} against {text!r}: {grade}")
    if right:
        whole = {problem for _, problem, *_ in cases}
        broken = {case[1] for case, grade in zip(cases, grades, strict=True) if grade.correct is not True}
        console.print(f"right in all rewritings: {len(whole) - len(broken)} of {len(whole)}\n")


def math_verify(ask: Ask) -> Grade:
    """Grade by math-verify alone, as its README has it."""
    from math_verify import parse, verify

    gold, answer = parse(f"${ask.gold}$", parsing_timeout=None), parse(ask.conclusion or "", parsing_timeout=None)
    return Grade(bool(verify(gold, answer, timeout_seconds=None)), str(answer))


def real_conclusions(path: Path, workers: int) -> None:
    from grading import math_verify as plain  # a worker finds it by this name

    traces = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    asked = [
        Ask("", str(trace["answer"]), trace["messages"][-1]["content"].rsplit("</think>", 1)[-1].strip())
        for trace in traces
        if trace["answer"]
    ]
    with GradePool(workers, 30.0) as pool:
        both = [(pool.submit(grade_math, ask), pool.submit(plain, ask), ask) for ask in asked]
        grades = [(ours.result(), theirs.result(), ask) for ours, theirs, ask in both]
    print(f"{len(asked)} conclusions of {path.name}: {Counter(ours.reason or 'right' for ours, _, _ in grades)}")
    for ours, theirs, ask in grades:
        if ours.correct is not theirs.correct:
            theirs_said = f"{theirs.correct} ({theirs.extracted})"
            print(f"  {ask.gold!r}: {ours.correct} ({ours.extracted}); math-verify: {theirs_said}")


def sometimes_hangs(ask: Ask) -> Grade:
    """Hang in C, with the interpreter's lock held and the alarm ignored, where the conclusion says so."""
    if ask.conclusion == "hang":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        ctypes.PyDLL(None).sleep(1_000_000)
    return Grade(ask.conclusion == ask.gold, ask.conclusion)


def hanging(number: int, workers: int, timeout: float) -> None:
    from grading import sometimes_hangs as grader  # a worker finds it by this name

    start = time.perf_counter()
    hang = set(random.Random(0).sample(range(number), number // 100))
    with GradePool(workers, timeout) as pool:
        asked = [Ask("", str(i % 2), "hang" if i in hang else "1") for i in range(number)]
        grades = [future.result() for future in [pool.submit(grader, ask) for ask in asked]]
    timed_out = {i for i, grade in enumerate(grades) if grade.correct is None}
    as_expected = sum(grade.correct == (i % 2 == 1) for i, grade in enumerate(grades) if i not in hang)
    print(
        f"{number} grades, {len(hang)} that hang, {workers} workers, time-out {timeout:g} s: "
        f"{time.perf_counter() - start:.0f} s; timed out: {len(timed_out)}, exactly those: {timed_out == hang}; "
        f"others graded as expected: {as_expected} of {number - len(hang)}; "
        f"reasons: {Counter(grades[i].reason for i in timed_out)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], help="JSONL files with id and answer")
    parser.add_argument("--others", type=int, default=10, help="references of other problems to try as wrong answers")
    parser.add_argument("--traces", type=Path, help="JSONL file with messages and answer")
    parser.add_argument("--hanging", type=int, default=0, help="grades of which one in a hundred hangs")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds after which a hanging grade is given up")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    for path in map(Path, options.data):
        problems = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        right, wrong = right_cases(problems), wrong_cases(problems, options.others)
        start = time.perf_counter()
        grades = grade_all(right + wrong, options.workers)
        seconds = time.perf_counter() - start
        report(f"{path.name}: the same, said otherwise", right, grades[: len(right)], True)
        report(f"{path.name}: wrong answers", wrong, grades[len(right) :], False)
        print(f"{len(grades)} grades in {seconds:.1f} s with {options.workers} workers\n")
    if options.traces:
        real_conclusions(options.traces, options.workers)
    if options.hanging:
        hanging(options.hanging, options.workers, options.timeout)


if __name__ == "__main__":
    main()
