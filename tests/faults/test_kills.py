"""kill -9 at moments of chance: the same command again ends with what an unbroken run ends with, byte for byte."""

from __future__ import annotations

import random
import threading
import time

import pytest

from tests.faults.conftest import SEED
from tests.faults.runs import (
    Running,
    alone,
    broken,
    evaluation,
    kill_driver,
    kill_worker,
    learning,
    measure,
)
from tests.faults.server import ServerProcess

LONG = pytest.mark.timeout(7200)


def test_an_evaluation_is_killed(evaluates, evaluated, tmp_path):
    broken(evaluates, tmp_path, evaluated, kill_driver, 2, SEED)


@pytest.mark.faults
@LONG
def test_an_evaluation_is_killed_again_and_again(evaluates, evaluated, tmp_path):
    broken(evaluates, tmp_path, evaluated, kill_driver, 6, SEED + 1)


@pytest.mark.faults
@LONG
def test_an_evaluation_with_its_model_inside_is_killed(tmp_path):
    whole = measure(alone(), tmp_path / "whole")
    broken(alone(), tmp_path, whole, kill_driver, 3, SEED + 11)


@pytest.mark.faults
@LONG
def test_a_grader_of_an_evaluation_is_killed(evaluates, evaluated, tmp_path):
    broken(evaluates, tmp_path, evaluated, kill_worker, 3, SEED + 2)


@pytest.mark.faults
@LONG
def test_a_build_is_killed_again_and_again(converts, converted, tmp_path):
    broken(converts, tmp_path, converted, kill_driver, 6, SEED + 3)


@pytest.mark.faults
@LONG
def test_a_worker_of_a_build_is_killed(converts, converted, tmp_path):
    broken(converts, tmp_path, converted, kill_worker, 3, SEED + 4)


@pytest.mark.faults
@LONG
def test_a_learning_run_is_killed_again_and_again(learns, learnt, tmp_path):
    broken(learns, tmp_path, learnt, kill_driver, 4, SEED + 5)


@pytest.mark.faults
@LONG
def test_a_grader_of_a_learning_run_is_killed(learns, learnt, tmp_path):
    broken(learns, tmp_path, learnt, kill_worker, 1, SEED + 6)


def struck_by(server: ServerProcess, away: float):
    """Kill the server, and start it again after ``away`` seconds."""

    def strike(rng: random.Random, running: Running) -> bool:
        server.kill()
        back = threading.Thread(target=lambda: (time.sleep(away), server.start()))
        back.start()
        running.process.wait()
        back.join()
        return True

    return strike


@pytest.mark.faults
@LONG
def test_the_server_of_an_evaluation_is_killed_and_comes_back(evaluates, evaluated, server, tmp_path):
    broken(evaluates, tmp_path, evaluated, struck_by(server, 0.5), 2, SEED + 7)


@pytest.mark.faults
@LONG
def test_the_server_of_an_evaluation_is_killed_and_stays_away(inputs, evaluated, server, tmp_path):
    impatient = evaluation(inputs / "problems.jsonl", server.url, "--retries", "1")
    broken(impatient, tmp_path, evaluated, struck_by(server, 4.0), 1, SEED + 8)


@pytest.mark.faults
@LONG
def test_the_server_of_a_build_is_killed_and_comes_back(converts, converted, server, tmp_path):
    broken(converts, tmp_path, converted, struck_by(server, 0.5), 2, SEED + 9)


@pytest.mark.faults
@LONG
def test_the_server_that_a_learning_run_samples_with_is_killed_and_comes_back(inputs, learns, tmp_path):
    """It comes back with the weights of the beginning, and has to be given those of now."""
    from inftythink.train.rl_settings import Sampler

    with ServerProcess("--model", str(inputs / "model")) as server:
        sampler = Sampler(kind="server", url=server.url, timeout=600.0)
        work = learning(inputs / "model", tmp_path / "rl.yaml", sampler=sampler, max_batch=1)
        whole = measure(work, tmp_path / "whole")
        broken(work, tmp_path, whole, struck_by(server, 0.0), 1, SEED + 12)
