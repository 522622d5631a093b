"""Settings of the published evaluations, by name: what ``inftythink eval --preset`` fills in where nothing is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SAMPLED = {"temperature": 0.7, "top_p": 0.95}


def _vanilla(tokens: int) -> dict[str, Any]:
    """One chain that may fill ``tokens``, and is not helped to an answer when it has."""
    limits = {"carry": "none", "eta": tokens - 1024, "gamma": 1024, "on_cut": "stop", "on_limit": "stop"}
    return _SAMPLED | limits | {"samples": 16}


PRESETS: Mapping[str, dict[str, Any]] = {
    # InftyThink, section 4.1: 16 samples, temperature 0.7, 10 rounds of at most 8,192 tokens; trained with eta 4k.
    "inftythink": _SAMPLED | {"carry": "summary", "eta": 4096, "gamma": 4096, "max_rounds": 10, "samples": 16},
    # InftyThink+, section 4.1: 32 samples, temperature 0.7, top-p 0.95, 10 rounds of at most 8,192; eta 6k.
    "inftythink-plus": _SAMPLED | {"carry": "summary", "eta": 6144, "gamma": 2048, "max_rounds": 10, "samples": 32},
    # The Markovian Thinker, section 3: chunks of 8k, half of each carried on, 5 of them: 24k tokens of thought.
    "delethink": _SAMPLED | {"carry": "tail", "eta": 8192, "max_rounds": 5, "samples": 16},
    "vanilla-8k": _vanilla(8192),
    "vanilla-16k": _vanilla(16384),
    "vanilla-32k": _vanilla(32768),
}
"""Name -> setting -> value. The InftyThink papers draw 16 samples (vanilla and delethink too, here), the second 32."""
