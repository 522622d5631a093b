"""Small tokenizers that behave like the real ones, with imitations of real chat templates, and a small model."""

import os
import shutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from inftythink.backends.connect import SHIPPED

WORDS = ("the", "think", "summary", "history", "user", "assistant", "system", "model", "answer", "is", "and", "so")

# Each imitates the template of a family: what it opens, deletes, strips, inserts and refuses.
TEMPLATES = {
    "chatml": (
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    ),
    # Qwen2.5: inserts a system prompt of its own
    "qwen25": (
        "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{%- endif %}"
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    ),
    # Qwen3: deletes thoughts of earlier turns, opens a thought, or writes an empty one when thinking is off
    "qwen3": (
        "{%- for m in messages %}{%- set content = m.content %}"
        "{%- if m.role == 'assistant' %}{%- if '</think>' in content %}"
        "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}{%- endif %}"
        "{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}"
        "{%- else %}{{- '<think>\n' }}{%- endif %}{%- endif %}"
    ),
    # DeepSeek-R1-Distill: begins a sequence, opens a thought, deletes thoughts of earlier turns
    "r1": (
        "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{ m.content }}"
        "{%- elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
        "{%- else %}{%- set content = m.content %}{%- if '</think>' in content %}"
        "{%- set content = content.split('</think>')[-1] %}{%- endif %}"
        "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{%- endif %}"
    ),
    # Llama-3: begins a sequence, strips content
    "llama3": (
        "{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
        " + m['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
    ),
    # Gemma: refuses the system role and two turns of one role, strips content
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
        "{% set role = 'model' if m['role'] == 'assistant' else 'user' %}"
        "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    # Llama-2: markers that are plain text, so that content is encoded together with them
    "llama2": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% elif m.role == 'system' %}{{ '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' }}"
        "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
}
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK = [AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>", "<tool_call>", "</tool_call>")]
R1 = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"]
LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SPACES = [AddedToken(" " * n, special=False, normalized=True) for n in range(8, 1, -1)]

CHAT = ("qwen25", "qwen3", "qwen3-quiet", "r1", "llama3", "gemma")
METASPACE = ("llama2-first", "llama2-always", "llama2-prepend")
BASE = ("neox", "base-bos")
ALL = (*CHAT, *METASPACE, *BASE)


@lru_cache
def tiny(name: str) -> PreTrainedTokenizerFast:
    """Return the small tokenizer of that name, always the same object."""
    if name in METASPACE:
        return _metaspace(name)
    family = name.removesuffix("-quiet")
    added, bos, eos = {
        "qwen25": (CHATML, None, "<|endoftext|>"),
        "qwen3": ([*CHATML, *THINK], None, "<|im_end|>"),
        "r1": ([*R1, *THINK], R1[0], R1[1]),
        "llama3": (LLAMA3, LLAMA3[0], LLAMA3[4]),
        "gemma": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<bos>", "<eos>"),
        "neox": (["<|endoftext|>", "<|padding|>", *SPACES], None, "<|endoftext|>"),
        "base-bos": (["<s>", "</s>"], "<s>", "</s>"),
    }[family]
    backend = byte_level()
    special = [t if isinstance(t, AddedToken) else AddedToken(t, special=True, normalized=False) for t in added]
    backend.add_tokens(special)
    if family in ("llama3", "base-bos"):
        bos_id = backend.token_to_id(bos)
        backend.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, bos_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, chat_template=TEMPLATES.get(family), name_or_path=name
    )


def options(name: str) -> dict[str, bool]:
    """Return what the template of that name is told."""
    return {"enable_thinking": False} if name.endswith("-quiet") else {}


def byte_level(words: tuple[str, ...] = WORDS) -> Tokenizer:
    """Return a byte-level BPE tokenizer of all bytes and a few words, without added tokens."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pieces = [w for word in words for w in (word, "Ġ" + word)] + ["ĊĊ", ">Ċ", "</"] if words else []
    merges = _merges(pieces, vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    return backend


def _metaspace(name: str) -> PreTrainedTokenizerFast:
    """Return a SentencePiece-like BPE tokenizer with byte fallback that puts a space before a text."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for code in range(33, 127):
        vocab[chr(code)] = len(vocab)
    vocab["▁"] = len(vocab)
    merges = _merges([w for word in WORDS for w in (word, "▁" + word)] + ["▁[", "▁▁"], vocab)
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if name.endswith("prepend"):
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = name.rpartition("-")[2]
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=TEMPLATES["llama2"],
        name_or_path=name,
    )


def _merges(words: list[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Add to ``vocab`` what builds each word from the left, and return the merges."""
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    return merges


def smollm2_folder() -> Path:
    """Return the folder that ``scripts/smollm2.py`` fills."""
    cache = Path(os.environ.get("INFTYTHINK_CACHE") or "~/.cache/inftythink").expanduser()
    folder = cache / "smollm2-135m-instruct"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} does not hold the model; run scripts/smollm2.py (make setup does)")
    return folder


@lru_cache
def smollm2() -> PreTrainedTokenizerFast:
    """Return the real tokenizer of SmolLM2-135M-Instruct."""
    return AutoTokenizer.from_pretrained(smollm2_folder())


def llama(vocabulary: int, **changes: int) -> LlamaForCausalLM:
    """Return a small Llama with random weights, always the same."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 1024}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5}
    config = LlamaConfig(vocab_size=vocabulary, **(sizes | heads | changes), bos_token_id=None, eos_token_id=None)
    return LlamaForCausalLM(config).eval()


@lru_cache
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes with a chat template."""
    backend = byte_level(())
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in CHATML])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=TEMPLATES["chatml"], name_or_path="bytes"
    )


@lru_cache
def taught(pairs: tuple[tuple[str, str], ...], steps: int = 150) -> LlamaForCausalLM:
    """Return a small Llama of single bytes that has learnt to answer each prompt's question; in float64, on one thread.

    Bytes that no answer holds are never said, so that what it says is always text.
    """
    tokenizer = bytes_tokenizer()
    model = llama(len(tokenizer), hidden_size=64, intermediate_size=128, initializer_range=0.05)  # type: ignore[arg-type]
    rows = []
    for question, answer in pairs:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        rows.append((prompt, tokenizer(answer + "<|im_end|>").input_ids))
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.tensor([p + a + [0] * (width - len(p) - len(a)) for p, a in rows])
    labels = torch.tensor([[-100] * len(p) + a + [-100] * (width - len(p) - len(a)) for p, a in rows])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    said = {token for _, answer in rows for token in answer}
    never_say(model, set(range(len(tokenizer))) - said)
    return model.eval().to(torch.float64)


def hobble(folder: Path, noise: float = 0.15) -> Path:
    """Save the model that ships with noise on its weights, so that trajectories of one question differ.

    ``noise`` is a share of each matrix's deviation.
    """
    model = AutoModelForCausalLM.from_pretrained(SHIPPED)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
    shutil.copytree(SHIPPED, folder)
    model.save_pretrained(folder)
    return folder


def never_say(model: LlamaForCausalLM, tokens: Iterable[int]) -> LlamaForCausalLM:
    """Take tokens out of what a model can say."""
    old = model.lm_head
    head = torch.nn.Linear(old.in_features, old.out_features, dtype=old.weight.dtype)
    head.weight, head.bias = old.weight, torch.nn.Parameter(torch.zeros(old.out_features, dtype=old.weight.dtype))
    head.bias.data[sorted(tokens)] = -1e4
    model.lm_head = head
    return model
