"""Tests with real clients run only where an interpreter that has them is named: ``make test-clients``."""

import os

collect_ignore_glob = [] if "INFTYTHINK_CLIENTS_PYTHON" in os.environ else ["test_*.py"]
collect_ignore_glob += [
    f"test_{engine.lower()}.py" for engine in ("VLLM", "LLAMACPP") if f"INFTYTHINK_{engine}_PYTHON" not in os.environ
]
