"""Tests against real inference servers run only where one is named: ``make test-engines``."""

import os

collect_ignore_glob = [
    f"test_{engine.lower()}*.py"
    for engine in ("VLLM", "LLAMACPP")
    if not {f"INFTYTHINK_{engine}_URL", f"INFTYTHINK_{engine}_PYTHON"} & set(os.environ)
]
