"""The output folder of a run: what a kill left half written is passed over, and a broken result is told."""

import json

import pytest

from inftythink.errors import InputError
from inftythink.train.folder import Result, last_checkpoint


def test_the_last_checkpoint_is_the_newest_whole_one(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((8, '{"global_step": 8}'), (10, '{"global_step": 10}'), (12, '{"global_'), (14, None)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-10")


def test_a_result_comes_back_as_it_was_written(tmp_path):
    result = Result(tmp_path / "model", {"steps": 2}, [{"step": 1, "reward": 0.5}, {"step": 2, "reward": 0.75}])
    result.write(tmp_path)
    assert Result.read(tmp_path) == result
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"steps": 2}
    (tmp_path / "history.jsonl").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Result.read(tmp_path)
