import pytest

from inftythink.grade import last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"The answer is \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{ 2 }", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{a}", "a"),
        (r"\boxed{open", None),
        ("no box", None),
        ("", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_whole_box_counts(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer
