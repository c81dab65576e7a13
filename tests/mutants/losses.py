"""Mutants of cross_entropy: tests/losses.py with one step wrong."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from tests.losses import Loss, pick, top
from tests.mutants.mutant import BOTH, FLOAT32, add, mutant, round_to, sequential, step

OP = "cross_entropy"


wrong = functools.partial(step, OP, Loss(), dtypes=BOTH)
"""wrong(step, breaks, *statuses) registers the kernel with a function in place of a step."""

wrong_call = functools.partial(mutant, OP, dtypes=BOTH)
"""wrong_call(breaks, *statuses) registers f(logits, target, options of cross_entropy)."""


# the surprisal


@wrong("surprisal", "log of softmax: an infinite loss where softmax underflows", "nonfinite", "inaccurate")
def log_of_softmax(z):
    return -torch.log(torch.softmax(z, -1))


@wrong("surprisal", "lse - z with a rounded lse, not declared")
def lse_minus_logit(z):
    return torch.logsumexp(z, -1, keepdim=True) - z


@wrong("surprisal", "lse is stored in bfloat16")
def lse_in_bfloat16(z):
    return round_to(torch.logsumexp(z, -1, keepdim=True), torch.bfloat16) - z


@wrong("surprisal", "log_softmax is rounded to bfloat16 before it is picked", dtypes=FLOAT32)
def log_softmax_in_bfloat16(z):
    return -round_to(torch.log_softmax(z, -1), torch.bfloat16)


@wrong("surprisal", "no shift: exp(z) overflows", "nonfinite", "inaccurate", "law_broken")
def unshifted(z):
    return torch.log(torch.exp(z).sum(-1, keepdim=True)) - z


@wrong("surprisal", "probabilities are clipped to [1e-7, 1 - 1e-7]", "inaccurate", "law_broken")
def clipped_probability(z):
    return -torch.log(torch.softmax(z, -1).clamp(1e-7, 1 - 1e-7))


@wrong("surprisal", "an epsilon inside the log", "inaccurate", "law_broken")
def epsilon_in_the_log(z):
    return -torch.log(torch.softmax(z, -1) + 1e-8)


@wrong("surprisal", "losses are clamped at 100", "inaccurate", "law_broken")
def clamped_loss(z):
    return -torch.log_softmax(z, -1).clamp(min=-100)


@wrong("surprisal", "a target of -inf costs 1e4 instead of inf", "law_broken")
def finite_loss_of_a_masked_target(z):
    return (-torch.log_softmax(z, -1)).clamp(max=1e4)


@wrong("surprisal", "the last class is left out of the sum", "inaccurate", "nonfinite")
def last_class_dropped(z):
    m = top(z)
    return torch.log(torch.exp(z[..., :-1] - m).sum(-1, keepdim=True)) - (z - m)


@wrong("surprisal", "padding classes up to the next multiple of 64 have the logit 0 and count")
def padding_classes(z):
    lanes = -z.shape[-1] % 64
    wider = torch.nn.functional.pad(z, (0, lanes))
    return -torch.log_softmax(wider, -1)[..., : z.shape[-1]]


@wrong("surprisal", "classes from 65,536 on are left out of the sum", "inaccurate", "nonfinite")
def second_tile_of_classes_lost(z):
    m = top(z)
    return torch.log(torch.exp(z[..., :65536] - m).sum(-1, keepdim=True)) - (z - m)


@wrong("surprisal", "each chunk of 32 classes is shifted by its own maximum only")
def chunk_maximum_only(z):
    total = sum(torch.exp(chunk - top(chunk)).sum(-1, keepdim=True) for chunk in torch.split(z, 32, -1))
    return torch.log(total) - (z - top(z))


@wrong("surprisal", "the sum of exponentials is accumulated in bfloat16")
def class_sum_in_bfloat16(z):
    z = z - top(z)
    return torch.log(sequential(torch.exp(z), torch.bfloat16)) - z


@wrong("surprisal", "the loss is in base 2")
def loss_in_base_2(z):
    return -torch.log_softmax(z, -1) * 1.4426950408889634


@wrong("surprisal", "NaN is replaced by 0", "law_broken")
def nan_swallowed(z):
    return -torch.log_softmax(z, -1).nan_to_num(0.0, torch.inf, -torch.inf)


@wrong("surprisal", "the maximum of the whole batch instead of each row's", "nonfinite", "inaccurate")
def maximum_of_the_batch(z):
    m = z.nan_to_num(-torch.inf, -torch.inf, -torch.inf).amax() if z.numel() else 0.0
    return torch.log(torch.exp(z - m).sum(-1, keepdim=True)) - (z - m)


# the target


@wrong("pick", "targets are counted from 1")
def target_off_by_one(surprisal, target, kept):
    return surprisal.gather(-1, torch.where(kept, target - 1, 0).clamp(min=0)[..., None])[..., 0]


@wrong("pick", "targets are held in 16 bits with a sign")
def target_in_16_bits(surprisal, target, kept):
    short = torch.where(kept, target, 0).to(torch.int16).long() % surprisal.shape[-1]
    return surprisal.gather(-1, short[..., None])[..., 0]


@wrong("pick", "target 0 is taken for padding and costs nothing")
def class_0_is_padding(surprisal, target, kept):
    picked = surprisal.gather(-1, torch.where(kept, target, 0)[..., None])[..., 0]
    return torch.where(target == 0, 0.0, picked)


@wrong("pick", "the last class has no loss")
def last_class_is_free(surprisal, target, kept):
    picked = surprisal.gather(-1, torch.where(kept, target, 0)[..., None])[..., 0]
    return torch.where(target == surprisal.shape[-1] - 1, 0.0, picked)


@wrong("weigh", "0 * inf: a class of probability 0 at -inf makes the loss NaN", "nonfinite")
def zero_times_infinity(surprisal, weights):
    return (weights * surprisal).sum(-1)


@wrong("weigh", "of class probabilities, the most likely class is taken for the target")
def probabilities_as_one_hot(surprisal, weights):
    return surprisal.gather(-1, weights.argmax(-1, keepdim=True))[..., 0]


@wrong("weigh", "class probabilities are rounded to float16", dtypes=FLOAT32)
def probabilities_in_float16(surprisal, weights):
    weights = round_to(weights, torch.float16)
    return torch.where(weights > 0, weights * surprisal, 0.0).sum(-1)


@wrong("weigh", "the last class's probability is left out")
def last_probability_dropped(surprisal, weights):
    return torch.where(weights > 0, weights * surprisal, 0.0)[..., :-1].sum(-1)


@wrong("weigh", "infinite surprisals are dropped, with weight or without", "law_broken")
def infinite_surprisal_dropped(surprisal, weights):
    return torch.where(surprisal.isinf(), 0.0, weights * surprisal).sum(-1)


# what is ignored


@wrong(
    "ignore",
    "the ignored label is used as an index: -100 counts as class 0",
    "inaccurate",
    "nonfinite",
    "law_broken",
)
def ignored_rows_have_a_loss(smoothed, targeted, kept):
    return smoothed


@wrong("kept", "ignore_index is always -100", "inaccurate")
def ignore_index_fixed(target, ignore_index):
    return target != -100


@wrong("kept", "only negative targets are ignored", "inaccurate")
def negative_targets_only(target, ignore_index):
    return target >= 0


@wrong("ignore", "an ignored row is multiplied by 0, and a NaN in it stays", "nonfinite", "law_broken")
def ignored_by_a_product(smoothed, targeted, kept):
    return smoothed * kept


# smoothing


@wrong("smooth", "smoothing spreads over n - 1 classes")
def smoothing_over_the_other_classes(loss, surprisal, smoothing):
    return (1 - smoothing) * loss + smoothing / (surprisal.shape[-1] - 1) * (surprisal.sum(-1) - loss)


@wrong("smooth", "smoothing is forgotten")
def smoothing_forgotten(loss, surprisal, smoothing):
    return loss


@wrong("smooth", "smoothing is applied twice")
def smoothing_twice(loss, surprisal, smoothing):
    for _ in range(2):
        loss = (1 - smoothing) * loss + smoothing * surprisal.mean(-1)
    return loss


@wrong("smooth", "the target keeps its whole weight under smoothing")
def target_not_reduced(loss, surprisal, smoothing):
    return loss + smoothing * surprisal.mean(-1)


@wrong("smooth", "smoothing is summed over the classes, and not averaged")
def smoothing_not_averaged(loss, surprisal, smoothing):
    return (1 - smoothing) * loss + smoothing * surprisal.sum(-1)


def kept_rows_picked(surprisal, target, kept):
    return torch.where(kept, pick(surprisal, target, kept), 0.0)


add(
    OP,
    "ignored_rows_are_smoothed",
    "an ignored row keeps the loss of its smoothing",
    lambda: replace(Loss(), pick=kept_rows_picked, ignore=lambda smoothed, targeted, kept: smoothed),
    dtypes=BOTH,
)


# reductions


@wrong("mean", "ignored rows count in the mean")
def ignored_rows_count(loss, kept):
    return loss.sum() / kept.numel()


@wrong("mean", "the rows that count are those whose loss is not 0")
def rows_counted_by_their_loss(loss, kept):
    return loss.sum() / (loss != 0).sum()


@wrong("mean", "the row count is held in float16", "inaccurate", "nonfinite")
def count_in_float16(loss, kept):
    return loss.sum() / kept.half().sum()


@wrong("mean", "the row count is held in 16 bits without a sign", "inaccurate", "law_broken")
def count_in_16_bits(loss, kept):
    return loss.sum() / (kept.numel() % 65536 - (~kept).sum())


@wrong("mean", "the mean divides by the batch size, and not by all rows, for class probabilities")
def divided_by_the_batch_size(loss, kept):
    return loss.sum() / (loss.shape[0] if kept.all() and loss.ndim else kept.sum())


@wrong("mean", "the mean over no row is 0", "law_broken")
def empty_mean_is_zero(loss, kept):
    return loss.sum() / kept.sum().clamp(min=1)


@wrong("mean", "the mean of the means of groups of 4 rows, of which one may hold an ignored row")
def mean_of_means(loss, kept):
    groups = zip(torch.split(loss.reshape(-1), 4), torch.split(kept.reshape(-1), 4), strict=True)
    means = [some.sum() / those.sum() for some, those in groups if those.any()]
    return torch.stack(means).mean() if means else loss.sum() / 0


@wrong("mean", "the mean of the means of groups of 8 rows, each of which holds as many ignored rows")
def mean_of_means_of_8(loss, kept):
    groups = zip(torch.split(loss.reshape(-1), 8), torch.split(kept.reshape(-1), 8), strict=True)
    means = [some.sum() / those.sum() for some, those in groups if those.any()]
    return torch.stack(means).mean() if means else loss.sum() / 0


@wrong("mean", "the last row is left out of the mean")
def last_row_left_out(loss, kept):
    return loss.reshape(-1)[:-1].sum() / kept.reshape(-1)[:-1].sum()


@wrong("mean", "the mean is of the losses in bfloat16", dtypes=FLOAT32)
def mean_of_rounded_losses(loss, kept):
    return round_to(loss, torch.bfloat16).sum() / kept.sum()


@wrong("mean", "the sum of the losses is held in float16", "inaccurate", "nonfinite")
def sum_of_the_mean_in_float16(loss, kept):
    return round_to(loss.sum(), torch.float16) / kept.sum()


@wrong("total", "the sum is accumulated in bfloat16")
def sum_in_bfloat16(loss):
    return sequential(loss.reshape(-1), torch.bfloat16).sum()


@wrong("total", "reduction='sum' returns the mean")
def sum_is_the_mean(loss):
    return loss.mean()


@wrong("mean", "reduction='mean' returns the sum", "inaccurate", "law_broken")
def mean_is_the_sum(loss, kept):
    return loss.sum()


# dims and calls


@wrong("classes_last", "logits of more than two dims are reshaped, and not transposed, to rows of classes")
def classes_reshaped(tensor):
    return tensor.reshape(tensor.shape[0], *tensor.shape[2:], tensor.shape[1]) if tensor.ndim > 2 else tensor


@wrong_call("the gradient is left in the logits, in place", "law_broken")
def logits_overwritten(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    loss = Loss()(logits, target, ignore_index, label_smoothing, reduction)
    logits.copy_(torch.softmax(logits.float(), 0 if logits.ndim == 1 else 1))
    return loss


@wrong_call(
    "the buffer of the sum is not emptied between calls",
    "law_broken",
    "inaccurate",
    "nonfinite",
    stateful=True,
)
def sum_of_all_calls():
    before = [0.0]

    def kernel(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
        loss = Loss()(logits, target, ignore_index, label_smoothing, reduction)
        if reduction == "mean":
            loss, before[0] = loss + before[0], float(loss.nan_to_num(0.0))
        return loss

    return kernel


@wrong_call("the losses of ignored rows are not written", "law_broken", "inaccurate", "nonfinite")
def ignored_rows_not_written(logits, target, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    loss = Loss()(logits, target, ignore_index, label_smoothing, reduction)
    if reduction != "none" or target.is_floating_point():
        return loss
    written = torch.empty_like(loss)
    kept = target != ignore_index
    written[kept] = loss[kept]
    return written
