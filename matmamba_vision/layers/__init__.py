"""Layers of the backbone; shape suffixes as in `ops`."""

from .block import Block
from .mixer import Mixer, MixerWeights, mix

__all__ = ["Block", "Mixer", "MixerWeights", "mix"]
