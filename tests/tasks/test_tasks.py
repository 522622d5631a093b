"""Tasks on the layouts in which their data is published. The questions are invented; none is of the data sets."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inftythink.errors import InputError, UsageError
from inftythink.tasks import laboratory
from inftythink.tasks.base import Item, TaskSettings
from inftythink.tasks.options import shuffled
from inftythink.tasks.prompts import CODE, LOGIC, MATHEMATICS, PRESETS, SCIENCE, preset
from inftythink.tasks.puzzle import families, held_out_question
from inftythink.tasks.registry import load_task, task_names

BOX = MATHEMATICS.instruction
GPQA = {
    "Record ID": "rec1",
    "Question": "Which gas do plants take up?",
    "Correct Answer": "carbon dioxide\n",
    "Incorrect Answer 1": "helium",
    "Incorrect Answer 2": "argon ",
    "Incorrect Answer 3": "neon",
    "High-level domain": "Biology",
    "Subdomain": "Botany",
}
HUMANEVAL = {
    "task_id": "Test/0",
    "prompt": 'def double(n):\n    """Return twice n."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n",
}
MBPP = {
    "task_id": 11,
    "prompt": "Write a function to halve a number.",
    "code": "def halve(n):\r\n    return math.floor(n / 2)",
    "test_imports": ["import math"],
    "test_list": ["assert halve(4) == 2", "assert halve(math.floor(3.5)) == 1"],
}

PUBLISHED = [
    # task, a row as it is published, question, answer, id, group
    (
        "math500",
        {"problem": "1 + 1?", "solution": "So \\boxed{2}.", "answer": "2", "subject": "Algebra", "level": 2}
        | {"unique_id": "test/algebra/1.json"},
        ("1 + 1?", "2", "test/algebra/1.json", "Algebra"),
    ),
    ("math500", {"problem": "1 + 1?", "solution": "So \\boxed{2}."}, ("1 + 1?", "2", "1", "")),
    (
        "aime24",
        {
            "id": 60,
            "problem": "20 + 5?",
            "solution": "It is \\boxed{025}.",
            "answer": "025",
            "url": "u",
            "year": "2024",
        },
        ("20 + 5?", "25", "60", ""),
    ),
    (
        "aime24",
        {"ID": "2024-II-4", "Problem": "30 + 3?", "Solution": "33.", "Answer": 33},
        ("30 + 3?", "33", "2024-II-4", ""),
    ),
    ("aime25", {"problem": "60 + 10?", "answer": "70", "id": "0"}, ("60 + 10?", "70", "0", "")),
    ("aime25", {"question": "An angle?", "answer": "336^\\circ"}, ("An angle?", "336", "1", "")),
    ("aime25", {"problem_idx": 3, "problem": "0?", "answer": 0}, ("0?", "0", "3", "")),
    ("amc23", {"id": 0, "question": " 20 + 7? ", "answer": 27.0, "url": "u"}, ("20 + 7?", "27", "0", "")),
    (
        "gsm8k",
        {"question": "A thousand and ten?", "answer": "1000 + 10 = <<1000+10=1010>>1010\n#### 1,010"},
        ("A thousand and ten?", "1010", "1", ""),
    ),
    ("gsm8k", {"id": "g", "problem": "Five?", "answer": "5", "solution": "#### 5"}, ("Five?", "5", "g", "")),
]


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def items(tmp_path, task, *rows, **settings) -> list[Item]:
    return load_task(task).items(TaskSettings(data=write(tmp_path / "data.jsonl", *rows), **settings))


def right(item: Item) -> bool | None:
    """The verdict on the reference as a good reply would state it."""
    answer = item.problem.answer
    fence = item.grader.__name__ == "grade_code"
    return item.grader(item.ask(f"Done.\n```python\n{answer}\n```" if fence else f"It is \\boxed{{{answer}}}.")).correct


@pytest.mark.parametrize(("task", "row", "read"), PUBLISHED)
def test_published_columns_are_read(tmp_path, task, row, read):
    [item] = items(tmp_path, task, row)
    question, answer, name, group = read
    assert (item.problem.question, item.problem.answer) == (f"{question}\n\n{BOX}", answer)
    assert (item.problem.id, item.group) == (name, group)
    assert right(item) is True
    assert item.grader(item.ask(r"\boxed{-1}")).correct is False
    assert item.grader(item.ask(None)).correct is False


@pytest.mark.parametrize(
    ("task", "row", "said"),
    [
        ("math500", {"text": "1?", "answer": "1"}, "no problem: none of the columns problem, question"),
        ("math500", {"text": "1?", "answer": "1"}, "there are: text, answer"),
        ("math500", {"problem": " ", "answer": "1"}, "column 'problem' is empty"),
        ("math500", {"problem": "1?"}, "no answer: none of the columns answer"),
        ("math500", {"problem": "1?", "solution": "Well, 1."}, "no \\boxed{} in the solution"),
        ("math500", {"problem": ["1?", "2?"], "answer": "1"}, "column 'problem' holds list"),
        ("math500", {"problem": "1?", "answer": True}, "column 'answer' holds bool"),
        ("math500", {"problem": "\ud800", "answer": "1"}, "column 'problem' holds half a surrogate pair"),
        ("aime24", {"problem": "1?", "answer": "one"}, "the answer 'one' is no whole number"),
        ("gsm8k", {"question": "1?", "answer": "1 ####"}, "nothing stands behind ####"),
        ("gpqa_diamond", {key: GPQA[key] for key in GPQA if key != "Incorrect Answer 2"}, "no wrong option"),
        ("code", {"prompt": "def f():"}, "no name of the function: none of the columns entry_point"),
        ("code", HUMANEVAL | {"test": None}, "column 'test' is empty"),
        ("code", MBPP | {"test_list": []}, "column 'test_list' is empty"),
        ("jsonl", {"problem": "1?", "answer": "1", "grader": "guess"}, "there is no grader 'guess' here"),
        ("jsonl", {"problem": "1?", "answer": "C", "options": ["a", "b"]}, "neither the letter nor the text"),
        ("jsonl", {"problem": "1?", "answer": "A", "options": ["B", "A"]}, "names several options"),
        ("jsonl", {"problem": "1?", "answer": "A", "options": "a, b"}, "column 'options' holds str"),
        ("jsonl", {"problem": "1?", "answer": "1", "tolerance": "much"}, "is to be a number from 0 on, not 'much'"),
        ("jsonl", {"problem": "1?", "answer": "1", "relative": -1}, "column 'relative' is to be a number from 0"),
        ("jsonl", {"messages": [], "answer": "1"}, "messages are to be a list of turns"),
        ("jsonl", {"messages": [{"role": "tool", "content": "x"}], "answer": "1"}, "a turn is to have a role"),
        ("jsonl", {"messages": [{"role": "assistant", "content": "x"}], "answer": "1"}, "is the assistant's"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_file_line_and_columns(tmp_path, task, row, said):
    path = tmp_path / "data.jsonl"
    good = {"code": HUMANEVAL, "gpqa_diamond": GPQA}.get(task, {"problem": "1?", "answer": "1", "id": "good"})
    with pytest.raises(InputError) as error:
        items(tmp_path, task, good, row)
    assert str(error.value).startswith(f"{path}:2: ")
    assert said in str(error.value)


def test_an_error_shows_no_question_of_gpqa(tmp_path):
    for column in ("Question", "Correct Answer", "Incorrect Answer 3"):
        with pytest.raises(InputError) as error:
            items(
                tmp_path, "gpqa_diamond", GPQA, {key: value for key, value in GPQA.items() if key != column} | {"x": 1}
            )
        assert not any(text in str(error.value) for text in ("gas", "helium", "argon", "neon", "dioxide"))


def test_an_id_that_comes_twice_and_a_file_without_problems_are_errors(tmp_path):
    row = {"id": "a", "problem": "1?", "answer": "1"}
    with pytest.raises(InputError, match=r"data.jsonl:3: the id 'a' stands at .*data.jsonl:1 already"):
        items(tmp_path, "jsonl", row, row | {"id": "b"}, row)
    with pytest.raises(InputError, match="there is no problem in it"):
        items(tmp_path, "jsonl")


def test_the_limit_takes_the_first(tmp_path):
    rows = [{"id": n, "problem": f"{n}?", "answer": n} for n in range(5)]
    assert [item.problem.id for item in items(tmp_path, "jsonl", *rows, limit=2)] == ["0", "1"]
    assert len(items(tmp_path, "jsonl", *rows, limit=9)) == 5
    with pytest.raises(UsageError, match="--limit 0"):
        items(tmp_path, "jsonl", *rows, limit=0)


def test_results_may_be_broken_down_by_another_column(tmp_path):
    row = {"problem": "1?", "answer": "1", "subject": "Algebra", "level": 3}
    assert items(tmp_path, "math500", row)[0].group == "Algebra"
    assert items(tmp_path, "math500", row, group="level")[0].group == "3"
    with pytest.raises(InputError, match="no group: none of the columns year"):
        items(tmp_path, "math500", row, group="year")


def test_data_survives_json(tmp_path):
    found = [
        *items(tmp_path, "gpqa_diamond", GPQA),
        *items(tmp_path, "code", HUMANEVAL, MBPP),
        *load_task("puzzles").items(TaskSettings(problems=3)),
    ]
    assert all(json.loads(json.dumps(item.data)) == item.data for item in found)


# Multiple choice


def test_gpqa_shuffles_the_options_of_each_question_by_itself(tmp_path):
    rows = [GPQA | {"Record ID": f"rec{n}"} for n in range(40)]
    found = items(tmp_path, "gpqa_diamond", *rows)
    turned = {item.problem.id: item for item in items(tmp_path, "gpqa_diamond", *reversed(rows), limit=7)}
    assert all(turned[item.problem.id] == item for item in found if item.problem.id in turned)
    assert {item.problem.answer for item in found} == set("ABCD")
    assert items(tmp_path, "gpqa_diamond", *rows, seed=1) != found
    for item in found:
        letter = item.problem.answer
        assert f"\n{letter}) carbon dioxide\n" in f"{item.problem.question}\n"
        assert sorted(item.data["options"]) == ["argon", "carbon dioxide", "helium", "neon"]
        assert item.problem.question.endswith(SCIENCE.instruction)
        verdicts = {other: item.grader(item.ask(f"\\boxed{{{other}}}")).correct for other in "ABCD"}
        assert verdicts == {other: other == letter for other in "ABCD"}
    assert found[0].group == "Biology"


@given(st.integers(0, 10), st.integers(), st.text(max_size=5))
def test_an_order_is_a_permutation_that_depends_on_seed_and_id_only(number, seed, id):
    order = shuffled(number, seed, id)
    assert sorted(order) == list(range(number))
    random.seed(number)  # the order does not come from the shared source of randomness
    assert shuffled(number, seed, id) == order


def test_orders_are_even():
    places = [shuffled(4, 0, f"q{n}").index(0) for n in range(4000)]
    assert all(900 < places.count(place) < 1100 for place in range(4))


def test_options_of_a_file_stay_in_their_order_and_the_answer_is_a_letter_or_a_text(tmp_path):
    row = {"problem": "Which is a prime?", "options": ["4", "5", "6"]}
    for answer in ("B", "b", "5", 5):
        [item] = items(tmp_path, "jsonl", row | {"answer": answer})
        assert item.problem.question == f"Which is a prime?\n\nA) 4\nB) 5\nC) 6\n\n{SCIENCE.instruction}"
        assert item.problem.answer == "B"
        assert right(item) is True
        assert item.grader(item.ask(r"\boxed{C}")).correct is False


# A file of one's own


def test_graders_and_prompts_of_a_file(tmp_path):
    rows = [
        {"id": 1, "problem": "One half?", "answer": "\\frac12"},
        {"id": 2, "problem": "Who?", "answer": "Ada", "grader": "exact"},
        {"id": 3, "problem": "How long?", "answer": "3.14", "grader": "numeric", "tolerance": 0.01},
        {"id": 4, "problem": "Which?", "options": ["x", "y"], "answer": "A"},
        {"id": 5, "solution": "So \\boxed{7}.", "prompt": "Seven?"},
    ]
    found = items(tmp_path, "jsonl", *rows)
    assert [item.grader.__name__.removeprefix("grade_") for item in found] == [
        *("math", "exact", "numeric", "choice", "math")
    ]
    assert [item.problem.question.rpartition("\n\n")[2] for item in found] == [
        *(MATHEMATICS.instruction, LOGIC.instruction, MATHEMATICS.instruction, SCIENCE.instruction, BOX)
    ]
    assert all(right(item) for item in found)
    assert found[0].grader(found[0].ask(r"It is \boxed{0.5}")).correct is True
    assert found[2].data["tolerance"] == 0.01
    plain = items(tmp_path, "jsonl", rows[1], prompt="plain")
    assert plain[0].problem.question == "Who?"
    assert plain[0].grader is found[1].grader
    logic = items(tmp_path, "jsonl", rows[0], prompt="logic")
    assert logic[0].grader is found[1].grader
    with pytest.raises(UsageError, match="--task code"):
        items(tmp_path, "jsonl", rows[0], prompt="code")


def test_turns_before_the_question_become_its_context(tmp_path):
    turns = [("user", "Hello"), ("assistant", "Hi"), ("user", "What is 1 + 1?")]
    messages = [{"role": role, "content": text} for role, text in turns]
    [item] = items(tmp_path, "jsonl", {"messages": messages, "answer": "2"}, prompt="tutoring")
    assert item.problem.question == "What is 1 + 1?"
    assert item.problem.context == (("system", preset("tutoring").system), *turns[:2])
    own = [{"role": "system", "content": "Be brief."}, *messages]
    [item] = items(tmp_path, "jsonl", {"messages": own, "answer": "2"}, prompt="tutoring")
    assert item.problem.context == (("system", "Be brief."), *turns[:2])
    [item] = items(tmp_path, "jsonl", {"problem": "1?", "system": "Be brief.", "answer": "1"})
    assert item.problem.context == (("system", "Be brief."),)


# Code


def test_humaneval_and_mbpp_are_read_asked_and_graded(tmp_path):
    function, program = items(tmp_path, "code", HUMANEVAL, MBPP)
    assert "```python\ndef double(n):" in function.problem.question
    assert "assert halve(4) == 2" in program.problem.question
    assert function.problem.question.endswith(CODE.instruction)
    assert (function.problem.id, program.problem.id) == ("Test/0", "11")
    for item in (function, program):
        assert right(item) is True
        assert item.grader(item.ask("```python\ndef double(n): return 3\nhalve = double\n```")).correct is False
        assert item.grader(item.ask("I do not know.")).correct is False


# The laboratory


@pytest.mark.parametrize("name", ["collatz", "colouring", "automaton", "puzzles"])
def test_puzzles_are_new_held_out_of_the_length_asked_for_and_solved_by_their_reference(name):
    found = load_task(name).items(TaskSettings(problems=12, lines=(8, 30), seed=3))
    assert len({item.problem.question for item in found}) == 12
    for item in found:
        [puzzle] = [puzzle for family in families() if (puzzle := family.solve(item.problem.question))]
        assert held_out_question(item.problem.question)
        assert 8 <= len(puzzle.lines) <= 30
        assert right(item) is True
        assert item.grader(item.ask(r"\boxed{x}")).correct is False
    assert {item.group for item in found} == ({name} if name != "puzzles" else {"collatz", "colouring", "automaton"})


def test_puzzles_depend_on_the_seed_and_not_on_how_many_are_drawn():
    task = load_task("puzzles")
    found = task.items(TaskSettings(problems=9))
    assert task.items(TaskSettings(problems=4)) == found[:4]
    assert task.items(TaskSettings(problems=9, limit=4)) == found[:4]
    assert task.items(TaskSettings(problems=9, seed=1)) != found


def test_a_puzzle_is_graded_by_its_question_whatever_stands_behind_it():
    [item] = load_task("collatz").items(TaskSettings(problems=1, prompt="mathematics"))
    assert item.problem.question.endswith(BOX)
    assert right(item) is True


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problems": 0}, "--problems 0"),
        ({"limit": 0}, "--limit 0"),
        ({"data": "x.jsonl"}, "leave --data out"),
        ({"lines": (9, 8)}, "--lines 9 8"),
        ({"lines": (1, 8)}, "--lines 1 8"),
        ({"lines": (900, 990)}, "--lines 900 990"),
    ],
)
def test_puzzles_that_cannot_be_drawn_are_a_usage_error(settings, said):
    with pytest.raises(UsageError, match=said):
        load_task("collatz").items(TaskSettings(**settings))


def test_when_no_new_question_is_found_an_error_says_how_many_were(monkeypatch):
    monkeypatch.setattr(laboratory, "_DRAWN", 3)
    with pytest.raises(UsageError, match=r"collatz: only \d+ held-out questions of 8 to 30 lines were found; ask for"):
        load_task("collatz").items(TaskSettings(problems=200, lines=(8, 30)))


# Names and presets


def test_tasks_are_found_by_name_and_a_wrong_name_is_met_with_close_ones():
    names = ["math500", "aime24", "aime25", "amc23", "gsm8k", "gpqa_diamond", "code", "humaneval", "mbpp"]
    names += ["collatz", "colouring", "automaton", "puzzles", "jsonl", "reasoning-gym:GENERATOR"]
    assert task_names() == names
    for name in names:
        assert load_task(name).name == name
        assert load_task(name).about
    for wrong, close in [("math-500", "math500"), ("aime", "aime2[45]"), ("GPQA", "gpqa_diamond"), ("x", "there are")]:
        with pytest.raises(UsageError, match=close):
            load_task(wrong)


def test_a_task_without_data_of_its_own_asks_for_it():
    for name in ("jsonl", "code"):
        with pytest.raises(UsageError, match="--data"):
            load_task(name).items(TaskSettings())


@pytest.mark.parametrize("name", [preset.name for preset in PRESETS])
def test_every_preset_puts_a_question_and_can_be_chosen_for_a_task(tmp_path, name):
    [item] = items(tmp_path, "math500", {"problem": "1 + 1?", "answer": "2"}, prompt=name)
    chosen = preset(name)
    assert item.problem.question.startswith("1 + 1?")
    assert item.problem.question.endswith(chosen.instruction)
    assert item.problem.context == ((("system", chosen.system),) if chosen.system else ())
    assert chosen.about


def test_an_unknown_preset_is_named():
    with pytest.raises(UsageError, match="no prompt 'poetry'; there are: mathematics, logic"):
        preset("poetry")
