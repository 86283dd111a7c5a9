"""Start a training from a bundle: the run's folder becomes a bundle of its own."""

import logging
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from pipeline import __version__
from pipeline.bundles import Bundle, foreign_code, is_plain, read_config
from pipeline.errors import OutputError, PipelineError, UsageError
from pipeline.files import sha256, write_json
from pipeline.preprocessing.cohort import COHORT_FILE, read_cohort
from pipeline.preprocessing.domain import describe
from pipeline.training.checkpoint import CHECKPOINT

RECORD = "run.json"
SHOWN, EXCERPT = 3, 120  # pieces of foreign code in a message, and characters of each
# Settings that a training and the use of its result each choose for themselves.
OWN = ("bundle_root", "dataset_dir", "output_dir", "device_name", "batch_size")
# MONAI remarks on the missing logging file, which is left out on purpose: the command line logs for itself.
logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)


def train(
    bundle: Bundle,
    cohort: Path,
    run: Path,
    presets: Sequence[str] = (),
    overrides: dict[str, Any] | None = None,
    resume: bool = False,
    trust: bool = False,
) -> None:
    """Train a bundle on a preprocessed cohort.

    The configs, with presets and overrides laid over them, are written to `RUN/configs`, and the training runs from
    there: what lies in the folder is what was run, and `RUN` is a bundle that `synthesize -b RUN` and MONAI's
    commands understand.

    Args:
        bundle: what to train.
        cohort: folder made by `preprocess`.
        run: the run's folder; new, or with `resume` one that was started before.
        presets: names of `bundle.presets`.
        overrides: config ids and values.
        resume: go on from the last checkpoint, with the run's own configs; a run that was stopped before its first
            epoch ended starts over.
        trust: execute what the configs say even where no bundle of ours says so.

    Raises:
        UsageError: if the settings, the cohort or the folder do not allow it, or the configs hold code from elsewhere.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            f"{run}: phs-pipeline train is one process; for several, start torchrun with MONAI's bundle command as "
            f"{bundle.config('multi_gpu_train')} says"
        )
    read_cohort(cohort)  # a folder that is none is refused before anything is written
    if resume:
        _check_resumable(run, cohort, presets, overrides or {})
    else:
        try:
            _start_folder(bundle, run, presets, overrides or {}, cohort)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(
                f"{run}: cannot be written ({reason}); choose a writable folder with space left"
            ) from error
    settings: dict[str, Any] = {
        **(overrides or {}),
        "bundle_root": str(run),
        "output_dir": str(run),
        "dataset_dir": str(cohort),
        "resume": resume and (run / "models" / CHECKPOINT).is_file(),
    }
    try:
        if not trust:
            _refuse_foreign_code(run, run if resume else bundle.root)
        workflow = _build(run, settings)
    except BaseException:
        if not resume:
            # Nothing was trained: the corrected command may use the folder.
            shutil.rmtree(run, ignore_errors=True)
        raise
    _write_record(run, bundle, cohort, settings, str(workflow.device))
    try:
        workflow.run()
    except RuntimeError as error:
        ours = _ours(error)
        if ours is None:
            raise
        raise ours from error
    workflow.finalize()


def _refuse_foreign_code(run: Path, named: Path) -> None:
    # Asked of the very files that are about to be parsed, whichever bundle, preset or earlier run they come from.
    code = [f"{place}: {text[:EXCERPT]}" for place, text in foreign_code(Bundle(run, run.name)).items()]
    if code:
        more = f"; and {len(code) - SHOWN} more" if len(code) > SHOWN else ""
        raise UsageError(
            f"{named}: its configs hold code that no bundle of phs-pipeline has ({'; '.join(code[:SHOWN])}{more}), and "
            "training would execute it with your rights; read configs/train.json and metadata.json, and give "
            "--trust-bundle if you trust who wrote them"
        )


def _build(run: Path, settings: dict[str, Any]) -> ConfigWorkflow:
    config = run / "configs" / "train.json"
    try:
        workflow = ConfigWorkflow(
            config_file=str(config),
            meta_file=str(run / "configs" / "metadata.json"),
            workflow_type="train",
            logging_file=False,
            **settings,
        )
        workflow.initialize()
        # Built here, so that a value which a part of it refuses is told from an error of the training itself.
        _ = workflow.trainer
    except Exception as error:  # whatever a constructor raises for the values in the file
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{config}: no training can be built from these settings ({reason}); correct them") from error
    return workflow


def _check_resumable(run: Path, cohort: Path, presets: Sequence[str], overrides: dict[str, Any]) -> None:
    if not (run / "configs" / "train.json").is_file():
        raise UsageError(f"{run}: holds no training to resume; start it without --resume")
    if presets or set(overrides) - {"device_name"}:
        raise UsageError(f"{run}: a resumed training keeps its settings; only --device can be given with --resume")
    record = run / RECORD
    if record.is_file() and read_config(record).get("cohort_sha256") != sha256(cohort / COHORT_FILE):
        raise UsageError(f"{run}: was trained on another cohort than {cohort}; give the one it was started with")


def _start_folder(bundle: Bundle, run: Path, presets: Sequence[str], overrides: dict[str, Any], cohort: Path) -> None:
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(f"{run}: exists and is not empty; give --resume to go on with it, or another folder")
    # A scan is windowed for the trained network as the cohort was, and edited in the slab that the network has seen.
    prepared = read_cohort(cohort)["settings"]
    window, slab = prepared["window"], prepared["slab"]
    overlay = _overlay(bundle, presets, overrides) | {
        "percentile": window["percentile"],
        "foreground_only": window["foreground_only"],
        "fixed_window": window["fixed"],
        "slab_slices": slab["slices"],
        "slab_mm": slab["thickness_mm"],
    }
    about = {"name": bundle.name, "training_domain": describe(cohort)}
    (run / "configs").mkdir(parents=True)
    training = _laid_over(read_config(bundle.config("train")), overlay)
    inference = _laid_over(read_config(bundle.config("inference")), overlay)
    # The bundle's own inference config describes the weights that it ships; the run's, those that it trains.
    inference |= {
        key: training[key] for key in inference if key in training and key not in OWN and is_plain(training[key])
    }
    for source in sorted((bundle.root / "configs").iterdir()):
        target = run / "configs" / source.name
        if source.stem in ("train", "inference"):
            write_json(target, training if source.stem == "train" else inference)
        elif source.name == "metadata.json":
            write_json(target, {**read_config(source), **about})
        elif source.stem not in bundle.presets:
            shutil.copyfile(source, target)
    shutil.copytree(bundle.root / "docs", run / "docs")
    shutil.copyfile(bundle.root / "LICENSE", run / "LICENSE")


def _overlay(bundle: Bundle, presets: Sequence[str], overrides: dict[str, Any]) -> dict[str, Any]:
    overlay: dict[str, Any] = {}
    for preset in presets:
        if preset not in bundle.presets:
            known = ", ".join(bundle.presets)
            raise UsageError(f"--preset {preset}: the bundle {bundle.name!r} has no such preset; it has {known}")
        overlay |= read_config(bundle.config(preset))
    settings = ConfigParser(read_config(bundle.config("train")))
    for key in overrides:
        if not key or key not in settings:
            raise UsageError(f"--set {key}: the bundle {bundle.name!r} has no such setting in configs/train.json")
    return overlay | overrides


def _laid_over(config: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """The config with those ids replaced that it has."""
    parser = ConfigParser(config)
    for key, value in overlay.items():
        if key in parser:
            parser[key] = value
    content: dict[str, Any] = parser.get()
    return content


def _write_record(run: Path, bundle: Bundle, cohort: Path, settings: dict[str, Any], device: str) -> None:
    path = run / RECORD
    starts = read_config(path)["starts"] if path.is_file() else []
    starts.append(
        {
            "resumed": settings["resume"],
            "device": device,
            "pipeline": __version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        }
    )
    write_json(
        path,
        {
            "bundle": bundle.name,
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "config_sha256": sha256(run / "configs" / "train.json"),
            "starts": starts,
        },
    )


def _ours(error: BaseException) -> PipelineError | None:
    """Our own sentence, if one of ours lies below what MONAI's config parser wraps around it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, PipelineError):
            return below
        below = below.__cause__ or below.__context__
    return None
