"""The seam between the reasoner and whatever generates text."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from inftythink.protocol.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``seed`` makes a request repeatable where a backend can.

    ``top_k`` 0 means no limit. ``logprobs`` asks for the sampled tokens' log-probabilities.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One call to a model: at most ``max_tokens`` tokens after ``prompt``, ended early by any string of ``stop``."""

    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; the reasoner refuses a carry that needs more, before the first call.

    ``prefill``: the model goes on with an assistant turn that was begun (``Prompt.prefill``).
    ``token_ids``: prompts may hold token ids and completions bring theirs (``tail`` needs it).
    ``logprobs``: completions can bring log-probabilities.
    """

    prefill: bool
    token_ids: bool
    logprobs: bool


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed completion: generated ``text``, or ``reasoning`` from a field of its own."""

    text: str = ""
    reasoning: str = ""


class Backend(Protocol):
    """Where completions come from. All methods may be called many times at once on one event loop.

    The contract, checked by one conformance suite for every implementation:

    - ``complete`` returns a completion of at most ``max_tokens`` tokens. A stop string that ended it is kept in
      ``text`` and named in ``stop_text``; nothing follows it. ``Stop.LENGTH`` when the limit was reached first.
    - ``stream`` yields ``Delta`` s and then, last, the ``Completion`` that ``complete`` would have returned: the
      deltas' texts joined are its ``text`` (and ``reasoning``).
    - A request that fails for good raises ``BackendError``; one that shows that every request would fail raises
      ``BackendFatalError``; a prompt that does not fit raises ``ContextTooLongError``.
    - Cancelling the task that awaits stops the work behind it and leaves the backend usable.
    """

    @property
    def name(self) -> str:
        """A short name for messages: kind and model."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do; known after ``start``."""
        ...

    async def start(self) -> None:
        """Connect or load. Raises ``BackendFatalError`` when it cannot work."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Generate once."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Delta | Completion]:
        """Generate once, piece by piece; the completion comes last."""
        ...

    async def aclose(self) -> None:
        """Release connections and threads."""
        ...
