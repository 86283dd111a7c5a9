"""Families of generators that the presets of a bundle make, each trained for about the same time."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from pipeline.bundles import Bundle, read_config
from pipeline.errors import UsageError
from pipeline.preprocessing.slices import SliceDataset
from pipeline.studies.latent_space import Generator
from pipeline.studies.study import once
from pipeline.studies.training import trained
from pipeline.training.single import Schedule

logger = logging.getLogger(__name__)

# What the time of a training is foretold from.
EPOCHS_MEASURED = 3


class Families:
    """Trainings of a bundle with some presets or others, in a study's folder.

    Methods, networks, batch, Adam's rate and β and the moving average are the presets' own; all rates are constant for
    half of the time and fall to 0 then. Slices are read once, and nothing is drawn on the way, so that the time is
    that of the training: the processor's on a CPU, whatever else it does, and the clock's on a GPU.

    Args:
        bundle: of generators.
        presets: laid under those of each family.
        overrides: further ids and values, laid over them.
        folder: of the study.
        seconds: of each training.
        device: where to train.

    Raises:
        UsageError: if the bundle has no such preset or setting.
    """

    def __init__(
        self,
        bundle: Bundle,
        presets: Sequence[str],
        overrides: dict[str, Any],
        folder: Path,
        seconds: float,
        device: torch.device,
    ) -> None:
        self.bundle, self.presets, self.overrides = bundle, presets, overrides
        self.folder, self.seconds, self.device = folder, seconds, device
        for preset in set(presets) - set(bundle.presets):
            raise UsageError(
                f"--preset {preset}: found none of that name, expected some of {', '.join(bundle.presets)}"
            )
        for name in set(overrides) - set(read_config(bundle.config("train"))):
            raise UsageError(f"--set {name}: found no such setting of {bundle.name}; see its configs/train.json")

    def settings(self, family: Sequence[str] = ()) -> dict[str, Any]:
        """Of a family's trainings, by config id."""
        settings = read_config(self.bundle.config("train"))
        for preset in (*self.presets, *family):
            settings |= read_config(self.bundle.config(preset))
        return settings | self.overrides

    def steps(self, family: Sequence[str], slices: SliceDataset) -> int:
        """How many steps the time is enough for: whole epochs, foretold by a short training, and kept."""
        name, an_epoch = self._name(family), self._epoch(family, slices)

        def measure() -> dict[str, Any]:
            run = self.folder / "calibration" / name
            shutil.rmtree(run, ignore_errors=True)
            started = self._clock()
            self._train(run, family, slices, 0, EPOCHS_MEASURED * an_epoch)
            taken = self._clock() - started
            shutil.rmtree(run, ignore_errors=True)
            return {"seconds_per_epoch": taken / EPOCHS_MEASURED}

        known = once(self.folder / "calibration" / f"{name}.json", measure)
        epochs = max(1, round(self.seconds / float(known["seconds_per_epoch"])))
        return epochs * an_epoch

    def generator(self, family: Sequence[str], slices: SliceDataset, seed: int) -> Generator:
        """A family's trained generator; trained first, or to its end, if it is not."""
        name = f"{self._name(family)}_seed={seed}"
        logger.info("generator %s", name)
        return self._train(self.folder / "runs" / name, family, slices, seed, self.steps(family, slices))

    def taken(self, family: Sequence[str], slices: SliceDataset, seed: int) -> float:
        """Seconds that a training took, from its last start."""
        self.steps(family, slices)

        def measure() -> dict[str, Any]:
            started = self._clock()
            self.generator(family, slices, seed)
            return {"seconds": self._clock() - started}

        path = self.folder / "runs" / f"{self._name(family)}_seed={seed}" / "time.json"
        return float(once(path, measure)["seconds"])

    def _clock(self) -> float:
        return time.process_time() if self.device.type == "cpu" else time.monotonic()

    def _name(self, family: Sequence[str]) -> str:
        return "-".join(family) or self.bundle.name

    def _epoch(self, family: Sequence[str], slices: SliceDataset) -> int:
        steps: int = -(-len(slices) // self.settings(family)["batch_size"])
        return steps

    def _train(self, run: Path, family: Sequence[str], slices: SliceDataset, seed: int, steps: int) -> Generator:
        settings = self.settings(family)
        if "iterations" in settings["method"]:  # growing is spread over them
            settings["method"] = {**settings["method"], "iterations": steps}

        def build() -> Any:
            return ConfigParser(settings).get_parsed_content("method")

        network = trained(
            run,
            build,
            lambda: slices,
            steps,
            seed,
            self.device,
            schedule=Schedule(
                batch_size=settings["batch_size"],
                rate=settings["rate"],
                betas=tuple(settings["optimizers"]["generator"]["betas"]),
                decay="late linear",
                average_decay=settings["average_decay"],
            ),
        )
        return Generator(network, settings["latent"], self.device)
