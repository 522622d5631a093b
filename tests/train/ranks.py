"""What a process of a group does: ``accelerate launch … -m tests.train.ranks CONFIG REPORT``.

With --gradients it first checks the gradient of rows that it shares with the others. It trains as ``inftythink rl``
does, and writes what it found, and a digest of the weights that it ends with, to REPORT.RANK.json.
"""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor, distribute_tensor

from inftythink.config import load_dumped
from inftythink.train import rl_trainer
from inftythink.train.mismatch import Mismatch
from inftythink.train.rl import train_rl
from inftythink.train.rl_settings import Group, Loss, RlConfig
from tests.train.test_rl_loss import expected, gradients, make_rows, make_trainer, policy


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def move(model: torch.nn.Module) -> None:
    """Move the weights as an optimizer might, the same in all processes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            by = 0.03 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            divided = isinstance(weight, DTensor)
            weight += distribute_tensor(by, weight.device_mesh, weight.placements) if divided else by


def check_gradients(folder: Path, budget: int) -> list[dict[str, object]]:
    """Return, for both updates of a step, how far the gradient is from the formula's and what this process held."""
    model, before = policy(), policy()
    groups, found = make_rows(before), []
    settings = {"group": Group(questions=4, updates=2), "mismatch": Mismatch(), "micro_tokens": budget}
    trainer = make_trainer(model, groups, folder, **settings)
    shared, _ = trainer.accelerator.prepare(model, torch.optim.SGD(model.parameters()))
    model = trainer.accelerator.unwrap_model(shared)
    for update in range(2):
        reference = policy()
        reference.load_state_dict({name: whole(weight) for name, weight in model.state_dict().items()})
        rows = [row for group in groups[update::2] for row in group.rows()]
        expected(reference, before, before, rows, Loss(), Mismatch()).backward()
        wanted = gradients(reference)
        model.zero_grad()
        trainer.training_step(shared, {"update": update})
        got = torch.cat([whole(weight.grad).flatten() for weight in model.parameters()])
        held = [len(batch.ids) * bool(batch.trained.any()) for batch in trainer._updates[update][0]]
        divided = any(isinstance(weight, DTensor) for weight in model.parameters())
        off = float((got - wanted).norm() / wanted.norm())
        found.append({"off": off, "held": held, "kind": type(shared).__name__, "divided": divided})
        move(model)
    return found


def divide_on_cpus() -> None:
    """Let accelerate divide weights among CPUs: torch and gloo can, but it asks for processes on accelerators."""
    init = PartialState.__init__

    def told(self: PartialState, *args, **settings) -> None:
        init(self, *args, **settings)
        if self.distributed_type is DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = told  # type: ignore[method-assign]


def main() -> None:
    """Check, train, and report."""
    report = Path(f"{sys.argv[2]}.{os.environ['RANK']}.json")
    report.with_suffix(".pid").write_text(str(os.getpid()))
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        divide_on_cpus()
    told: dict[str, object] = {}
    if "--gradients" in sys.argv:
        # The second time all rows fit into one micro-batch, and the other process has none.
        told["gradients"] = [found for budget in (64, 10_000) for found in check_gradients(report.parent, budget)]
    made, make = [], rl_trainer.make_trainer

    def keep(*args, **settings):
        made.append(make(*args, **settings))
        return made[0]

    rl_trainer.make_trainer = keep
    train_rl(load_dumped(RlConfig, Path(sys.argv[1])))
    digest = hashlib.sha256()
    for weight in made[0].model.parameters():
        digest.update(whole(weight.detach()).float().numpy().tobytes())
    told |= {"weights": digest.hexdigest(), "processes": made[0].accelerator.num_processes}
    report.write_text(json.dumps(told))
    with contextlib.suppress(ValueError):
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
