"""What verifiers finds by the id ``inftythink_verifiers``: its plugins are modules without a dot in their name."""

from inftythink.adapters.verifiers import RoundsEnv, RoundsHarness, RoundsTask, RoundsTaskset

__all__ = ["RoundsEnv", "RoundsHarness", "RoundsTask", "RoundsTaskset"]
