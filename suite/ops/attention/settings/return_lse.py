"""return_lse: the log-sum-exp of each query's scores is a second output."""

from __future__ import annotations

from suite.ops.attention.settings.base import AttentionSetting
from suite.settings import Wording


class ReturnLse(AttentionSetting):
    """Whether the call returns (o, lse). See suite/ops/attention/log_sum_exp.py."""

    name = "return_lse"
    default = False
    levels = (False, True)
    wordings = (Wording("return_lse", "lse", "log-sum-exp", "with the log-sum-exp"),)
