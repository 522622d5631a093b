"""Pieces as the Responses interface has them: a reasoning item for each round, and the message. No I/O.

A round's item has the thought as its content and the summary that the model wrote as its summary. Streamed events
have OpenAI's names and a running ``sequence_number``; the whole answer is the response of the last one.
"""

from __future__ import annotations

from typing import Any

from inftythink.serve.chat import Guard
from inftythink.serve.fields import Refused
from inftythink.serve.told import Piece, StopCut, Teller, What
from inftythink.serve.wire import Asked


class ResponseWriter:
    """Writes one response: ``begin``, ``feed`` for each piece, then ``close`` or ``fail``; each returns events."""

    def __init__(self, asked: Asked, identity: str, created: int, model: str) -> None:
        self._asked, self._id = asked, identity
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._part: tuple[What, int] | None = None
        self._text: list[str] = []
        self._stop, self._guard = StopCut(asked.stop), Guard()
        self._shows = asked.reasoning != "none"
        self.response: dict[str, Any] = {
            "id": identity,
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": asked.policy.budget,
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.sampling.get("temperature"),
            "tool_choice": "none",
            "tools": [],
            "top_p": asked.sampling.get("top_p"),
            "truncation": "disabled",
            "usage": None,
        }

    def begin(self) -> list[dict[str, Any]]:
        """Return the events before any text."""
        return [self._event(f"response.{name}", response=dict(self.response)) for name in ("created", "in_progress")]

    def feed(self, piece: Piece) -> list[dict[str, Any]]:
        """Return the events of a piece."""
        if piece.what is not What.CONCLUSION:
            return self._add(piece.what, piece.k, piece.text) if self._shows else []
        text = self._guard.feed(self._stop.feed(piece.text))
        return self._add(What.CONCLUSION, piece.k, text) if text else []

    def close(self, teller: Teller) -> list[dict[str, Any]]:
        """Return the last events: how it ended, with the whole response."""
        rest = self._guard.feed(self._stop.close()) + self._guard.close()
        events = self._add(What.CONCLUSION, teller.done.rounds[-1].k if teller.done.rounds else 1, rest) if rest else []
        if self._part is None or self._part[0] is not What.CONCLUSION:  # there always is a message
            events += self._open(What.CONCLUSION, 1)
        cut = teller.finish_reason == "length" and not self._stop.matched
        status = "incomplete" if cut else "completed"
        events += self._shut(status)
        usage, report = teller.usage, teller.report()
        self.response |= {
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": self._output,
            "usage": {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": 0},
                "output_tokens": usage.generated,
                "output_tokens_details": {"reasoning_tokens": usage.reasoning},
                "total_tokens": usage.prompt + usage.generated,
            },
            "inftythink": report,
        }
        return [*events, self._event(f"response.{status}", response=self.response)]

    def fail(self, refused: Refused) -> list[dict[str, Any]]:
        """Return the last events of a response that failed on the way."""
        code = "rate_limit_exceeded" if refused.status == 429 else "server_error"
        error = {"code": code, "message": refused.message}
        failed = self.response | {"status": "failed", "error": error, "output": self._output}
        return [self._event("response.failed", response=failed)]

    # -- items --

    def _add(self, what: What, k: int, text: str) -> list[dict[str, Any]]:
        events = [] if self._part == (what, k) else self._open(what, k)
        self._text.append(text)
        return [*events, self._event(_DELTAS[what][0], **self._place(), delta=text, **_EXTRA.get(what, {}))]

    def _open(self, what: What, k: int) -> list[dict[str, Any]]:
        """Begin a part, and its item where it is the first; end what was before."""
        before = self._part
        same = before is not None and before[1] == k and What.CONCLUSION not in (what, before[0])
        events = self._shut_part() if same else self._shut("completed")
        self._part = (what, k)
        if not same:
            events.append(self._open_item(what))
        item = self._output[-1]
        part = _part(what, "")
        item[_LIST[what]].append(part)
        name = "reasoning_summary_part" if what is What.SUMMARY else "content_part"
        return [*events, self._event(f"response.{name}.added", **self._place(), part=dict(part))]

    def _open_item(self, what: What) -> dict[str, Any]:
        number, suffix = len(self._output), self._id.partition("_")[2]
        if what is What.CONCLUSION:
            item = {"id": f"msg_{suffix}_{number}", "type": "message", "role": "assistant", "content": []}
        else:
            item = {"id": f"rs_{suffix}_{number}", "type": "reasoning", "summary": [], "content": []}
        item["status"] = "in_progress"
        self._output.append(item)
        shown = {name: list(value) if isinstance(value, list) else value for name, value in item.items()}
        return self._event("response.output_item.added", output_index=number, item=shown)

    def _shut_part(self) -> list[dict[str, Any]]:
        """End the part that is being written."""
        if self._part is None:
            return []
        what, text = self._part[0], "".join(self._text)
        self._text = []
        place, part = self._place(), _part(what, text)
        self._output[-1][_LIST[what]][-1] = part
        done = self._event(_DELTAS[what][1], **place, text=text, **_EXTRA.get(what, {}))
        name = "reasoning_summary_part" if what is What.SUMMARY else "content_part"
        return [done, self._event(f"response.{name}.done", **place, part=part)]

    def _shut(self, status: str) -> list[dict[str, Any]]:
        """End the part and its item."""
        if self._part is None:
            return []
        events = self._shut_part()
        self._part = None
        self._output[-1]["status"] = status
        number = len(self._output) - 1
        return [*events, self._event("response.output_item.done", output_index=number, item=self._output[-1])]

    def _place(self) -> dict[str, Any]:
        assert self._part is not None
        item, what = self._output[-1], self._part[0]
        name = "summary_index" if what is What.SUMMARY else "content_index"
        index = len(item[_LIST[what]]) - 1
        return {"item_id": item["id"], "output_index": len(self._output) - 1, name: index}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}


_LIST = {What.THOUGHT: "content", What.SUMMARY: "summary", What.CONCLUSION: "content"}
_DELTAS = {
    What.THOUGHT: ("response.reasoning_text.delta", "response.reasoning_text.done"),
    What.SUMMARY: ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done"),
    What.CONCLUSION: ("response.output_text.delta", "response.output_text.done"),
}
_EXTRA: dict[What, dict[str, Any]] = {What.CONCLUSION: {"logprobs": []}}


def _part(what: What, text: str) -> dict[str, Any]:
    if what is What.CONCLUSION:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "summary_text" if what is What.SUMMARY else "reasoning_text", "text": text}
