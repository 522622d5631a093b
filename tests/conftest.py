"""Shared by all tests: a skipped test can be made to fail the run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

FORBID_SKIPS = os.environ.get("INFTYTHINK_FORBID_SKIPS", "") not in ("", "0")
"""Set in CI: a test that is skipped there was not run, so the run fails. Tests deselected by a mark are fine."""

# How long an example takes depends on what else the machine does. CI tries the same examples each time, so that it
# judges a change and not its luck; everyone else's runs look for new ones.
settings.register_profile(
    "inftythink", deadline=None, derandomize=FORBID_SKIPS, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("inftythink")


def skipped(session: pytest.Session) -> list[str]:
    """Where tests were skipped, as the terminal's report knows it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    return [report.nodeid for report in reporter.stats.get("skipped", [])] if reporter else []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if FORBID_SKIPS and skipped(session) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    yield
    nodes = [report.nodeid for report in terminalreporter.stats.get("skipped", [])]
    if FORBID_SKIPS and nodes:
        terminalreporter.write_line(f"FAILED: skips are forbidden here, but skipped: {', '.join(nodes)}", red=True)
