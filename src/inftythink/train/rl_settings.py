"""The settings of reinforcement learning; recipes are files of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from inftythink.backends.connect import trained_for
from inftythink.config import REQUIRED, Count, option
from inftythink.errors import ProtocolError, UsageError
from inftythink.protocol import Policy
from inftythink.tasks.base import TaskSettings
from inftythink.train.advantage import Advantage
from inftythink.train.mismatch import Mismatch
from inftythink.train.reward import Decay
from inftythink.train.settings import Lora, ModelSource, Optimizer


@dataclass(frozen=True)
class Rounds:
    """How a question is reasoned about: in training as at inference."""

    carry: Literal["summary", "tail", "none"] = option("summary", "what crosses a round boundary", flag="--carry")
    eta: Count | None = option(None, "most tokens of thought in a round; the model's own", flag="--eta")
    gamma: Count | None = option(None, "most tokens of a summary; the model's own", flag="--gamma")
    phi: Count = option(5, "most rounds", flag="--max-rounds")
    budget: Count | None = option(None, "most generated tokens over all rounds of a question")
    interval: tuple[int, int] | None = option(
        None, "summarise after a number of tokens from this range, instead of when the model decides", metavar="N"
    )
    on_cut: Literal["summarise", "stop"] = option("stop", "a round cut in its thought gets its summary, or ends")
    on_limit: Literal["answer", "stop"] = option("stop", "at the last round the model must answer, or it ends")
    instruction: str = option("", "text behind every question")
    template: Literal["auto", "chat", "plain"] = option("auto", "prompt layout; plain is for base models")
    template_option: dict[str, int | float | bool | str] = option({}, "option of the chat template")


@dataclass(frozen=True)
class Questions:
    """What is asked: tasks, as ``inftythink eval`` knows them."""

    task: str = option(REQUIRED, "tasks to train on, a comma between", flag="--task", metavar="NAME[,NAME]")
    settings: TaskSettings = option(TaskSettings(), "which problems of the tasks")


@dataclass(frozen=True)
class Examination:
    """Evaluation while training goes on."""

    task: str | None = option(None, "tasks to be examined in, a comma between", metavar="NAME[,NAME]")
    settings: TaskSettings = option(TaskSettings(seed=1), "which problems of the tasks")
    samples: Count = option(1, "trajectories of each problem")
    temperature: float = option(0.0, "0 always takes the likeliest token")
    every: int = option(0, "steps between examinations, the first before training; 0 has none", flag="--eval-every")


@dataclass(frozen=True)
class Group:
    """What is sampled for a step, and how much is learnt from it."""

    questions: Count = option(128, "questions a step, over all processes", flag="--questions")
    samples: Count = option(8, "trajectories of each question (G)", flag="--samples")
    updates: Count = option(1, "updates of the weights a step, each on its share of the questions")
    passes: Count = option(1, "how often the trajectories of a step are learnt from")
    resample: int = option(0, "how often questions are replaced whose trajectories all have the same reward")
    temperature: float = option(1.0, "of sampling; probabilities in the loss are those of this temperature")


@dataclass(frozen=True)
class Sampler:
    """Where rounds are sampled. vLLM gets the weights of every update that is sampled with, once."""

    kind: Literal["in_process", "colocated", "server"] = option(
        "in_process",
        "the model that is trained samples too, or vLLM does: on the device of each process, or as a server",
        flag="--sampler",
    )
    url: str | None = option(None, "address of the vLLM server", flag="--base-url", metavar="URL", identity=False)
    weights: Literal["folder", "nccl"] = option(
        "folder", "how a server gets weights: from a folder that it sees too, or over NCCL (GPUs only)", identity=False
    )
    folder: Path | None = option(
        None, "that folder; the server sees it under the same name (default: OUTPUT/weights)", identity=False
    )
    engine: dict[str, int | float | bool | str] = option(
        {}, "argument of a colocated vLLM (max_model_len=8192, gpu_memory_utilization=0.3)", identity=False
    )
    timeout: float = option(600.0, "longest silence of the server in seconds", identity=False)


@dataclass(frozen=True)
class Loss:
    """The clipped surrogate, a mean over all generated tokens of all rounds."""

    clip_low: float = option(0.20, "the probability of a token counts down to 1 - this, relative to before the step")
    clip_high: float = option(0.26, "and up to 1 + this")
    kl: float = option(0.0, "weight of the divergence from the model at the start; 0 leaves it out")


@dataclass(frozen=True)
class RlConfig:
    """``inftythink rl``."""

    output: Path = option(REQUIRED, "folder to write; the same command again goes on where it stopped", identity=False)
    model: ModelSource = option(ModelSource(), "the model, trained on the format already")
    rounds: Rounds = option(Rounds(), "how a question is reasoned about")
    train: Questions = option(REQUIRED, "what is asked")
    examine: Examination = option(Examination(), "evaluation")
    group: Group = option(Group(), "what a step is made of")
    reward: tuple[str, ...] = option(
        ("task",), "factors of the reward: task, efficiency, MODULE:FUNCTION", flag="--reward", metavar="NAME"
    )
    decay: Decay = option("quadratic", "how efficiency falls with the rounds", flag="--decay")
    advantage: Advantage = option(Advantage(), "from rewards to advantages")
    loss: Loss = option(Loss(), "the loss")
    sampler: Sampler = option(Sampler(), "where rounds are sampled")
    mismatch: Mismatch = option(Mismatch(), "where sampler and trainer disagree")
    optimizer: Optimizer = option(Optimizer(rate=1e-6, schedule="constant", warmup=0.0), "the optimizer")
    lora: Lora = option(Lora(), "adapters")
    steps: Count = option(100, "steps; each samples anew", flag="--steps")
    micro_tokens: Count = option(16384, "most tokens, padding included, that a device takes at once")
    checkpointing: bool = option(True, "compute activations again in the backward pass, which saves memory")
    max_batch: Count = option(64, "sequences that a process generates, or asks a server for, at once", identity=False)
    cache_tokens: Count = option(131072, "key-value positions that they may take", identity=False)
    grade_timeout: float = option(10.0, "longest time to grade an answer, in seconds")
    grade_workers: Count = option(2, "processes that grade, of each process", identity=False)
    save_every: int = option(50, "steps between checkpoints; 0 writes none", identity=False)
    keep: int = option(1, "checkpoints that are kept", identity=False)
    save_rows: Literal["none", "jsonl", "parquet"] = option(
        "none", "also write what is trained on, token by token, for other trainers", identity=False
    )
    report_to: tuple[str, ...] = option((), "trackers that are told (wandb, tensorboard, ...)", identity=False)
    device: Literal["auto", "cpu"] = option("auto", "cpu trains there even where there is a GPU", identity=False)
    seed: int = option(0, "of the order of questions, and of every sample")

    def __post_init__(self) -> None:
        group = self.group
        if self.model.path is None:
            raise UsageError("say which model is trained: --model FOLDER_OR_HUB_NAME, fine-tuned on the format")
        if self.model.special_tags:
            raise UsageError("model.special_tags: give tags their tokens in fine-tuning ('inftythink sft')")
        if group.samples < 2:
            raise UsageError("group.samples: at least 2 trajectories of a question are needed to compare them")
        if not group.questions or not group.passes or not 1 <= group.updates <= group.questions:
            raise UsageError("group: questions and passes are at least 1, updates at least 1 and at most questions")
        if group.temperature <= 0:
            raise UsageError("group.temperature is to be above 0: greedy trajectories do not differ")
        if (self.sampler.kind == "server") != (self.sampler.url is not None):
            raise UsageError(
                "sampler: --sampler server needs the address of a vLLM server (--base-url URL), and only it"
            )
        if self.sampler.engine and self.sampler.kind != "colocated":
            raise UsageError("sampler.engine are arguments of a colocated engine (--sampler colocated)")
        if self.sampler.kind == "colocated" and self.sampler.weights == "nccl":
            raise UsageError("sampler.weights: a colocated engine gets them from a folder, nccl is for servers")
        if not 0 < self.loss.clip_low < 1 or self.loss.clip_high <= 0:
            raise UsageError("loss: clip_low is to be between 0 and 1, clip_high above 0")
        if not 0 <= self.mismatch.low < self.mismatch.high:
            raise UsageError("mismatch: low is to be below high")
        if not self.steps or not self.micro_tokens:
            raise UsageError("--steps and --micro-tokens are to be at least 1")


def fit(config: RlConfig) -> RlConfig:
    """Fill eta and gamma with those that the model was trained for. Raises ``UsageError`` when nothing tells them."""
    return replace(config, rounds=fit_rounds(config.rounds, config.model.path))


def fit_rounds(rounds: Rounds, model: str | None) -> Rounds:
    """Fill eta and gamma with those that a model was trained for. Raises ``UsageError`` when nothing tells them."""
    told = trained_for(model)
    eta = rounds.eta or (told.eta if told else None)
    gamma = rounds.gamma or (told.gamma if told else None)
    if eta is None or gamma is None:
        raise UsageError(
            "the model does not say for which eta and gamma it was trained; give rounds.eta and rounds.gamma "
            "(--eta, --gamma)"
        )
    return replace(rounds, eta=eta, gamma=gamma)


def policy_of(rounds: Rounds, seed: int) -> Policy:
    """Return the limits of a trajectory, once ``fit`` has filled ``rounds``.

    Raises ``UsageError`` for limits that cannot be.
    """
    assert rounds.eta is not None
    assert rounds.gamma is not None
    try:
        return Policy(
            rounds.eta,
            rounds.gamma,
            rounds.phi,
            budget=rounds.budget,
            interval=rounds.interval,
            on_cut=rounds.on_cut,
            on_limit=rounds.on_limit,
            seed=seed,
        )
    except ProtocolError as error:
        raise UsageError(str(error)) from error
