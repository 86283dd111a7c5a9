"""One engine for every method, its checkpoints, and what it shows while it runs."""

from pipeline.training.checkpoint import CheckpointLoader, CheckpointSaver
from pipeline.training.distributed import rank, world_size
from pipeline.training.handlers import Curves, ProgressBar
from pipeline.training.trainer import PlayerTrainer
from pipeline.training.validation import (
    AnomalyValidation,
    FillValidation,
    PairedValidation,
    SampleValidation,
    ScoreValidation,
    SegmentationValidation,
    TranslationValidation,
)

__all__ = [
    "AnomalyValidation",
    "CheckpointLoader",
    "CheckpointSaver",
    "Curves",
    "FillValidation",
    "PairedValidation",
    "PlayerTrainer",
    "ProgressBar",
    "SampleValidation",
    "ScoreValidation",
    "SegmentationValidation",
    "TranslationValidation",
    "rank",
    "world_size",
]
