"""What every client must be able to do in front of whatever answers. Subclasses' modules have a fixture ``place``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.clients.places import MODEL, QUESTIONS, Place, client, run_section


class ClientContract:
    """Answers are compared where they are known to be the same each time (``place.right`` is a number)."""

    def test_curl(self, place: Place, tmp_path: Path) -> None:
        (printed,) = run_section("curl", place, tmp_path)
        lines = [line for line in printed.splitlines() if line.startswith("data: ")]
        assert lines.pop() == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert any(chunk["choices"][0]["delta"].get("reasoning") for chunk in chunks)

    def test_the_pages_programs_for_openai_python(self, place: Place, tmp_path: Path) -> None:
        streamed, whole = run_section("openai-python", place, tmp_path)
        assert streamed
        assert "thought: " in whole
        conclusion = whole.rsplit("answer: ", 1)[1].strip()
        if place.right is not None:
            assert "16" in conclusion
            assert streamed.endswith(conclusion)

    def test_openai_python_in_every_way(self, place: Place) -> None:
        ways = client("with_openai.py", place)
        assert ways.pop("models") == [MODEL]
        for name, way in ways.items():
            assert way["reasoning"], name
            assert way["tokens"] > 0, name
            assert way["rounds"] > 0, name
        if place.right is not None:
            chat, response = ways["chat"], ways["responses"]
            assert "16" in chat["content"]
            assert response["content"] == chat["content"]
            assert all(way == (chat if "chat" in name else response) for name, way in ways.items())

    def test_langchain(self, place: Place, tmp_path: Path) -> None:
        (printed,) = run_section("LangChain", place, tmp_path)
        assert "rounds, {'input_tokens'" in printed

    def test_langchain_in_every_way(self, place: Place) -> None:
        ways = client("with_langchain.py", place)
        events = ways.pop("events")
        assert ways.pop("pieces of reasoning") > 1
        plain = ways.pop("plain")
        assert plain["reasoning"] is None  # should that change, the class of this package has nothing to do any more
        for name, way in ways.items():
            reasoning, *rest = way["blocks"]
            assert (reasoning["type"], reasoning["reasoning"]) == ("reasoning", way["reasoning"]), name
            assert [block["text"] for block in rest] == [way["text"]] * bool(way["text"]), name
            assert (way["provider"], way["usage"]["output_tokens"] > 0, way["rounds"] > 0) == (MODEL, True, True), name
        if place.right is not None:
            assert "16" in plain["text"]
            for asked in (lambda name: not name.startswith("second"), lambda name: name.startswith("second")):
                same = [(way["text"], way["reasoning"]) for name, way in ways.items() if asked(name)]
                assert same == [same[0]] * len(same)
            assert (events["text"], events["reasoning"]) == (plain["text"], ways["invoke"]["reasoning"])

    def test_lm_evaluation_harness(self, place: Place, tmp_path: Path) -> None:
        run_section("lm-evaluation-harness", place, tmp_path)
        (results,) = tmp_path.glob("results/*/results_*.json")
        score = json.loads(results.read_text("utf-8"))["results"]["puzzles"]["exact_match,last-number"]
        (samples,) = tmp_path.glob("results/*/samples_puzzles_*.jsonl")
        rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
        assert len(rows) == QUESTIONS
        assert all(isinstance(row["resps"][0][0], str) for row in rows)
        if place.right is not None:
            assert score == pytest.approx(place.right / QUESTIONS)

    def test_inspect_ai(self, place: Place, tmp_path: Path) -> None:
        run_section("inspect-ai", place, tmp_path)
        logs = [json.loads(path.read_text("utf-8")) for path in tmp_path.glob("logs/*.json")]
        assert len(logs) == 2  # one of each interface
        for log in logs:
            assert log["status"] == "success", log.get("error")
            assert len(log["samples"]) == QUESTIONS
            for sample in log["samples"]:
                assert "reasoning" in kinds(sample["output"]["choices"][0]["message"])
            if place.right is not None:
                (metrics,) = (score["metrics"] for score in log["results"]["scores"])
                assert metrics["accuracy"]["value"] == pytest.approx(place.right / QUESTIONS)

    def test_lighteval(self, place: Place, tmp_path: Path) -> None:
        run_section("lighteval", place, tmp_path)
        (results,) = tmp_path.glob("results/results/**/results_*.json")
        score = json.loads(results.read_text("utf-8"))["results"]["puzzles|0"]["extractive_match"]
        (details,) = tmp_path.glob("results/details/**/*.parquet")
        answers = [row["model_response"] for row in pq.read_table(details).to_pylist()]
        assert len(answers) == QUESTIONS
        for answer in answers:
            assert answer["reasonings"][0]
            assert answer["reasonings"][0] not in answer["text"][0]
        if place.right is not None:
            assert score == pytest.approx(place.right / QUESTIONS)


def kinds(message: dict[str, Any]) -> set[str]:
    """The kinds of content that a message of inspect-ai has."""
    content = message["content"]
    return {part["type"] for part in content} if isinstance(content, list) else {"text"}
