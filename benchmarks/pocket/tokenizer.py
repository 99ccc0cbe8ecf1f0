"""Train the pocket tokenizer: byte-level BPE of 1,792 tokens, with pairs of digits and capitals of their own.

Three choices let a small model copy by induction. Numbers are pairs of digits. A capital letter (with its
space) is a token of its own, so `France`, ` France` and the slug `/france` end in the same tokens and differ in the
first only. Words are split by spaces before BPE, so that no token ever spans two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mgrpo_lightning.policy.chatml import CHATML

END = "<|endoftext|>"
SPECIALS = (END, "<|im_start|>", "<|im_end|>")
ANSWER, LABEL_ENDS = "<answer>", (":Ġ", ':Ġ"')
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", ANSWER, "</answer>")

# In order: what stands between a label and a value, so that the value starts as it does in an answer; a capital; the
# first letter of a slug; the rest of a word; one or two digits; punctuation; white space.
PIECES = (
    r': "?(?=[.\p{L}\p{N}])| ?\p{Lu}|(?<=[/_-])\p{Ll}| ?[\p{Ll}\p{Lm}\p{Lo}\p{M}]+| ?\p{N}{1,2}'
    r"| ?[^\s\p{L}\p{N}]+|\s+"
)
ALWAYS = "".join(f" {n:02d}-{n:02d}" for n in range(100)) + ': "a'
"""What is a token however rare it is in the texts: every pair of digits, with and without a space before it, and what
stands between a label and a title."""
ALWAYS_COUNT = 2000


def train_tokenizer(texts: Iterable[str], *, size: int = 1792, max_length: int = 2048) -> PreTrainedTokenizerFast:
    """Learn the merges from `texts` (without chat markup) and wrap them as a Hugging Face tokenizer with ChatML.

    Args:
        texts: What to count; deterministic given its order.
        size: Vocabulary size, special tokens and tags included.
        max_length: Longest sequence the model was made for.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(TAGS),
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain(texts, [ALWAYS] * ALWAYS_COUNT), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in TAGS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=END, eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    wrapped.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    wrapped.model_max_length = max_length
    wrapped.chat_template = CHATML
    return wrapped


def twins(tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    """Groups of tokens that are one letter or word written differently: ` G`, `G` and `g`; ` of` and `of`.

    The model starts with nearly the same embedding for the members of a group, so that a name is found again behind a
    quote, a slash or a line break. What opens a value and what opens an answer are twins too.
    """
    groups: dict[str, list[int]] = {}
    for token, index in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        bare = token.removeprefix("Ġ")
        key = ANSWER if token in (ANSWER, *LABEL_ENDS) else bare.lower() if len(bare) == 1 else bare
        groups.setdefault(key, []).append(index)
    return [group for group in groups.values() if len(group) > 1]
