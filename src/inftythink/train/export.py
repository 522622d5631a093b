"""The result of a run as a model folder: weights, tokenizer, how a text ends, what it was trained for, and its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from inftythink import __version__
from inftythink.backends.connect import TRAINED_FILE
from inftythink.render import Renderer
from inftythink.train.arguments import weights_dtype
from inftythink.train.settings import Lora, ModelSource


def number_type(trainer: Any, source: ModelSource, lora: Lora) -> Any:
    """Return the number type of weights that leave training: bfloat16 after mixed precision, else their own."""
    import torch

    return torch.bfloat16 if trainer.args.bf16 else getattr(torch, weights_dtype(source, lora, on_gpu=False))


def save_weights(trainer: Any, folder: Path, dtype: Any) -> None:
    """Write the weights, gathered from all processes, in one number type; every process calls this."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    model.save_pretrained(folder, state_dict=state)
    if (folder / "config.json").is_file():  # adapters have none
        _tell_dtype(folder, dtype)


def save_all(trainer: Any, folder: Path, dtype: Any) -> None:
    """Write every weight by its name, a matrix that is tied to another too; every process calls this.

    Adapters are merged into what is written.
    """
    from safetensors.torch import save_file

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "get_base_model"):
        state = _merged(model, state)
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()
    for name, value in state.items():
        value = value.detach().to(dtype if value.is_floating_point() else value.dtype).contiguous()
        state[name] = value.clone() if value.data_ptr() in seen else value
        seen.add(value.data_ptr())
    part = folder / "model.safetensors.part"
    save_file(state, part, metadata={"format": "pt"})
    part.replace(folder / "model.safetensors")


def _merged(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a model with its adapters merged in, under the names that they have without adapters.

    ``state`` are the weights of ``model``, a ``PeftModel``. Neither is changed: merging into the model and out of it
    again would leave the errors of rounding behind.
    """
    found = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value
        for name, value in state.items()
        if model.prefix not in name
    }
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "get_delta_weight"):
            for adapter in module.active_adapters:
                weight = found[f"{name}.weight"]
                found[f"{name}.weight"] = weight + module.get_delta_weight(adapter).to(weight)
    return found


def merge(base: Any, adapter: Path, folder: Path, dtype: Any) -> None:
    """Write ``base`` with the adapters merged into it."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload()
    merged.to(dtype).save_pretrained(folder)
    _tell_dtype(folder, dtype)


def _tell_dtype(folder: Path, dtype: Any) -> None:
    """Make ``config.json`` say what the weights are, which servers go by."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": str(dtype).removeprefix("torch.")}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def save_surroundings(folder: Path, tokenizer: Any, renderer: Renderer, trained: dict[str, Any]) -> None:
    """Write beside the weights what inference needs: tokenizer, how a text ends, and what was trained for.

    Where prompts were laid out plainly the folder has no chat template, so that inference lays them out plainly too.
    """
    from transformers import GenerationConfig

    if renderer.template == "plain":
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    ends = sorted(renderer.eos_ids, key=lambda token: token != renderer.end_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else renderer.end_id
    generation = GenerationConfig(bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=pad)
    generation.save_pretrained(folder)
    (folder / TRAINED_FILE).write_text(json.dumps(trained) + "\n", encoding="utf-8")


_CARD = """
# {name}

{base}, trained to reason in rounds of bounded context (InftyThink, arXiv 2503.06692) with
[inftythink](https://pypi.org/project/inftythink/) {version}. `inftythink solve QUESTION --model FOLDER` asks it.

| | |
|---|---|
| carry, eta, gamma | {carry}, {eta}, {gamma} |
| data | {data} |
| rows, tokens (trained on) | {rows:,}, {tokens:,} ({trained_tokens:,}) |
| rejected rows | {rejected:,} |
| steps | {steps:,} |
| configuration | `{digest}` (`config.yaml`) |

## Loss

| step | on validation rows |
|---|---|
{evaluations}

Of the training rows: {loss_first:.4f} at first, {loss_last:.4f} at last.
"""


def card(name: str, base: str | None, facts: dict[str, Any], history: list[dict[str, float]]) -> str:
    """Return the README.md of a model folder; ``facts`` are the run's metrics and settings.

    ``base`` is the model that was trained, None for a new one; of a local folder only the name is told.
    """
    local = base is not None and Path(base).is_dir()
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    header |= {"base_model": base} if base and not local else {}
    header["tags"] = ["inftythink", "reasoning"]
    found = [f"| {entry['step']} | {entry['eval_loss']:.4f} |" for entry in history if "eval_loss" in entry]
    text = _CARD.format(
        name=name,
        base=f"`{Path(base).name if local else base}`" if base else "A new model",
        version=__version__,
        evaluations="\n".join(found) or "| - | no validation rows |",
        **facts,
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{text}"
