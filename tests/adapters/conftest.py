"""Tests of adapters run where the other engine is installed (``make test-adapters``)."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [f"test_{name}.py" for name in ("verl", "verifiers") if find_spec(name) is None]
