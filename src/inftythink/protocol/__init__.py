"""The protocol: standard library only, no I/O, no async, no tokenizer, no clock, no randomness."""

from inftythink.protocol.carry import CARRIES, Carry, make_carry, make_format
from inftythink.protocol.exchange import exchanges
from inftythink.protocol.format import Format
from inftythink.protocol.machine import Done, Generate, Machine
from inftythink.protocol.policy import Policy
from inftythink.protocol.stream import Event, Kind, Place, Reader, Tags
from inftythink.protocol.types import (
    Call,
    Completion,
    Exchange,
    Outcome,
    Part,
    PartKind,
    Problem,
    Prompt,
    Purpose,
    Round,
    Stop,
    Target,
    Trajectory,
    Turn,
)

__all__ = [
    "CARRIES",
    "Call",
    "Carry",
    "Completion",
    "Done",
    "Event",
    "Exchange",
    "Format",
    "Generate",
    "Kind",
    "Machine",
    "Outcome",
    "Part",
    "PartKind",
    "Place",
    "Policy",
    "Problem",
    "Prompt",
    "Purpose",
    "Reader",
    "Round",
    "Stop",
    "Tags",
    "Target",
    "Trajectory",
    "Turn",
    "exchanges",
    "make_carry",
    "make_format",
]
