"""One file per method, readable beside its paper."""

from pipeline.methods.base import Method, Player
from pipeline.methods.gvs import GVS

__all__ = ["GVS", "Method", "Player"]
