"""Training end to end with a small model: curve, resume, packing, adapters, tags, export, evaluation, refusal."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from inftythink.backends.connect import trained_for
from inftythink.cli.main import main
from inftythink.config import load_dumped
from inftythink.errors import InputError, UsageError
from inftythink.protocol import Problem, make_format
from inftythink.render import Renderer
from inftythink.train.model import add_tags, give_rows
from inftythink.train.settings import Batch, Data, Lora, ModelSource, SftConfig
from inftythink.train.sft import Rows, train_sft
from inftythink.train.tokens import TokenRows
from inftythink.train.trainer import Batches
from tests.tiny import bytes_tokenizer, llama
from tests.train.conftest import SHAPE


def losses(result):
    return [entry["loss"] for entry in result.history if "loss" in entry]


def replaced(config, **changes):
    """Return the configuration with nested changes, ``data={"carry": "none"}``."""
    nested = {k: dataclasses.replace(getattr(config, k), **v) for k, v in changes.items() if isinstance(v, dict)}
    return dataclasses.replace(config, **(changes | nested))


class Stop(Exception):
    pass


def stop_at(step):
    def progress(now, steps, entry):
        if now >= step and "loss" in entry:
            raise Stop

    return progress


@pytest.fixture(scope="module")
def done(tmp_path_factory, data_folder, tokenizer_folder):
    config = SftConfig(
        output=tmp_path_factory.mktemp("done") / "run",
        model=ModelSource(settings=SHAPE, tokenizer=str(tokenizer_folder)),
        data=Data(folders=(str(data_folder),), max_length=400),
        batch=Batch(tokens=1024),
        steps=6,
        checkpointing=False,
        eval_every=3,
        save_every=0,
        log_every=1,
        device="cpu",
        workers=2,
    )
    return config, train_sft(config)


def test_it_learns_and_tells_its_figures(config):
    result = train_sft(replaced(config, steps=16))
    curve = losses(result)
    assert len(curve) == 16
    assert curve[-1] < curve[0] / 1.5
    metrics = result.metrics
    assert (metrics["rows"], metrics["validation_rows"], metrics["rejected"], metrics["steps"]) == (32, 8, 0, 16)
    assert metrics["loss_first"] == curve[0]
    assert metrics["tokens"] > metrics["trained_tokens"] > 0
    assert [entry["step"] for entry in result.history if "eval_loss" in entry] == [4, 8, 12, 16]
    assert metrics["eval_loss"] < curve[0]


def test_a_run_that_was_stopped_goes_on_with_the_same_curve(config):
    straight = train_sft(config)
    again = replaced(config, output=config.output.with_name("again"))
    with pytest.raises(Stop):
        train_sft(again, progress=stop_at(6))
    resumed = train_sft(again)
    assert losses(resumed) == losses(straight)
    assert resumed.metrics == straight.metrics
    one, two = (AutoModelForCausalLM.from_pretrained(result.path).state_dict() for result in (straight, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_finished_run_is_read_and_another_one_is_refused(done):
    config, result = done
    assert train_sft(config) == result
    with pytest.raises(UsageError, match="was made with steps=6, you asked steps=7"):
        train_sft(replaced(config, steps=7))


def test_the_export_loads_and_says_what_it_is(done):
    config, result = done
    model, tokenizer = AutoModelForCausalLM.from_pretrained(result.path), AutoTokenizer.from_pretrained(result.path)
    assert model.dtype == torch.float32
    assert tokenizer.chat_template == bytes_tokenizer().chat_template
    assert GenerationConfig.from_pretrained(result.path).eos_token_id == [tokenizer.eos_token_id]
    trained = trained_for(str(result.path))
    assert (trained.carry, trained.eta, trained.gamma) == ("summary", 64, 32)
    card = (result.path / "README.md").read_text()
    assert "A new model, trained to reason" in card
    assert f"| 6 | {result.metrics['eval_loss']:.4f} |" in card
    assert load_dumped(SftConfig, config.output / "config.yaml") == config
    asked = make_format("summary").open(Problem("q", "What is 12 + 12?"))
    assert Renderer.load(result.path).ids(asked) == Renderer(bytes_tokenizer()).ids(asked)


def test_the_evaluation_is_the_mean_over_all_trained_tokens(done):
    config, result = done
    model = AutoModelForCausalLM.from_pretrained(result.path)
    rows = TokenRows.load(config.output / "tokens" / "0" / "validation")
    total = count = 0
    for index in range(len(rows)):
        ids, labels = (torch.tensor(part)[None] for part in rows.row(index))
        with torch.no_grad():
            loss = model(input_ids=ids, labels=labels).loss
        trained = int((labels != -100).sum())
        total, count = total + float(loss) * trained, count + trained
    assert result.metrics["eval_loss"] == pytest.approx(total / count, rel=1e-4)


def test_packs_give_the_loss_that_padded_rows_give():
    generator = np.random.default_rng(0)
    some = [generator.integers(3, 250, size) for size in (9, 30, 17)]
    ends = np.cumsum([len(ids) for ids in some])
    flat = np.concatenate(some).astype(np.int32)
    rows = TokenRows([(flat, generator.random(len(flat)) < 0.7, ends)])
    model = llama(260, initializer_range=0.1)
    found = []
    for packed in (False, True):
        inputs = Batches(rows, 0, packed)([{"rows": [0, 1, 2]}])
        labels = inputs.pop("labels")
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[:, :-1]
        picked = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        found.append(float(picked))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_packing_trains(config):
    result = train_sft(replaced(config, data={"packing": "bfd", "max_length": 400}, batch={"rows": 2, "micro": 1}))
    assert losses(result)[-1] < losses(result)[0]


@pytest.mark.parametrize("tags", [False, True])
def test_adapters_are_exported_alone_and_merged(config, done, tags):
    from peft import PeftModel

    base = ModelSource(path=str(done[1].path), special_tags=tags)
    result = train_sft(replaced(config, model=base, lora=Lora(rank=4, alpha=8.0), steps=4, eval_at_start=True))
    assert [entry["step"] for entry in result.history if "eval_loss" in entry] == [0, 4]
    assert "`model`, trained to reason" in (result.path / "README.md").read_text()
    assert result.path == config.output / "model"
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    merged = AutoModelForCausalLM.from_pretrained(result.path)
    assert merged.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert len(tokenizer) == len(bytes_tokenizer()) + 4 * tags
    start = AutoModelForCausalLM.from_pretrained(base.path)
    if tags:
        give_rows(start, tokenizer, range(len(tokenizer) - 4, len(tokenizer)))
    ids = torch.randint(0, len(tokenizer), (1, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = start(ids).logits
        adapted = PeftModel.from_pretrained(start, config.output / "adapter")(ids).logits
        assert torch.allclose(adapted, merged(ids).logits, atol=1e-4)
        assert not torch.allclose(before, adapted, atol=1e-3)


@pytest.mark.parametrize("tied", [False, True])
def test_a_new_token_begins_as_the_mean_of_its_pieces(tied):
    import copy

    tokenizer = copy.deepcopy(bytes_tokenizer())
    model = llama(len(tokenizer), tie_word_embeddings=tied)
    old = [m.weight.clone() for m in (model.get_input_embeddings(), model.get_output_embeddings())]
    new = add_tags(tokenizer)
    give_rows(model, tokenizer, new)
    pieces = Renderer(bytes_tokenizer()).encode_content("</summary>")
    token = tokenizer.convert_tokens_to_ids("</summary>")
    for before, matrix in zip(old, (model.get_input_embeddings(), model.get_output_embeddings()), strict=True):
        assert torch.allclose(matrix.weight[token], before[pieces].mean(dim=0))
        assert torch.equal(matrix.weight[: len(before)], before)


@pytest.mark.parametrize("tied", [False, True])
def test_new_tokens_are_trained_with_adapters(config, tmp_path, tied):
    base = llama(len(bytes_tokenizer()), tie_word_embeddings=tied)
    base.save_pretrained(tmp_path / "base")
    bytes_tokenizer().save_pretrained(tmp_path / "base")
    source = ModelSource(path=str(tmp_path / "base"), special_tags=True)
    result = train_sft(replaced(config, model=source, lora=Lora(rank=2), steps=2))
    tokenizer = AutoTokenizer.from_pretrained(result.path)
    token = tokenizer.convert_tokens_to_ids("<summary>")
    start = AutoModelForCausalLM.from_pretrained(source.path)
    give_rows(start, tokenizer, range(len(tokenizer) - 4, len(tokenizer)))
    trained = AutoModelForCausalLM.from_pretrained(result.path)
    for one, two in (
        (start.get_input_embeddings(), trained.get_input_embeddings()),
        (start.get_output_embeddings(), trained.get_output_embeddings()),
    ):
        assert not torch.equal(one.weight[token], two.weight[token])
        assert torch.equal(one.weight[5], two.weight[5])


@pytest.mark.parametrize(("carry", "rows"), [("none", 16), ("tail", 32)])
def test_the_baselines_go_the_same_way(config, carry, rows):
    result = train_sft(replaced(config, data={"carry": carry, "eta": 20}, steps=2, eval_every=0))
    assert result.metrics["rows"] == rows
    assert json.loads((result.path / "inftythink.json").read_text()) == {"carry": carry, "eta": 20, "gamma": 32}


def test_rejects_are_written_and_counted(config):
    tokens = config.output / "tokens" / "0" / "train"
    with pytest.raises(UsageError, match="no rows to train on"):
        train_sft(replaced(config, data={"max_length": 10}))
    lines = [json.loads(line) for line in (config.output / "rejects.jsonl").read_text().splitlines()]
    assert len(lines) + len(TokenRows.load(tokens)) == 40
    assert {line["reason"] for line in lines} == {"too_long"}
    assert {line["split"] for line in lines} == {"train", "validation"}


def test_data_sets_are_mixed_by_weight(config, data_folder):
    both = {"folders": (str(data_folder), str(data_folder)), "weights": (1.0, 0.5)}
    result = train_sft(replaced(config, data=both, steps=0, epochs=1.0, eval_every=0))
    assert result.metrics["steps"] == (32 + 16) // 8


def test_rows_may_be_handed_over(config, done):
    rows = TokenRows.load(done[0].output / "tokens" / "0" / "train")
    result = train_sft(replaced(config, steps=2), rows=Rows([rows], TokenRows([])))
    assert result.metrics["eval_loss"] is None
    assert result.metrics["rows"] == len(rows)


def test_a_plain_layout_is_exported_as_one(config):
    result = train_sft(replaced(config, data={"template": "plain"}, steps=1, eval_every=0))
    assert Renderer.load(result.path).template == "plain"


def test_settings_go_over_those_of_a_model_that_exists(config, done):
    source = ModelSource(path=str(done[1].path), settings={"rope_theta": 300_000.0, "max_position_embeddings": 1024})
    result = train_sft(replaced(config, model=source, steps=1, eval_every=0))
    exported = AutoConfig.from_pretrained(result.path)
    assert exported.rope_parameters["rope_theta"] == 300_000.0
    assert exported.max_position_embeddings == 1024


def test_what_cannot_work_is_told(config, tmp_path):
    with pytest.raises(UsageError, match="not both"):
        replaced(config, model={"path": "x"})
    with pytest.raises(UsageError, match="2 data folders need as many weights"):
        replaced(config, data={"folders": ("a", "b"), "weights": (1.0,)})
    with pytest.raises(InputError, match="holds no instances; make them with 'inftythink data build'"):
        train_sft(replaced(config, output=tmp_path / "1", data={"folders": (str(tmp_path),)}))
    with pytest.raises(InputError, match="cannot load a tokenizer"):
        train_sft(replaced(config, output=tmp_path / "2", model={"tokenizer": str(tmp_path / "nothing")}))
    with pytest.raises(UsageError, match="settings with a model_type"):
        replaced(config, model={"settings": {"hidden_size": 3}})
    with pytest.raises(UsageError, match="these settings make no model"):
        train_sft(replaced(config, output=tmp_path / "3", model={"settings": {"model_type": "nothing"}}))


def test_the_command_trains_and_prints_a_table(config, data_folder, tokenizer_folder, capsys):
    shape = [f"--model-settings={name}={value}" for name, value in SHAPE.items()]
    flags = ["--tokenizer", str(tokenizer_folder), "--data", str(data_folder), "--output", str(config.output)]
    assert main(["sft", *shape, *flags, "--steps", "1", "--save-every", "0", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "validation rows" in shown
    assert f"model: {config.output / 'model'}" in shown
