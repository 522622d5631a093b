"""InftyThink: reasoning without a length limit, in rounds of bounded context.

The names below are loaded on first use, so that ``import inftythink`` stays light: no torch, no
transformers, no vllm.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inftythink.backends import Sampling
    from inftythink.protocol import Completion, Format, Machine, Outcome, Policy, Problem, Stop, Trajectory
    from inftythink.reasoner import Reasoner

__version__ = "0.1.0"

_HOME = {
    "Completion": "protocol",
    "Format": "protocol",
    "Machine": "protocol",
    "Outcome": "protocol",
    "Policy": "protocol",
    "Problem": "protocol",
    "Reasoner": "reasoner",
    "Sampling": "backends",
    "Stop": "protocol",
    "Trajectory": "protocol",
}

__all__ = [
    "Completion",
    "Format",
    "Machine",
    "Outcome",
    "Policy",
    "Problem",
    "Reasoner",
    "Sampling",
    "Stop",
    "Trajectory",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it (PEP 562)."""
    if name in _HOME:
        return getattr(import_module(f"inftythink.{_HOME[name]}"), name)
    raise AttributeError(f"module 'inftythink' has no attribute {name!r}")
