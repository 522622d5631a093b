"""Prompts in plain language: for chat models that never saw the format, and for whoever writes summaries.

The summariser of data conversion and the second call of ``two_call`` are the same request, written here once. It is the
multi-turn prompt of InftyThink+ (section 4.1): question, previous summary, "continue", segment, "summarise".
"""

from __future__ import annotations

from inftythink.protocol.format import content
from inftythink.protocol.types import Problem, Prompt, Turn

CONTINUE = "Continue your reasoning from this summary."

SUMMARISE = (
    "Your reasoning so far will now be discarded; only the summary you write next will be kept. Write it so that the "
    "problem can be finished from the problem statement and this summary alone. List the key steps that were taken, "
    "every intermediate result with its value, what was tried and ruled out, and what remains to be done. Use only "
    "what stands in the reasoning above: add no new step, and do not solve what is still open. Keep what is still "
    "needed of the previous summary. At most {words} words. Write the summary only, without a heading or a preface."
)

PROGRESS = (
    "\n\n---\nNotes from your earlier work on this problem (trust them, do not repeat that work):\n\n{summary}\n\n---\n"
    "Continue from these notes. When you have the solution, state the final answer clearly and stop."
)

ANSWER = "Stop reasoning now. State your final answer to the problem, based on the work so far, and nothing else."


def _turn(role: str, text: str) -> Turn:
    return Turn("assistant" if role == "assistant" else "user", (content(text),))


def summarise(
    turns: tuple[Turn, ...], previous: str | None, segment: str, gamma: int, feedback: str | None = None
) -> Prompt:
    """Ask for the summary of ``segment`` in the light of ``previous``: all that the next round will see.

    ``turns`` is the conversation up to the question. ``gamma`` tokens are told to the model as about 0.7 words a
    token. ``feedback`` (a judge's) is added when an earlier attempt was not good enough.
    """
    before = () if previous is None else (_turn("assistant", previous), _turn("user", CONTINUE))
    request = SUMMARISE.format(words=max(1, int(gamma * 0.7)))
    if feedback:
        request += f"\n\nAn earlier attempt was rejected. What a reviewer said of it: {feedback}"
    return Prompt((*turns, *before, _turn("assistant", segment), _turn("user", request)))


def proceed(problem_turns: tuple[Turn, ...], summary: str | None) -> Prompt:
    """Ask for (more) reasoning: the question, and the notes of the rounds before if there are any."""
    if summary is None:
        return Prompt(problem_turns)
    *before, question = problem_turns
    return Prompt((*before, Turn("user", (*question.parts, content(PROGRESS.format(summary=summary))))))


def answer_now(prompt: Prompt, thought: str) -> Prompt:
    """Ask for the answer after ``thought``, the unfinished reply to ``prompt``."""
    reply = (_turn("assistant", thought),) if thought else ()
    if not reply:
        *before, question = prompt.turns
        return Prompt((*before, Turn("user", (*question.parts, content(f"\n\n{ANSWER}")))))
    return Prompt((*prompt.turns, *reply, _turn("user", ANSWER)))


def question_only(problem: Problem) -> tuple[Turn, ...]:
    """Return the conversation up to the question, nothing added: what a summariser of data is shown."""
    turns = tuple(Turn(role, (content(text),)) for role, text in problem.context)
    return (*turns, _turn("user", problem.question))
