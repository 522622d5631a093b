"""Training instances of one summarised trace, formed by the protocol's own machine.

The teacher's segments and summaries are fed to the machine as if a model had said them; what does not end ANSWERED, or
does not read back word for word, is rejected. So a training prompt is the prompt that inference will give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from inftythink.data.read import Reject
from inftythink.protocol import (
    Completion,
    Done,
    Exchange,
    Format,
    Machine,
    Outcome,
    Policy,
    Problem,
    Stop,
    Trajectory,
    exchanges,
    make_carry,
)
from inftythink.render import Renderer

Split = Literal["train", "validation"]


def teach(
    problem: Problem, segments: Sequence[str], summaries: Sequence[str], conclusion: str, fmt: Format
) -> Trajectory | Reject:
    """Drive the machine with a teacher's rounds: ``n`` segments, ``n - 1`` summaries and the conclusion.

    White space around segments is dropped: it stood between thoughts, and nothing stands there now.
    """
    thoughts = [segment.strip() for segment in segments]
    if len(summaries) != len(thoughts) - 1:
        detail = f"{len(thoughts)} segments need {len(thoughts) - 1} summaries, not {len(summaries)}"
        return Reject(problem.id, "form", "summaries_missing", detail)
    policy = Policy(phi=len(thoughts), on_cut="stop", on_limit="stop")
    machine = Machine(problem, fmt, make_carry("summary", policy), policy)
    for thought, summary in zip(thoughts, [*summaries, None], strict=True):
        if isinstance(machine.next(), Done):
            break
        machine.receive(Completion(fmt.write(thought, summary=summary, conclusion=conclusion), Stop.STOP))
    done = machine.next()
    if not isinstance(done, Done):
        return Reject(problem.id, "form", "not_concluded", "the conclusion was read as a summary")
    trajectory = done.trajectory
    if trajectory.outcome is not Outcome.ANSWERED:
        return Reject(problem.id, "form", trajectory.outcome.value, trajectory.reason or "")
    read = [(r.thought, r.summary) for r in trajectory.rounds]
    meant = list(zip(thoughts, [*(summary.strip() for summary in summaries), None], strict=True))
    if read != meant or trajectory.conclusion != conclusion.strip():
        return Reject(problem.id, "form", "not_read_back", "what the machine read is not what the teacher wrote")
    return trajectory


def instances(trajectory: Trajectory, fmt: Format, renderer: Renderer) -> list[dict[str, Any]]:
    """Return a trajectory's training rows: one a round, in the columns of ``instances/*.parquet``."""
    rows = list(exchanges(trajectory, fmt, make_carry("summary", Policy())))
    problem, history = trajectory.problem, None
    made = []
    for this, row in zip(trajectory.rounds, rows, strict=True):
        rendered = renderer.instance(row)
        made.append(
            {
                "id": problem.id,
                "round": this.k,
                "rounds": len(rows),
                "prompt": rendered.prompt_text,
                "completion": rendered.completion_text,
                "messages": messages(row),
                "prompt_tokens": len(rendered.prompt_ids),
                "completion_tokens": len(rendered.completion_ids),
                "problem": problem.question,
                "answer": problem.answer,
                "history": history,
                "thought": this.thought,
                "summary": this.summary,
                "conclusion": trajectory.conclusion if this.summary is None else None,
            }
        )
        history = this.summary
    return made


def messages(row: Exchange) -> list[dict[str, str]]:
    """Return a row as a conversation: the turns, then all of the assistant's, history and thought included.

    For trainers that read nothing else. A loss on the whole last message also falls on the history, which the model is
    given and need not learn; ``prompt`` and ``completion`` draw the line where it belongs.
    """
    turns = [{"role": turn.role, "content": turn.text} for turn in row.prompt.turns]
    begun = "".join(part.text for part in row.prompt.prefill)
    written = "".join(target.part.text for target in row.target)
    return [*turns, {"role": "assistant", "content": begun + written}]


def split_of(question: str, validation: float, seed: int) -> Split:
    """Return the split of a question: by its text, so that all its traces and rounds fall on one side.

    ``validation`` is the share of questions in [0, 1] that goes there.
    """
    text = " ".join(question.split()).casefold()
    digest = hashlib.blake2b(f"{seed}/{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest, "big") < validation * 2**64 else "train"
