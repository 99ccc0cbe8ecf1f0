"""Compare hidden states of a loaded base across test passes: alone, in a batch, at the context's end, with a cache.

Sampler and trainer cut rows into passes in different ways, and both must compute the same log-probabilities. The check
runs a few short passes with the real weights. ``supported.py`` refuses first what the config shows; this check finds
what the config does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.lm_head import hidden_states
from mgrpo_lightning.policy.sampling.row_cache import RowCache
from mgrpo_lightning.policy.supported import TAKE

TOKENS = 20
"""Length of each test row. A row "at the end of the context" has as few tokens, but the last positions."""


@contextmanager
def clear_pass_error(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Turn any error that an architecture raises in a test pass into one clear ConfigurationError.

    Args:
        model: The base that runs in the block.
        name: The base's name in the team file, for the error message.

    Raises:
        ConfigurationError: The architecture failed. An out-of-memory error is passed on unchanged.
    """
    try:
        yield
    except (ConfigurationError, torch.OutOfMemoryError):
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {shorten(str(error), 200, placeholder='...')}"
        raise ConfigurationError(
            f"base_model {name!r} ({type(model).__name__}) cannot place sequences of a batch independently ({said}).",
            hint=TAKE,
        ) from error


@torch.no_grad()
def check_passes(model: PreTrainedModel, name: str, *, context: int) -> None:
    """Require the same hidden states for a row alone, beside a row at the end of the context, and in cached pieces.

    Args:
        model: A base as loaded.
        name: The base's name in the team file, for the error message.
        context: Length of the longest row in tokens.

    Raises:
        ConfigurationError: The states differ by more than rounding.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    # The factor, a prime, spreads the ids over the vocabulary: rare ids alone are ill-conditioned.
    ids = (torch.arange(1, 2 * TOKENS + 1, device=model.device).view(2, -1) * 7919) % vocabulary
    # The second row has the last positions of the context. Rotary frequencies that follow the longest row of a pass
    # would change the first row too.
    first = torch.arange(TOKENS, device=model.device)
    positions = torch.stack([first, first + max(context - TOKENS, 0)])
    row, last = (
        hidden_states(model, ids[i : i + 1], position_ids=positions[i : i + 1], attention_mask=_causal(model, 1))[0]
        for i in range(2)
    )
    cut = hidden_states(model, ids[:1, :-4])[0]
    _require(row[:-4], cut, model, name, "the result of a token depends on later tokens")
    both = hidden_states(model, ids, position_ids=positions, attention_mask=_causal(model, 2))
    why = f"the result of a sequence depends on the longest one of its batch, which may have {context} tokens"
    for alone, beside in zip((row, last), both, strict=True):
        _require(alone, beside, model, name, why)
    cached = _in_pieces(model, ids)
    _require(row[-4:], cached[0], model, name, "a sequence computed in pieces, with a cache, has another result")
    plain = hidden_states(model, ids[1:])[0]
    _require(plain[-4:], cached[1], model, name, "a sequence computed in pieces, with a cache, has another result")


def _in_pieces(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Hidden states of the last four tokens, computed as the sampler does: two cached rows of different lengths.

    The second row is first extended to the length of the first one.
    """
    cache = RowCache(model.dtype, model.device)
    cache.reserve(2, TOKENS + 8)
    starts = torch.tensor([TOKENS - 4, TOKENS - 9], device=model.device)
    pieces: tuple[tuple[range | list[int], list[int], Tensor], ...] = (
        ([0], [0], ids[:1, : starts[0]]),
        ([1], [0], ids[1:, : starts[1]]),
        ([1], [int(starts[1])], ids[1:, int(starts[1]) : -4]),
        (range(2), [TOKENS - 4, TOKENS - 4], ids[:, -4:]),
    )
    for rows, offsets, piece in pieces:
        at, mask = cache.begin(rows, torch.tensor(offsets, device=model.device), piece.shape[1])
        states = hidden_states(
            model, piece, position_ids=at, attention_mask=mask, past_key_values=cache, use_cache=True
        )
    return states


def _causal(model: PreTrainedModel, rows: int) -> Tensor:
    """An explicit causal mask. Without one, transformers takes positions that do not start at 0 for packed rows."""
    hidden = torch.full((rows, 1, TOKENS, TOKENS), -torch.inf, dtype=model.dtype, device=model.device)
    return hidden.triu(1)


def _require(states: Tensor, other: Tensor, model: PreTrainedModel, name: str, otherwise: str) -> None:
    distance = float((states.float() - other.float()).norm() / states.float().norm())
    # `not <=` instead of `>`: a distance of NaN must be refused too.
    if not distance <= (5e-2 if model.dtype == torch.bfloat16 else 1e-2):
        raise ConfigurationError(
            f"base_model {name!r} ({type(model).__name__}): {otherwise} (by {distance:.1g} of their norm).", hint=TAKE
        )
