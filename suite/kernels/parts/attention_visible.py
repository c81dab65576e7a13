"""Which keys a query sees by its position: j <= i + o if causal, and a window around i + o (o = S -
L if bottom_right).
"""

from __future__ import annotations

import torch

Window = tuple[int | None, int | None]


def offset(causal: str | None, length: int, keys: int) -> int:
    """o: how far the queries stand behind the keys of the same index."""
    return keys - length if causal == "bottom_right" else 0


def within(
    query: torch.Tensor, key: torch.Tensor, *, causal: str | None, window: Window | None
) -> torch.Tensor:
    """Whether a query at i + o may see a key at j: positions of any shapes that broadcast."""
    left, right = window or (None, None)
    seen = torch.ones_like(key == query)
    if causal is not None:
        seen = seen & (key <= query)
    if left is not None:
        seen = seen & (key >= query - left)
    if right is not None:
        seen = seen & (key <= query + right)
    return seen


def as_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    causal: str | None = None,
    window: Window | None = None,
    kv_lengths: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """All of these as one mask, additive where `mask` is, else boolean; `mask` itself, None
    included, where it is alone.
    """
    if causal is None and window is None and kv_lengths is None:
        return mask
    length, keys = q.shape[2], k.shape[2]
    query, key = torch.arange(length, device=q.device), torch.arange(keys, device=q.device)
    seen = within(query[:, None] + offset(causal, length, keys), key, causal=causal, window=window)
    if kv_lengths is not None:
        seen = seen & (key < kv_lengths.view(-1, 1, 1, 1))
    if mask is None:
        return seen
    return seen & mask if mask.dtype == torch.bool else torch.where(seen, mask, -torch.inf)
