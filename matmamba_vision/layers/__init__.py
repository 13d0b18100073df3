"""Layers of the backbone; shape suffixes as in `ops`."""

from .attention import Attention
from .block import Block
from .carried_state import MixerState, MixerStates
from .mixer import Mixer, MixerSetting, MixerWeights, mix
from .mlp import Mlp
from .nested import Nested
from .order import BLOCK_SCANS, SCANS, Orders, scan_orders, scans_of_blocks

__all__ = [
    "BLOCK_SCANS",
    "SCANS",
    "Attention",
    "Block",
    "Mixer",
    "MixerSetting",
    "MixerState",
    "MixerStates",
    "MixerWeights",
    "Mlp",
    "Nested",
    "Orders",
    "mix",
    "scan_orders",
    "scans_of_blocks",
]
