"""The gradient of the trainer is that of the formula, written down here once more without TRL and without batches."""

import dataclasses
import random
import sys

import pytest
import torch

from inftythink.train.mismatch import Mismatch
from inftythink.train.rl_loss import MicroBatch, share
from inftythink.train.rl_settings import Group as GroupSettings
from inftythink.train.rl_settings import Loss, Questions, RlConfig
from inftythink.train.rollout import Group, RoundRow
from inftythink.train.settings import ModelSource
from tests.tiny import bytes_tokenizer, llama

if sys.version_info < (3, 11):
    pytest.skip("TRL needs 3.11", allow_module_level=True)

PAD = bytes_tokenizer().pad_token_id or bytes_tokenizer().eos_token_id


class Rows(Group):
    """A group of rows that were not made from trajectories."""

    def rows(self):
        return iter(self.trajectories)


def policy():
    return llama(len(bytes_tokenizer()), initializer_range=0.2).to(torch.float64)


def logprobs(model, row):
    """Return the log-probabilities of a row's completion, computed alone."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    scores = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1)
    return scores.gather(1, torch.tensor(row.completion_ids)[:, None])[:, 0]


def make_rows(model, seed=0):
    """Return four groups of rows of uneven number and length; the sampler's probabilities are off, some of them far."""
    chance = random.Random(seed)
    groups = []
    for question in range(4):
        rows = []
        for sample in range(3):
            advantage = chance.choice([-1.3, 0.4, 0.0, 1.1])
            for k in range(chance.randint(1, 4)):
                prompt = tuple(chance.randrange(256) for _ in range(chance.randint(2, 20)))
                completion = tuple(chance.randrange(256) for _ in range(chance.randint(1, 30)))
                sampled = tuple(chance.random() < 0.8 for _ in completion)
                row = RoundRow(f"q{question}", sample, k + 1, prompt, completion, sampled, (), advantage)
                with torch.no_grad():
                    told = (logprobs(model, row) + torch.tensor([chance.gauss(0, 0.6) for _ in completion])).tolist()
                rows.append(dataclasses.replace(row, logprobs=tuple(told)))
        groups.append(Rows(tuple(rows), (), ()))
    return groups


def expected(model, before, start, rows, loss, mismatch):
    """Return the loss of BACKGROUND's formula: a mean over the sampled tokens of all rows, term by term."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        now = logprobs(model, row)
        with torch.no_grad():
            then, first = logprobs(before, row), logprobs(start, row)
        for i, sampled in enumerate(row.sampled):
            if not sampled:
                continue
            count += 1
            k = float((then[i] - row.logprobs[i]).exp())
            weight = {"none": 1.0, "truncate": min(k, mismatch.high), "icepop": k if 0.5 <= k <= 5.0 else 0.0}
            ratio = (now[i] - then[i]).exp()
            clipped = ratio.clamp(1 - loss.clip_low, 1 + loss.clip_high)
            total = total - weight[mismatch.correction] * torch.minimum(ratio * row.advantage, clipped * row.advantage)
            if loss.kl:
                away = first[i] - now[i]
                total = total + loss.kl * (away.exp() - away - 1)
    return total / count


def make_trainer(model, groups, tmp_path, **changes):
    from inftythink.train.rl_trainer import make_arguments, make_trainer

    config = RlConfig(
        output=tmp_path,
        model=ModelSource(path="somewhere"),
        train=Questions(task="puzzles"),
        **({"micro_tokens": 64, "checkpointing": False} | changes),
    )
    arguments = make_arguments(
        {"output_dir": str(tmp_path), "use_cpu": True, "max_steps": 4, "report_to": "none", "bf16": False}
        | {"gradient_checkpointing": config.checkpointing, "temperature": config.group.temperature}
    )
    trainer = make_trainer(config, model, bytes_tokenizer(), arguments, lambda step: (groups, {}), lambda step: {})
    return trainer


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def moved(model):
    """Move the weights as an optimizer might, so that ratios are clipped on both sides."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


@pytest.mark.parametrize("correction", ["icepop", "truncate", "none"])
def test_gradients_are_those_of_the_formula_in_every_update(tmp_path, correction):
    model, before = policy(), policy()
    groups, mismatch = make_rows(before), Mismatch(correction=correction)
    trainer = make_trainer(model, groups, tmp_path, group=GroupSettings(questions=4, updates=2), mismatch=mismatch)
    for update in range(2):
        reference = policy()
        reference.load_state_dict(model.state_dict())
        rows = [row for group in groups[update::2] for row in group.rows()]
        loss = expected(reference, before, before, rows, Loss(), mismatch)
        loss.backward()
        model.zero_grad()
        told = trainer.training_step(model, {"update": update})
        wanted = gradients(reference)
        assert float(told) == pytest.approx(float(loss), rel=1e-5)
        assert (gradients(model) - wanted).norm() / wanted.norm() < 1e-6
        moved(model)
    clipped = trainer._metrics["train"]
    assert clipped["clipped_low"][-1] > 0
    assert clipped["clipped_high"][-1] > 0
    assert (max(clipped["masked"]) > 0) is (correction == "icepop")


def test_the_divergence_from_the_start_is_in_the_gradient(tmp_path):
    start, model, reference = policy(), policy(), policy()
    moved(model)
    moved(reference)
    groups, loss = make_rows(model), Loss(kl=0.3)
    trainer = make_trainer(model, groups, tmp_path, loss=loss)
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(frozen := policy())
    trainer.ref_model = frozen
    trainer.training_step(model, {"update": 0})
    rows = [row for group in groups for row in group.rows()]
    before = policy()
    before.load_state_dict(reference.state_dict())
    expected(reference, before, start, rows, loss, Mismatch()).backward()
    wanted = gradients(reference)
    assert (gradients(model) - wanted).norm() / wanted.norm() < 1e-6


@pytest.mark.parametrize("budget", [30, 200, 10_000])
def test_neither_order_nor_micro_batches_change_the_gradient(tmp_path, budget):
    found = []
    groups = make_rows(policy())
    shuffled = [Rows(tuple(random.Random(5).sample(g.trajectories, len(g.trajectories))), (), ()) for g in groups[::-1]]
    for some, tokens in ((groups, 64), (shuffled, budget)):
        model = policy()
        trainer = make_trainer(model, some, tmp_path, micro_tokens=tokens)
        trainer.training_step(model, {"update": 0})
        found.append(gradients(model))
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-6


def test_what_differs_in_nothing_moves_nothing(tmp_path):
    rows = [dataclasses.replace(row, advantage=0.0) for group in make_rows(policy()) for row in group.rows()]
    model = policy()
    trainer = make_trainer(model, [Rows(tuple(rows), (), ())], tmp_path)
    assert float(trainer.training_step(model, {"update": 0})) == 0.0
    assert gradients(model).abs().max() == 0.0
    assert trainer._metrics["train"]["trained_tokens"] == [sum(row.tokens for row in rows)]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_all_rows_and_have_as_many_micro_batches(processes):
    rows = [row for group in make_rows(policy()) for row in group.rows()]
    shares = [share(rows, 100, processes, number, PAD) for number in range(processes)]
    assert len({len(some) for some in shares}) == 1
    batches = [batch for some in shares for batch in some]
    assert sum(int(batch.trained.sum()) for batch in batches) == sum(row.tokens for row in rows)
    assert all(batch.ids.numel() <= 100 or len(batch.ids) == 1 for batch in batches)
    assert [len(share([], 100, processes, number, PAD)) for number in range(processes)] == [1] * processes


def test_a_micro_batch_says_what_was_drawn():
    row = RoundRow("q", 0, 1, (1, 2, 3), (4, 5, 6), (True, False, True), (-0.5, 0.0, -0.25), 2.0)
    batch = MicroBatch.of([row, dataclasses.replace(row, completion_ids=(4,), sampled=(True,), logprobs=(-1.0,))], 0)
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 0, 0]]
    assert batch.labels.tolist() == [[-100, -100, -100, 4, -100, 6], [-100, -100, -100, 4, -100, -100]]
    assert batch.sampler.tolist() == [[0, 0, -0.5, 0, -0.25], [0, 0, -1.0, 0, 0]]
    assert batch.mask.tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
