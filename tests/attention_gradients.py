"""The gradients of attention by torch.autograd through a plain float64 composition, and how far
rounding may lead from them.

The composition hides keys before it adds anything to their scores, so that no -inf meets another,
and a query that sees nothing has a row of zeros in place of one of -inf.
"""

from __future__ import annotations

import math

import torch


def positions(given, options):
    """[L, 1] of the queries and [S] of the keys."""
    length, keys = given["q"].shape[2], given["k"].shape[2]
    behind = keys - length if options.get("causal") == "bottom_right" else 0
    return torch.arange(length)[:, None] + behind, torch.arange(keys)


def distance(given, options):
    i, j = positions(given, options)
    return (i - j).abs()


def weights(given, options):
    """(P [B, H, L, S], lse [B, H, L], v of every head) in float64."""
    q, mask = given["q"], given.get("mask")
    k, v = (given[n].repeat_interleave(q.shape[1] // given[n].shape[1], dim=1) for n in "kv")
    size, keys = q.shape[-1], k.shape[2]
    scale, softcap, window = (
        options.get("scale"),
        options.get("softcap"),
        options.get("window") or (None, None),
    )
    i, j = positions(given, options)
    seen = torch.ones(*q.shape[:3], keys, dtype=torch.bool)
    for side, beyond in ((window[0], lambda n: j < i - n), (window[1], lambda n: j > i + n)):
        seen = seen if side is None else seen & ~beyond(side)
    seen = seen & (j <= i) if options.get("causal") else seen
    seen = seen & (j < given["kv_lengths"].view(-1, 1, 1, 1)) if "kv_lengths" in given else seen
    if mask is not None:
        seen = seen & (mask if mask.dtype == torch.bool else mask != -math.inf)
    s = (1 / math.sqrt(size) if scale is None else scale) * (q @ k.mT)
    s = softcap * torch.tanh(s / softcap) if softcap is not None else s
    if "alibi_slopes" in given:
        s = s - given["alibi_slopes"][:, None, None] * distance(given, options)
    if mask is not None and mask.dtype != torch.bool:
        s = s + torch.where(mask == -math.inf, 0.0, mask)
    sink = (
        given["sink"][:, None, None].expand(*s.shape[:3], 1)
        if "sink" in given
        else s.new_full((*s.shape[:3], 1), -math.inf)
    )
    blind = ~seen.any(-1, keepdim=True) & (sink == -math.inf)
    s = torch.where(blind, 0.0, torch.where(seen, s, -math.inf))
    lse = torch.logsumexp(torch.cat([s, sink], -1), -1, keepdim=True)
    return torch.where(seen, torch.exp(s - lse), 0.0), torch.where(blind, -math.inf, lse)[..., 0], v


def leaves(tensors, dtype=None):
    """The tensors, those that have a gradient as leaves; in another dtype if given."""
    differentiable = {n: t.to(dtype or t.dtype).detach() for n, t in tensors.items() if t.is_floating_point()}
    return {**tensors, **{n: t.clone().requires_grad_() for n, t in differentiable.items()}}


def upstream(o, lse, *, seed=9):
    """Gradients of both outputs, normal numbers; of a lse of -inf too, which must make no difference."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in (o, lse))


def gradients(outputs, given, d_outputs):
    """By name, of every tensor that requires one."""
    wanted = {n: t for n, t in given.items() if t.requires_grad}
    return dict(zip(wanted, torch.autograd.grad(outputs, tuple(wanted.values()), d_outputs), strict=True))


def exact(tensors, options, d_o, d_lse):
    """The gradients by torch.autograd in float64, of o and of the lse of the queries that see something."""
    given = leaves(tensors, torch.float64)
    p, lse, v = weights(given, options)
    sees = lse > -math.inf
    return gradients(
        (p @ v, torch.where(sees, lse, 0.0)), given, (d_o.double(), torch.where(sees, d_lse, 0.0).double())
    )


def allowed(tensors, options, d_o, d_lse, *, unit=2.0**-53, stored=0.0):
    """How far each gradient may be off: what its terms add up to in magnitude, times the relative
    error of one term.

    ds is P (dP - D), each of the three a sum of products. A row's P has the errors of its
    exponents, each a product of E terms, and of its lse: (E + 4) u of their size. 300 u is for all
    that does not grow with the scores: an exp, a division, sums over 70 keys, of 40 queries and 4
    heads. unit: u. stored: relative errors of what is rounded to the tensors' own format.
    """
    given = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    p, lse, v = weights(given, options)
    q, size, groups = given["q"].abs(), given["q"].shape[-1], given["k"].shape[1]
    k = given["k"].abs().repeat_interleave(q.shape[1] // groups, dim=1)
    scale = 1 / math.sqrt(size) if options.get("scale") is None else abs(options["scale"])
    lse = torch.where(lse > -math.inf, lse, 0.0)[..., None]
    exponent = (torch.where(p > 0, scale * (q @ k.mT), 0.0).amax(-1, keepdim=True) + lse.abs()) * (size + 4)
    error = unit * (300 + exponent) + stored
    d_o, d_lse = error * d_o.double().abs(), error * d_lse.double().abs()[..., None]
    delta = (d_o * (p @ v.abs())).sum(-1, keepdim=True) + d_lse
    d_s = p * (d_o @ v.abs().mT + delta)
    found = {
        "q": scale * (d_s @ k),
        "k": _shared(scale * (d_s.mT @ q), groups),
        "v": _shared(p.mT @ d_o, groups),
    }
    if "mask" in given and given["mask"].is_floating_point():
        found["mask"] = d_s.sum_to_size(given["mask"].shape)
    if "alibi_slopes" in given:
        found["alibi_slopes"] = (d_s * distance(given, options)).sum((0, 2, 3))
    if "sink" in given:
        found["sink"] = (torch.exp(given["sink"][:, None, None] - lse) * delta).sum((0, 2, 3))
    return found


def _shared(x, groups):
    """[B, H, S, E] summed over the heads that share a key."""
    return x.unflatten(1, (groups, -1)).sum(2)
