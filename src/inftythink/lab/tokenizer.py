r"""The laboratory's tokenizer: a few words, digits, cells; bytes for everything else. A Hugging Face tokenizer.

Words of the puzzles and the format's tags with the line breaks around them are one token each, so that a state stands
at the same distance behind the state before it wherever a round begins: behind a blank line, a question, a history.
"""

from __future__ import annotations

from typing import Any

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"

_TAGS = (
    *("<history>\n", "\n</history>\n<think>\n", "<think>\n"),
    *("\n</think>\n\n<summary>\n", "\n</think>\n\n", "\n</summary>"),
)
_WORDS = (
    *("Read ", "Step ", "Left ", "Tell ", "Try ", ": ", "\n\n", "\\boxed{", "none"),
    *("How many Collatz steps from ", "Where do ", " Collatz steps lead from "),
    *("Rule 45, ", " steps from ", "Colour "),
)
# Longest first: an alternative that is the beginning of another must come behind it.
_PIECES = sorted((*_TAGS, *_WORDS), key=len, reverse=True)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    f"{{%- if message.role == 'assistant' %}}{{{{- '{ASSISTANT}' + message.content + '{END}' }}}}"
    f"{{%- elif message.role == 'user' %}}{{{{- '{USER}' + message.content }}}}{{%- endif %}}"
    "{%- endfor %}"
    f"{{%- if add_generation_prompt %}}{{{{- '{ASSISTANT}' }}}}{{%- endif %}}"
)


def make_tokenizer() -> Any:
    """Return the tokenizer, a ``PreTrainedTokenizerFast``."""
    import re

    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [byte_level.pre_tokenize_str(piece)[0][0] for piece in _PIECES]
    symbols = dict.fromkeys([*pieces, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    words = Regex("|".join([*map(re.escape, _PIECES), r"[\s\S]"]))
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "isolated"), byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in (END, USER, ASSISTANT)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=END,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
