"""Tests against real inference engines run only where one is named: ``make test-engines``."""

import os
from importlib.util import find_spec

collect_ignore_glob = [
    f"test_{engine.lower()}*.py"
    for engine in ("VLLM", "LLAMACPP")
    if not {f"INFTYTHINK_{engine}_URL", f"INFTYTHINK_{engine}_PYTHON"} & set(os.environ)
]
if find_spec("vllm") is None:
    collect_ignore_glob.append("test_colocated_vllm.py")
if "INFTYTHINK_VLLM_MODEL" not in os.environ or find_spec("vllm") is None:
    collect_ignore_glob.append("test_inside_vllm.py")
