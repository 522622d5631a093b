"""The few kinds of error of this package, and the one boundary that attributes a failure to a side.

Two directions never share a path: misuse by our own code raises ``ProtocolError``; what a model, a file or a
server did wrong is either one of the errors below or a recorded outcome.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InftyThinkError(Exception):
    """Base of every error this package raises on purpose. Its text says what, where and what to do."""


class ProtocolError(InftyThinkError):
    """Our own code misused the protocol (a bug): the machine was driven out of turn, a setting is impossible."""


class UsageError(InftyThinkError):
    """A command or a call was given settings that cannot work. The command line exits with code 2."""


class InputError(InftyThinkError):
    """A file or a record cannot be read as what it should be."""


class MissingDependencyError(InftyThinkError):
    """An optional package is needed; the text names the extra that installs it."""


class BackendError(InftyThinkError):
    """One request to a backend failed for good (retries included). The trajectory ends as FAILED; others go on."""


class BackendFatalError(BackendError):
    """A backend refuses every request (wrong key, unknown model, nothing listens): the run stops at once."""


class ContextTooLongError(BackendError):
    """The prompt plus the tokens asked for do not fit the model's context window."""


@contextmanager
def boundary(side: str) -> Iterator[None]:
    """Attribute unexpected errors of foreign code to ``side`` (for example ``"backend openai"``).

    Errors of this package pass unchanged; anything else that is an ``Exception`` becomes a ``BackendError`` that
    names the side and the original error, which stays attached as its cause.
    """
    try:
        yield
    except InftyThinkError:
        raise
    except Exception as error:
        raise BackendError(f"{side}: {type(error).__name__}: {error}") from error


def describe(error: BaseException) -> str:
    """Return what an error says; of a full disk also what to do, which the operating system does not say."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return str(error)
    return f"{error}. What is on record is safe: free some space and run the same command again."


def missing(package: str, extra: str) -> MissingDependencyError:
    """Build the error for an optional ``package`` that ``extra`` would install."""
    return MissingDependencyError(f"{package} is not installed. Install it with: pip install 'inftythink[{extra}]'")
