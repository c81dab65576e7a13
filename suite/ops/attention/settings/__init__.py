"""The settings of attention: its options, its optional tensors and the sizes that q does not tell.

An option more is a file here and its name in SETTINGS.
"""

from __future__ import annotations

from suite.ops.attention.settings.alibi_slopes import AlibiSlopes
from suite.ops.attention.settings.base import AttentionSetting
from suite.ops.attention.settings.causal import CAUSAL
from suite.ops.attention.settings.heads import EnableGqa, KeyHeads
from suite.ops.attention.settings.kv_lengths import KvLengths
from suite.ops.attention.settings.mask import MaskSetting
from suite.ops.attention.settings.return_lse import ReturnLse
from suite.ops.attention.settings.scale import SCALE
from suite.ops.attention.settings.sink import Sink
from suite.ops.attention.settings.sizes import Keys, ValueSize
from suite.ops.attention.settings.softcap import Softcap
from suite.ops.attention.settings.window import Window
from suite.settings import Part, Setting

SETTINGS: tuple[AttentionSetting, ...] = (
    CAUSAL,
    MaskSetting(),
    Window(),
    KvLengths(),
    AlibiSlopes(),
    Sink(),
    Softcap(),
    SCALE,
    EnableGqa(),
    ReturnLse(),
)
"""In the order in which people read them. Scores are changed in the order of their `stage`."""

SIZES: tuple[Setting, ...] = (KeyHeads(), ValueSize(), Keys())

TENSORS = {setting.name: setting for setting in SETTINGS if setting.part is Part.TENSOR}
"""Those that are tensors, by name."""
