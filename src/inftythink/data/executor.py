"""The local datatrove executor, without its log on the terminal: the commands have progress bars of their own."""

from __future__ import annotations

from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.utils.logging import logger


class LocalExecutor(LocalPipelineExecutor):  # type: ignore[misc]
    """Runs tasks in this process when ``workers`` is 1, else in a pool; whole tasks are left as they are."""

    def run(self) -> Any:
        """Run the tasks that are not whole yet."""
        logger.disable("datatrove")
        return super().run()

    def _launch_run_for_rank(self, *arguments: Any, **options: Any) -> Any:
        logger.disable("datatrove")  # once more where a worker process begins
        return super()._launch_run_for_rank(*arguments, **options)
