"""A server that fails in every way there is: runs end, and every record is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import SEED
from tests.faults.runs import conversion, evaluation, finish, plain, start
from tests.faults.server import ServerProcess


def failing(seed: int, share: float = 0.3) -> ServerProcess:
    print(f"seed {seed}: {share:.0%} of requests fail")
    return ServerProcess("--failing", str(share), "--seed", str(seed))


def outcomes(out: Path) -> Counter[str]:
    found = [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]
    keys = [(each["id"], each["sample"]) for each in found]
    assert len(set(keys)) == len(keys) == 24
    return Counter(each["outcome"] for each in found)


def test_an_evaluation_accounts_for_every_trajectory_and_ends_as_with_a_good_server(inputs, evaluated, tmp_path):
    out = tmp_path / "run"
    with failing(SEED) as server:
        # As patient as it takes for some to fail: what stalls is given up after three seconds.
        work = evaluation(inputs / "problems.jsonl", server.url, "--timeout", "3", "--retries", "2")
        for _ in range(12):
            code, said = start(work, out).wait()
            assert "Traceback" not in said, said[-4000:]
            counts = outcomes(out)
            assert (code == 1) == bool(counts["failed"])
            print(f"exit code {code}: {dict(counts)}")
            if code == 0:
                break
    assert counts == {"answered": 24}
    wanted = json.loads(evaluated.made["metrics"])
    made = plain(json.loads((out / "metrics.json").read_text()))
    assert made == wanted


@pytest.mark.faults
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", range(5))
def test_a_build_accounts_for_every_trace(number, inputs, tokenizer, converted, tmp_path):
    out = tmp_path / "run"
    with failing(SEED + number) as server:
        finish(conversion(inputs / "traces.jsonl", tokenizer, server.url, "--timeout", "3"), out)
    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert counts["in"] == counts["out"] + counts["rejected"] == 13
    wanted = json.loads(converted.made["manifest.json"])["counts"]
    rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
    assert len(rejects) == counts["rejected"] >= wanted["rejected"]
    assert all(reject["reason"] and reject["detail"] for reject in rejects)
