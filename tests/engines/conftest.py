"""Tests against real inference servers run only where one is named: ``make test-engines``."""

import os

collect_ignore_glob = [] if {"INFTYTHINK_VLLM_URL", "INFTYTHINK_VLLM_PYTHON"} & set(os.environ) else ["test_*.py"]
