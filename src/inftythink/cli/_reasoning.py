"""What commands that reason have in common: how rounds are joined, limited and sampled, and the reasoner of it."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from inftythink.backends.connect import SHIPPED, ModelSettings, Trained, connect, trained_for
from inftythink.config import Count, option
from inftythink.errors import ProtocolError, UsageError
from inftythink.protocol import CARRIES, Machine, Policy, Problem, make_carry

if TYPE_CHECKING:
    from inftythink.reasoner import Reasoner

ETA, GAMMA, PHI = Policy().eta, Policy().gamma, Policy().phi
TEMPERATURE, TOP_P = 0.7, 0.95


@dataclass(frozen=True)
class ReasonSettings(ModelSettings):
    """How to reason, with which model."""

    carry: str | None = option(
        None, "what crosses a round boundary (default: what the model was trained for, else two_call)", choices=CARRIES
    )
    eta: Count | None = option(None, f"most tokens of thought in a round (default: the model's own, else {ETA})")
    gamma: Count | None = option(None, f"most tokens of a summary (default: the model's own, else {GAMMA})")
    max_rounds: Count | None = option(None, f"most rounds (default: the model's own, else {PHI})")
    budget: Count | None = option(None, "most generated tokens over all rounds of a question")
    summarise_when: str = option(
        "adaptive", "adaptive (the model decides), or after tokens: fixed:5000, random:3000-6000", metavar="WHEN"
    )
    on_cut: Literal["summarise", "stop"] | None = option(
        None, "a round cut in its thought gets its summary (the default), or ends"
    )
    on_limit: Literal["answer", "stop"] | None = option(
        None, "at the last round, or out of budget: must answer (the default), or ends"
    )
    temperature: float | None = option(
        None, f"0 always takes the likeliest token (default: the model's own, else {TEMPERATURE})"
    )
    top_p: float | None = option(
        None, f"draw from the likeliest tokens that have this probability in all (default: {TOP_P})"
    )
    top_k: Count = option(0, "draw from this many of the likeliest tokens; 0 is no limit")
    seed: int | None = option(None, "makes a run repeatable where the backend can")
    instruction: str = option("", "text behind every question, a blank line between")
    concurrency: Count = option(64, "most questions in flight", identity=False)


R = TypeVar("R", bound="ReasonSettings")


def fit(config: R) -> tuple[R, str, Trained | None]:
    """Choose what was not given: model, carry, eta, gamma, rounds and sampling; the text says which carry and why.

    A model folder says in ``inftythink.json`` what it was trained for; any other model gets ``two_call``.
    """
    if config.model is None and config.base_url is None:
        config = dataclasses.replace(config, model=str(SHIPPED))
    places = [config.tokenizer] if config.base_url and not Path(config.model or "").is_dir() else []
    places += [config.model, config.tokenizer] if not places else []
    found = next((it for place in dict.fromkeys(places) if (it := trained_for(place)) is not None), None)
    if config.carry is not None:
        why = f"carry {config.carry}: as you said"
    elif found is not None:
        why = f"carry {found.carry}: the model was trained for it (inftythink.json)"
    else:
        why = "carry two_call: nothing says that the model was trained for summaries (it has no inftythink.json)"
    eta = config.eta if config.eta is not None else (found and found.eta) or ETA
    gamma = config.gamma if config.gamma is not None else (found and found.gamma) or GAMMA
    phi = config.max_rounds if config.max_rounds is not None else (found and found.phi) or PHI
    heat = config.temperature
    if heat is None:
        heat = found.temperature if found is not None and found.temperature is not None else TEMPERATURE
    chosen = dataclasses.replace(
        config,
        carry=config.carry or (found.carry if found else "two_call"),
        eta=eta,
        gamma=gamma,
        max_rounds=phi,
        temperature=heat,
        top_p=TOP_P if config.top_p is None else config.top_p,
        on_cut=config.on_cut or "summarise",
        on_limit=config.on_limit or "answer",
    )
    return chosen, f"{why}; eta {eta}, gamma {gamma}", found


def interval(text: str) -> tuple[int, int] | None:
    """Read ``adaptive`` (None), ``fixed:5000`` or ``random:3000-6000``; numbers may end in k. Raises ``UsageError``."""
    if text == "adaptive":
        return None
    number = r"(\d+)(k?)"
    match = re.fullmatch(f"fixed:{number}|random:{number}-{number}", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--summarise-when {text}: give adaptive, fixed:5000 or random:3000-6000")
    found = [int(n) * (1024 if k else 1) for n, k in zip(match.groups()[::2], match.groups()[1::2], strict=True) if n]
    return found[0], found[-1]


def check(config: ReasonSettings) -> None:
    """Raise ``UsageError`` for limits that no run could have."""
    if config.concurrency < 1:
        raise UsageError("--concurrency 0: at least 1 is needed")
    if (config.temperature or 0) < 0 or not 0 < (1 if config.top_p is None else config.top_p) <= 1:
        raise UsageError("--temperature is to be at least 0, and --top-p above 0 and at most 1")


def make_reasoner(config: ReasonSettings, command: str) -> Reasoner:
    """Return the reasoner of settings that ``fit`` has filled; ``command`` is what an error shows as an example."""
    from inftythink.backends import Sampling
    from inftythink.reasoner import Reasoner

    assert config.carry is not None
    assert config.eta is not None
    assert config.gamma is not None
    assert config.max_rounds is not None
    assert config.temperature is not None
    assert config.top_p is not None
    assert config.on_cut is not None
    assert config.on_limit is not None
    try:
        policy = Policy(
            eta=config.eta,
            gamma=config.gamma,
            phi=config.max_rounds,
            budget=config.budget,
            interval=interval(config.summarise_when),
            on_cut=config.on_cut,
            on_limit=config.on_limit,
            seed=config.seed or 0,
        )
    except ProtocolError as error:
        raise UsageError(str(error).replace("phi", "--max-rounds")) from error
    return Reasoner(
        connect(config, carry=config.carry, command=command, connections=config.concurrency),
        carry=config.carry,
        policy=policy,
        sampling=Sampling(config.temperature, config.top_p, config.top_k, config.seed),
        instruction=config.instruction,
        slots=config.concurrency,
    )


def started(config: R, reasoner: Reasoner) -> R:
    """Return ``config`` with the model's name as the server tells it.

    Raises ``UsageError`` when the limits allow no round.
    """
    try:
        Machine(Problem("", ""), reasoner.format, make_carry(reasoner.carry, reasoner.policy), reasoner.policy)
    except ProtocolError as error:
        raise UsageError(str(error)) from error
    return dataclasses.replace(config, model=getattr(reasoner.backend, "model", None) or config.model)
