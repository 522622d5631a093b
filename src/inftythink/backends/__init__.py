"""Where text comes from: one ``Backend`` protocol and its implementations."""

from inftythink.backends.base import Backend, Capabilities, Delta, Request, Sampling

__all__ = ["Backend", "Capabilities", "Delta", "Request", "Sampling"]
