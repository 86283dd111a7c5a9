"""A study's own networks and runs: trained once, kept in its folder, and taken up again where they were stopped."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.bundles import Bundle, find_bundle
from pipeline.files import read_json, sha256, write_json
from pipeline.launch import RECORD as RUN_RECORD
from pipeline.launch import train
from pipeline.methods.base import Method
from pipeline.training.checkpoint import CHECKPOINT, WEIGHTS, export_file, kept_epochs, load_tensors
from pipeline.training.single import SEGMENTOR, Schedule, train_alone

RECORD = "trained.json"


def run_trained(bundle: Bundle, cohort: Path, run: Path, presets: Sequence[str], settings: dict[str, Any]) -> Bundle:
    """A finished run of a bundle, from its folder; trained there first, or to its end, if it is not.

    Args:
        bundle: what to train.
        cohort: folder made by `preprocess`.
        run: the run's folder.
        presets: names of `bundle.presets`.
        settings: further ids and values of its `train.json`, with `device_name`.
    """
    record = read_json(run / RUN_RECORD)
    if not record:
        # What was stopped before it began has nothing to go on from.
        shutil.rmtree(run, ignore_errors=True)
        # In one precision, not in what is fastest when each is started: a study compares its runs.
        train(bundle, cohort, run, presets, {"amp": None, **settings})
    elif not record["finished"]:
        train(bundle, cohort, run, overrides={"device_name": settings["device_name"]}, resume=True)
    return find_bundle(str(run))


def trained(
    folder: Path,
    build: Callable[[], Method],
    dataset: Callable[[], Dataset[dict[str, Tensor]]],
    iterations: int,
    seed: int,
    device: torch.device,
    keep_every: int | None = None,
    schedule: Schedule = SEGMENTOR,
) -> nn.Module:
    """The main export of a method, from `folder`; trained there first if it is not.

    The arguments are those of `trained_exports`.

    Returns:
        The export on the device, ready for use.
    """
    return next(iter(trained_exports(folder, build, dataset, iterations, seed, device, keep_every, schedule).values()))


def trained_exports(
    folder: Path,
    build: Callable[[], Method],
    dataset: Callable[[], Dataset[dict[str, Tensor]]],
    iterations: int,
    seed: int,
    device: torch.device,
    keep_every: int | None = None,
    schedule: Schedule = SEGMENTOR,
) -> dict[str, nn.Module]:
    """All exports of a method, from `folder`; trained there first if they are not.

    The global random state is set.

    Args:
        folder: receives the weights, those of the main export as `model.pt`, and, last, `trained.json`; before that,
            `checkpoint.pt` to go on from.
        build: makes the method, with its networks' first weights.
        dataset: makes the training slices.
        iterations: about how many; whole epochs are trained.
        seed: of weights, order of slices, and what the method draws.
        device: where to train.
        keep_every: as in `CheckpointSaver`, for `each_epoch`.
        schedule: batch, learning rate and its decay.

    Returns:
        By name, the main one first, on the device, ready for use.
    """
    set_determinism(seed=seed)
    method = build()
    exports = dict(method.exports)
    if not (folder / RECORD).is_file():
        epochs = train_alone(folder, method, dataset(), iterations, seed, device, keep_every, schedule)
        write_json(folder / RECORD, {"weights_sha256": sha256(folder / WEIGHTS), "epochs": epochs, "seed": seed})
        (folder / CHECKPOINT).unlink()
    for number, (name, export) in enumerate(exports.items()):
        export.load_state_dict(load_tensors(folder / (export_file(name) if number else WEIGHTS)))
        export.to(device).eval()
    return exports


def each_epoch(folder: Path, build: Callable[[], nn.Module], device: torch.device) -> dict[int, nn.Module]:
    """The networks that a training with `keep_every` kept, by epoch, on the device, ready for use.

    Args:
        folder: of the training.
        build: makes the network.
        device: where it is used.
    """
    networks = {}
    for epoch in kept_epochs(folder):
        network = build()
        network.load_state_dict(load_tensors(folder / export_file(epoch=epoch)))
        networks[epoch] = network.to(device).eval()
    return networks
