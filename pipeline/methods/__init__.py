"""One file per method, readable beside its paper."""

from pipeline.methods.base import Method, Player
from pipeline.methods.gvs import GVS
from pipeline.methods.segmentation import Segmentation

__all__ = ["GVS", "Method", "Player", "Segmentation"]
