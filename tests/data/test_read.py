"""Rows from every kind of file, and traces from every layout and every kind of irregular text."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.data.read import Reject, Row, Trace, read_files, read_hub, to_trace
from inftythink.errors import InputError, UsageError

QUESTION = "How many sides has a square?"
THOUGHT = "A square is a quadrilateral.\n\nSo it has four sides."
CONCLUSION = "It has \\boxed{4} sides."
WHOLE = f"<think>\n{THOUGHT}\n</think>\n\n{CONCLUSION}"


def messages(assistant, **extra):
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": assistant, **extra}]
    return {"id": "q1", "messages": turns}


def lines(path: Path, rows) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# Layouts


def conversations(assistant):
    return {
        "uuid": "q1",
        "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": assistant}],
    }


SOLUTION = f"<|begin_of_solution|>\n{CONCLUSION}\n<|end_of_solution|>"
LAYOUTS = {
    "openr1": messages(WHOLE),
    "messages as JSON text": messages(WHOLE) | {"messages": json.dumps(messages(WHOLE)["messages"])},
    "openthoughts tags": conversations(WHOLE),
    "openthoughts markers": conversations(f"<|begin_of_thought|>\n\n{THOUGHT}\n\n<|end_of_thought|>\n\n{SOLUTION}"),
    "reasoning_content": messages(CONCLUSION, reasoning_content=THOUGHT),
    "reasoning": messages(CONCLUSION, reasoning=f"{THOUGHT}\n"),
    "thinking part": messages([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": CONCLUSION}]),
    "question reasoning answer": {"id": "q1", "question": QUESTION, "reasoning": THOUGHT, "answer": CONCLUSION},
    "problem thinking solution": {"id": "q1", "problem": QUESTION, "thinking": THOUGHT, "solution": CONCLUSION},
    "prompt cot response": {"id": "q1", "prompt": QUESTION, "cot": WHOLE.split("\n\nIt")[0], "response": CONCLUSION},
    "instruction output": {"id": "q1", "instruction": QUESTION, "output": WHOLE},
    "deepseek columns": {
        "id": "q1",
        "problem": QUESTION,
        "solution": "by another author",
        "deepseek_reasoning": THOUGHT,
        "deepseek_attempt": CONCLUSION,
    },
    "turns and a column": messages(CONCLUSION) | {"thinking": THOUGHT},
}


@pytest.mark.parametrize("row", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_is_recognised(row):
    trace = to_trace(row)
    assert isinstance(trace, Trace), trace
    assert (trace.id, trace.problem, trace.reasoning, trace.conclusion) == ("q1", QUESTION, THOUGHT, CONCLUSION)


def test_answer_and_source_are_kept():
    trace = to_trace(Row("f:1", messages(WHOLE) | {"answer": 4, "source": "here"}))
    assert (trace.answer, trace.source) == ("4", "here")
    assert to_trace(Row("f:1", messages(WHOLE) | {"answer": ""})).answer is None
    assert to_trace(Row("f:1", messages(WHOLE))).source == "f:1"


def test_context_is_kept_without_earlier_thoughts():
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>A greeting.</think>\n\nHello."},
        *messages(WHOLE)["messages"],
    ]
    trace = to_trace({"messages": turns})
    assert trace.context == (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."))
    assert trace.problem == QUESTION


def test_mapping_wins_over_detection():
    row = {"key": 7, "q": QUESTION, "t": THOUGHT, "c": CONCLUSION, "a": "4", "question": "another", "solution": "no"}
    mapping = {"problem": "q", "reasoning": "t", "conclusion": "c", "answer": "a", "id": "key"}
    assert to_trace(row, mapping=mapping) == Trace("7", QUESTION, THOUGHT, CONCLUSION, "4")


def test_mapping_to_an_absent_column_is_an_error():
    with pytest.raises(InputError, match=r"f:3: no column nope as named by --map; there are: id, messages"):
        to_trace(Row("f:3", messages(WHOLE)), mapping={"reasoning": "nope"})
    with pytest.raises(InputError, match="not reason"):
        to_trace(messages(WHOLE), mapping={"reason": "messages"})


def test_ids_without_a_column_are_stable_and_tell_contents_apart():
    row = {"question": QUESTION, "reasoning": THOUGHT, "answer": CONCLUSION}
    assert to_trace(Row("a:1", row)).id == to_trace(Row("b:9", row)).id
    assert to_trace(row).id != to_trace(row | {"reasoning": "Another."}).id


# Irregular texts

PROMPT = f"Answer the following question.\n{QUESTION}\n"
HARMONY = (
    f"<|start|>system<|message|>You are helpful.<|end|><|start|>user<|message|>{QUESTION}<|end|>"
    f"<|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|>"
)
READ = {
    "deepseek template": f"<｜User｜>{PROMPT}<｜Assistant｜>{WHOLE}<｜end▁of▁sentence｜>",
    "chatml": (
        f"<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        f"<|im_start|>assistant\n{WHOLE}<|im_end|>"
    ),
    "llama": (
        f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n{WHOLE}<|eot_id|>"
    ),
    "harmony": f"{HARMONY}<|start|>assistant<|channel|>final<|message|>{CONCLUSION}<|return|>",
    "harmony in two messages": (
        "<|channel|>analysis<|message|>A square is a quadrilateral.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>So it has four sides.<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{CONCLUSION}"
    ),
    "no opening tag": f"{THOUGHT}\n</think>\n\n{CONCLUSION}",
    "glued tags": f"<think>{THOUGHT}</think>{CONCLUSION}",
    "opening tag, then a space": f"<think> {THOUGHT} </think> {CONCLUSION}",
    "s1 words": f"think\n{THOUGHT}\nanswer\n{CONCLUSION}",
    "s1 tokens": f"<|im_start|>think\n{THOUGHT}\n<|im_start|>answer\n{CONCLUSION}<|im_end|>",
    "prompt in text": f"{PROMPT}\n{WHOLE}",
    "CR LF": WHOLE.replace("\n", "\r\n"),
    "answer tags": f"<think>{THOUGHT}</think>\n<answer> {CONCLUSION} </answer>",
    "other tags": f"<thinking>{THOUGHT}</thinking>\n{CONCLUSION}",
}


@pytest.mark.parametrize("text", READ.values(), ids=READ.keys())
def test_irregular_text_is_read_right(text):
    trace = to_trace(messages(text))
    assert isinstance(trace, Trace), trace
    assert (trace.reasoning, trace.conclusion) == (THOUGHT, CONCLUSION)


REFUSED = {
    "no_closing_tag": f"<think>\n{THOUGHT}",
    "no_think_tags": f"{THOUGHT}\n\n{CONCLUSION}",
    "several_think_tags": f"<think>{THOUGHT}</think> a <think>b</think> {CONCLUSION}",
    "tags_out_of_order": f"{THOUGHT}</think>\n<think>{CONCLUSION}",
    "text_before_thought": f"Sure, let me see.\n{WHOLE}",
    "empty_reasoning": f"<think>\n\n</think>\n\n{CONCLUSION}",
    "empty_conclusion": f"<think>\n{THOUGHT}\n</think>\n",
    "unclosed_answer_tag": f"<think>{THOUGHT}</think>\n<answer>Here are the",
    "no_final_channel": HARMONY,
    "no_answer_line": f"think\n{THOUGHT}",
    "several_answer_lines": f"think\n{THOUGHT}\nanswer\n{CONCLUSION}\nanswer\nNo.",
    "api_error": "Error after 6 attempts: Error code: 500 - {'error': {'message': 'Internal Server Error'}}",
    "invalid_unicode": WHOLE + "\ud83d",
}


@pytest.mark.parametrize(("reason", "text"), REFUSED.items(), ids=REFUSED.keys())
def test_irregular_text_is_refused_with_its_reason(reason, text):
    reject = to_trace(Row("f:5", messages(text)))
    assert isinstance(reject, Reject)
    assert (reject.id, reject.stage, reject.reason) == ("q1", "read", reason)
    assert reject.detail.startswith("f:5: ")


ROWS = {
    "unknown_layout": {"foo": "a", "bar": "b"},
    "no_assistant_turn": {"messages": [{"role": "user", "content": QUESTION}]},
    "no_user_turn": {"messages": [{"role": "assistant", "content": WHOLE}]},
    "several_assistant_turns": {"messages": [*messages(WHOLE)["messages"], {"role": "assistant", "content": WHOLE}]},
    "unknown_role": {"messages": [{"role": "tool", "content": "x"}]},
    "empty_problem": {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": WHOLE}]},
    "two_thoughts": messages(WHOLE, reasoning_content="Another."),
}


@pytest.mark.parametrize(("reason", "row"), ROWS.items(), ids=ROWS.keys())
def test_unreadable_row_is_refused_with_its_reason(reason, row):
    reject = to_trace(row)
    assert isinstance(reject, Reject)
    assert reject.reason == reason
    assert reject.id


def test_unknown_layout_lists_the_columns():
    assert "foo, bar" in to_trace({"foo": "a", "bar": "b"}).detail


WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: text.strip() and "\r" not in text and not any(mark in text for mark in "<[`")
)


@given(WORD, WORD)
def test_nothing_but_white_space_at_the_tags_is_lost(thought, conclusion):
    trace = to_trace(messages(f"<think>\n{thought}\n</think>\n\n{conclusion}"))
    assert (trace.reasoning, trace.conclusion) == (thought.strip(), conclusion.strip())


# Files

ROW = messages(WHOLE)


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "jsonl.gz", "parquet", "parquet.gz"])
def test_every_kind_of_file_is_read(tmp_path, ending):
    rows, path = [ROW | {"id": str(i)} for i in range(150)], tmp_path / f"t.{ending}"
    if "parquet" in ending:
        plain = tmp_path / "plain"
        pq.write_table(pa.Table.from_pylist(rows), plain, compression="zstd")
        path.write_bytes(gzip.compress(plain.read_bytes()) if ending.endswith("gz") else plain.read_bytes())
    else:
        lines(path, rows)
    read = list(read_files(path))
    assert [row.data for row in read] == rows
    assert read[2].place == f"{path}:3"
    assert isinstance(to_trace(read[0]), Trace)


def test_broken_line_is_a_reject_that_names_its_place(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": \n\n[1]\n\xff\n' + b"[" * 100_000 + b"\n" + b'{"a": 2}')
    read = list(read_files(path))
    assert [row.reason if isinstance(row, Reject) else row.data["a"] for row in read] == [
        *(1, "broken_json", "not_an_object", "broken_json", "broken_json", 2)
    ]
    assert read[1].id == f"{path}:2"
    assert f"{path}:2" in read[1].detail


def test_folder_is_read_whole_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    lines(tmp_path / "b" / "2.jsonl.gz", [{"n": 2}])
    lines(tmp_path / "a.jsonl", [{"n": 0}, {"n": 1}])
    (tmp_path / "README.md").write_text("no data")
    lines(tmp_path / ".hidden.jsonl", [{"n": 9}])
    assert [row.data["n"] for row in read_files(tmp_path)] == [0, 1, 2]


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=3), world=st.integers(1, 5))
def test_shards_are_disjoint_and_make_up_everything(tmp_path_factory, counts, world):
    folder = tmp_path_factory.mktemp("shards")
    for name, count in enumerate(counts):
        rows = [{"n": f"{name}/{i}"} for i in range(count)]
        lines(folder / f"{name}.jsonl", rows)
        if rows:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    whole = [row.place for row in read_files(folder)]
    shards = [[row.place for row in read_files(folder, shard=(rank, world))] for rank in range(world)]
    shutil.rmtree(folder)
    assert sorted(place for shard in shards for place in shard) == sorted(whole)
    assert len(set(whole)) == len(whole) == sum(2 * count for count in counts)
    files = {place.partition(":")[0] for place in whole}
    if len(files) < world:
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_files_are_read_whole_where_shares_are_even(tmp_path):
    for name in range(6):
        lines(tmp_path / f"{name}.jsonl", [{"n": name * 10 + i} for i in range(10)])
    shards = [[row.place for row in read_files(tmp_path, shard=(rank, 3))] for rank in range(3)]
    files = [{place.partition(":")[0] for place in shard} for shard in shards]
    assert [len(each) for each in files] == [2, 2, 2]
    assert len(set.union(*files)) == 6
    # One file of six is too large for that: its rows are dealt out.
    lines(tmp_path / "0.jsonl", [{"n": i} for i in range(100)])
    shards = [[row.place for row in read_files(tmp_path, shard=(rank, 3))] for rank in range(3)]
    assert [len(shard) for shard in shards] == [50, 50, 50]
    assert all(len({place.partition(":")[0] for place in shard}) == 6 for shard in shards)


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_files(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="has no file that ends in"):
        read_files(tmp_path)
    (tmp_path / "t.csv").write_text("a,b")
    with pytest.raises(InputError, match=r"unknown kind of file.*\.jsonl"):
        read_files(tmp_path / "t.csv")
    (tmp_path / "array.json").write_text('[{"a": 1}]')
    with pytest.raises(InputError, match="jq"):
        list(read_files(tmp_path / "array.json"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 999)[:-20])
    with pytest.raises(InputError, match=r"cut.jsonl.gz: cannot be read to its end"):
        list(read_files(tmp_path / "cut.jsonl.gz"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        list(read_files(tmp_path / "t.parquet"))
    with pytest.raises(UsageError, match="shard 2 of 2"):
        read_files(tmp_path, shard=(2, 2))


def test_hugging_face_data_set_is_streamed(tmp_path):
    lines(tmp_path / "train.jsonl", [ROW | {"id": str(i)} for i in range(5)])
    rows = list(read_hub(str(tmp_path), shard=(1, 2)))
    assert [(row.data["id"], row.place) for row in rows] == [("1", f"{tmp_path}:2"), ("3", f"{tmp_path}:4")]
    assert isinstance(to_trace(rows[0]), Trace)
    with pytest.raises(InputError, match="Check its name, split and config"):
        list(read_hub(str(tmp_path), split="nope"))
