"""Start a training from a bundle: the run's folder becomes a bundle of its own."""

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import monai
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import __version__
from pipeline.bundles import (
    Bundle,
    check_sizes,
    check_values,
    find_bundle,
    followed,
    foreign_code,
    is_plain,
    read_config,
    refuse_links,
)
from pipeline.errors import PipelineError, UsageError
from pipeline.files import remove_left, require_empty, sha256, write_json, written_aside
from pipeline.networks.dcgan import CLASSES
from pipeline.preprocessing.cohort_format import COHORT_FILE, Cohort, known_patients, patient_hashes, read_cohort
from pipeline.preprocessing.domain import describe
from pipeline.preprocessing.pairs import DRAWN
from pipeline.training.checkpoint import CHECKPOINT
from pipeline.training.distributed import (
    gathered,
    joined,
    local_rank,
    lost_another,
    of_first,
    on_gpu,
    rank,
    world_size,
)
from pipeline.training.speed import PLAIN
from pipeline.training.trainer import AUTO, PlayerTrainer

RECORD = "run.json"
LOCK = ".lock"
# Settings that are counts, in every bundle that has them.
COUNTS = ("epochs", "batch_size", "accumulate")
SHOWN, EXCERPT = 3, 120  # pieces of foreign code in a message, and characters of each
# Settings that a training and the use of its result each choose for themselves.
OWN = ("bundle_root", "dataset_dir", "output_dir", "device_name", "batch_size")
# MONAI remarks on the missing logging file, which is left out on purpose: the command line logs for itself.
logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
logger = logging.getLogger(__name__)


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
            epoch ended starts over. With more `epochs` among the overrides it is prolonged.
        trust: execute what the configs say even where no bundle of ours says so.

    Raises:
        UsageError: if the settings, the cohort or the folder do not allow it, or the configs hold code from elsewhere.
    """
    read_cohort(cohort)  # a folder that is none is refused before anything is written
    overrides = overrides or {}
    if not bundle.trainable:
        raise UsageError(f"{bundle.name}: has nothing to train, it can be used as it is")
    with joined(str(overrides.get("device_name", "auto"))):
        if resume:
            _check_resumable(run, bundle, cohort, presets, overrides)
            _resume(bundle, cohort, run, overrides, trust)
        else:
            _start(bundle, cohort, run, presets, overrides, trust)


def _start(
    bundle: Bundle, cohort: Path, run: Path, presets: Sequence[str], overrides: Mapping[str, Any], trust: bool
) -> None:
    """Train in a new folder, which the first process makes."""
    first = rank() == 0
    if first:
        require_empty(run, remedy="give --resume to go on with it, or another folder")
    # Written aside: a run's folder holds all of its configs, and what was built from them, or is not there.
    with written_aside(run) if first else contextlib.nullcontext(run) as aside:
        if first:
            _fill_folder(bundle, aside, presets, overrides, cohort)
        workflow = _prepared(of_first(aside), bundle.root, run, cohort, {**_machine(overrides), "resume": False}, trust)
        gathered(True)  # all have read it before it is renamed
    with _alone(run) if first else contextlib.nullcontext():
        _play(workflow, run, bundle, cohort, resumed=False)


def _resume(bundle: Bundle, cohort: Path, run: Path, overrides: Mapping[str, Any], trust: bool) -> None:
    """Go on in a run's folder, with as many processes as there are now."""
    first = rank() == 0
    with _alone(run) if first else contextlib.nullcontext():
        if first:
            remove_left(run)
        longer, go_on = of_first(
            (_longer(run, overrides.get("epochs")), (run / "models" / CHECKPOINT).is_file()) if first else None
        )
        if not go_on:
            logger.info("%s: was stopped before its first epoch ended, and starts over", run)
        settings = {**_machine(overrides), **longer, "resume": go_on}
        workflow = _prepared(run, run, run, cohort, settings, trust)
        gathered(True)  # all have read the configs before they are written
        if longer and first:
            write_json(run / "configs" / "train.json", {**read_config(run / "configs" / "train.json"), **longer})
        _play(workflow, run, bundle, cohort, go_on)


class _RunRecord(BaseModel):
    """What a run keeps of how it was made, as far as it is read again; a bundle that is no run has none."""

    model_config = ConfigDict(strict=True, extra="ignore")

    cohort_sha256: str | None = None
    training_patients: list[str] = []
    epochs: int | None = None
    finished: bool = True
    starts: list[dict[str, Any]] = []


def _read_record(run: Path) -> _RunRecord:
    path = run / RECORD
    if not path.exists():
        return _RunRecord()
    try:
        return _RunRecord.model_validate(read_config(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Input ')}, expected what "
            "`phs-pipeline train` writes; restore the file"
        ) from error


def unfinished(bundle: Bundle) -> str | None:
    """What to say of a run that was stopped before its last epoch; None of a finished one, or of no run."""
    record = _read_record(bundle.root)
    if record.finished:
        return None
    return f"{bundle.root} is unfinished: its training was stopped before epoch {record.epochs}"


def goes_on(bundle: Bundle, cohort: Path, run: Path, presets: Sequence[str], overrides: Mapping[str, Any]) -> bool:
    """Whether a folder holds this very training, stopped before its end; a new folder does not.

    Args:
        bundle: as those below, of `train`.
        cohort: folder made by `preprocess`.
        run: the run's folder.
        presets: names of `bundle.presets`.
        overrides: config ids and values.

    Raises:
        UsageError: if it holds a finished training, or another one.
    """
    if not (run / "configs" / "train.json").is_file():
        return False
    read_cohort(cohort)
    trained, record = find_bundle(str(run)).name, _read_record(run)
    # Stopped while it measured how to compute, it has no record yet.
    begun = (run / RECORD).exists() or (run / "models" / "model.pt").exists()
    if record.finished and begun:
        raise UsageError(
            f"{run}: holds a finished training of {trained}; for another one, `phs-pipeline train {bundle.name} -o RUN`"
        )
    if trained != bundle.name:
        other = [trained]
    elif record.cohort_sha256 not in (None, sha256(cohort / COHORT_FILE)):
        other = ["another cohort"]
    else:
        other = _other_settings(_configs(bundle, presets, overrides, cohort)[0], run)
    if other:
        raise UsageError(
            f"{run}: holds another training that was stopped ({', '.join(other[:SHOWN])}); go on with it by "
            f"`phs-pipeline train {trained} --resume`, or start this one by `phs-pipeline train {bundle.name} -o RUN`"
        )
    return True


def _other_settings(wanted: Mapping[str, Any], run: Path) -> list[str]:
    """Ids of settings that a run was not started with."""
    wanted, held = json.loads(json.dumps(wanted)), read_config(run / "configs" / "train.json")
    # The machine may change, and what `auto` chose is written where it was.
    free = {"device_name", *(asdict(PLAIN) if wanted.get("amp") == AUTO else ())}
    return [key for key in {**wanted, **held} if key not in free and wanted.get(key) != held.get(key)]


def check_unseen(bundle: Bundle, cohort: Path, split: str) -> None:
    """Refuse to measure a run on patients that it was trained on, whatever cohort they are in now.

    Raises:
        UsageError: if some patients of the split were training patients; the split `training` is meant so.
    """
    trained = _read_record(bundle.root).training_patients
    seen = known_patients(cohort, split, trained) if split != "training" else []
    if seen:
        raise UsageError(
            f"{bundle.root}: was trained on {len(seen)} of the {split} patients of {cohort} ({', '.join(seen[:3])}"
            f"{', …' if len(seen) > 3 else ''}); take the cohort as it was when the run was trained, or train again"
        )


def _machine(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is told anew each time, and not as its configs say."""
    machine = {key: value for key, value in overrides.items() if key == "device_name"}
    if world_size() == 1:
        return machine
    # As `multi_gpu_train.json` has it for MONAI's command: what is drawn beside each process's share is its own.
    seeded = {"initialize": ["$monai.utils.set_determinism(seed=@seed + rank())"]}
    if on_gpu():
        return {**seeded, "device_name": f"cuda:{local_rank()}"}
    return {**seeded, "device_name": "cpu"}


def _prepared(
    folder: Path, named: Path, run: Path, cohort: Path, settings: dict[str, Any], trust: bool
) -> ConfigWorkflow:
    """The training that the configs in a folder describe, built and not started.

    Args:
        folder: holds the configs.
        named: what messages name for them.
        run: where the training writes.
        cohort: folder of the preprocessed cohort.
        settings: beside those in the configs.
        trust: execute what the configs say even where no bundle of ours says so.
    """
    if not trust:
        _refuse_foreign_code(folder, named)
    config = read_config(folder / "configs" / "train.json")
    _check_counts(config, named)
    check_sizes(config, [key for key in config if key.endswith("_def")], named)
    places = {"bundle_root": str(run), "output_dir": str(run), "dataset_dir": str(cohort)}
    return _build(folder, named, config, {**settings, **places})


def _play(workflow: ConfigWorkflow, run: Path, bundle: Bundle, cohort: Path, resumed: bool) -> None:
    """Train, and record what was run and whether it came to its end."""
    try:
        _decide(workflow.trainer, run)
        if rank() == 0:
            _write_record(run, bundle, cohort, workflow, resumed, finished=False)
        workflow.run()
    except Exception as error:
        if rank() == 0 and not resumed and not (run / "models" / CHECKPOINT).is_file():
            shutil.rmtree(run, ignore_errors=True)  # nothing was trained: the corrected command may use the folder
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        reason = _first_cause(error)
        if lost_another(error):
            raise UsageError(
                f"{run}: another process of this training is gone ({reason[:EXCERPT]}); give --resume to go on"
            ) from error
        raise UsageError(
            f"{run}: the training stopped with an error ({reason[:EXCERPT]}); correct the settings"
        ) from error
    workflow.finalize()
    if rank() == 0:
        _write_record(run, bundle, cohort, workflow, None, finished=True)


def _decide(trainer: PlayerTrainer, run: Path) -> None:
    """Choose precision and memory format where the settings leave that open; a resumed run keeps the choice."""
    # Its configs hold it, not only its checkpoint: a run that starts over computes as it began, too.
    trainer.decide()
    if trainer.step_seconds and rank() == 0:
        path = run / "configs" / "train.json"
        write_json(path, {**read_config(path), **asdict(trainer.speed)})


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Refuse a second process that trains in the same folder."""
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    # Not through a link, to whatever file it may lead, and not waiting for a pipe.
    with os.fdopen(os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644), "r+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{run}: another process trains in this folder; wait for its end, or stop it") from None
        except OSError:  # a file system without locks
            logger.info("%s: the file system has no locks; start no second training there", run)
        try:
            yield
        finally:
            (run / LOCK).unlink(missing_ok=True)


def _longer(run: Path, epochs: Any) -> dict[str, Any]:
    """More epochs for a run: the schedules are stretched over all of them when the checkpoint is loaded."""
    before = read_config(run / "configs" / "train.json").get("epochs")
    if epochs in (None, before):
        return {}
    if not isinstance(epochs, int) or not isinstance(before, int) or epochs < before:
        raise UsageError(f"--epochs {epochs}: expected more than the {before} epochs that {run} was started with")
    logger.info("from %d to %d epochs in all; the learning rates' schedules are stretched over them", before, epochs)
    return {"epochs": epochs}


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


def _check_counts(settings: Mapping[str, Any], named: Path) -> None:
    """Refuse counts that are none, which libraries find out late or not at all."""
    for name in COUNTS:
        value = settings.get(name, 1)
        if is_plain(value) and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UsageError(f"{named}: {name} is {value!r}, expected a whole number of at least 1")
    batch = settings.get("batch_size", 1)
    if is_plain(batch) and batch % world_size():
        raise UsageError(
            f"{named}: batch_size is {batch}, expected a multiple of the {world_size()} processes that share a batch; "
            f"give --set batch_size={world_size() * -(-batch // world_size())}, or other processes"
        )


def _build(folder: Path, named: Path, config: Mapping[str, Any], settings: dict[str, Any]) -> ConfigWorkflow:
    try:
        check_values(config)
        workflow = ConfigWorkflow(
            config_file=str(folder / "configs" / "train.json"),
            meta_file=str(folder / "configs" / "metadata.json"),
            workflow_type="train",
            logging_file=False,
            **settings,
        )
        workflow.initialize()
        # Built here, so that a value which a part of it refuses is told from an error of the training itself.
        trainer = workflow.trainer
    except Exception as error:  # whatever a constructor raises for the values in the file
        ours = _ours(error)
        if ours is not None:
            raise ours from error
        reason = _first_cause(error)
        raise UsageError(f"{named}: no training can be built from these settings ({reason}); correct them") from error
    networks = trainer.method.networks.values()
    if any(parameter.numel() == 0 for network in networks for parameter in network.parameters()):
        raise UsageError(f"{named}: found a network without channels, expected at least one filter")
    return workflow


def _check_resumable(
    run: Path, bundle: Bundle, cohort: Path, presets: Sequence[str], overrides: Mapping[str, Any]
) -> None:
    if not (run / "configs" / "train.json").is_file():
        raise UsageError(f"{run}: holds no training to resume; start it without --resume")
    if presets or set(overrides) - {"device_name", "epochs"}:
        raise UsageError(
            f"{run}: a resumed training keeps its settings; only --device and more --epochs can be given with --resume"
        )
    trained = find_bundle(str(run)).name
    if trained != bundle.name:
        raise UsageError(f"{run}: is a training of {trained}, found {bundle.name}; give `phs-pipeline train {trained}`")
    if _read_record(run).cohort_sha256 not in (None, sha256(cohort / COHORT_FILE)):
        raise UsageError(f"{run}: was trained on another cohort than {cohort}; give the one it was started with")


def _configs(
    bundle: Bundle, presets: Sequence[str], overrides: Mapping[str, Any], cohort: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config of a training, and what it lays over the bundle's configs: what the cohort decides, and the user."""
    train = read_config(bundle.config("train"))
    chosen = _overlay(bundle, presets, overrides)
    overlay = _of_cohort(bundle, cohort, train | chosen)
    if isinstance(chosen.get("channels"), list):
        overlay["in_channels"] = len(chosen["channels"])
    overlay |= chosen
    return _laid_over(train, overlay), overlay


def _fill_folder(
    bundle: Bundle, folder: Path, presets: Sequence[str], overrides: Mapping[str, Any], cohort: Path
) -> None:
    """Make a folder a bundle of its own, with the settings of this training."""
    training, overlay = _configs(bundle, presets, overrides, cohort)
    about = {"name": bundle.name, **_domains(cohort, training)}
    refuse_links(bundle)
    (folder / "configs").mkdir(parents=True)
    inference = _laid_over(read_config(bundle.config("inference")), overlay)
    # The bundle's own inference config describes the weights that it ships; the run's, those that it trains.
    inference |= {
        key: training[key] for key in inference if key in training and key not in OWN and is_plain(training[key])
    }
    for source in sorted((bundle.root / "configs").iterdir()):
        target = folder / "configs" / source.name
        if source.stem in ("train", "inference"):
            write_json(target, training if source.stem == "train" else inference)
        elif source.name == "metadata.json":
            metadata = {key: value for key, value in read_config(source).items() if key != "without_weights"}
            # What was measured are the bundle's own weights.
            metadata["eval_metrics"] = {}
            write_json(target, {**metadata, **about, **_data_format(metadata, inference, overlay.get("classes"))})
        elif source.stem not in bundle.presets:
            shutil.copyfile(source, target)
    shutil.copytree(bundle.root / "docs", folder / "docs")
    shutil.copyfile(bundle.root / "LICENSE", folder / "LICENSE")


def _domains(cohort: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the training volumes are like; of a bundle that learns of several modalities, those of each."""
    target, sources = settings.get("target_modality"), _in_cohort(settings.get("sources", ()))
    domains = {"training_domain": describe(cohort, target)}
    return {**domains, "source_domains": {name: describe(cohort, name) for name in sources}} if target else domains


def _in_cohort(sources: Iterable[str]) -> list[str]:
    """Those that are channels of a cohort, not drawn from a pair."""
    return [name for name in sources if name not in DRAWN]


def _data_format(
    metadata: Mapping[str, Any], inference: Mapping[str, Any], classes: Sequence[str] | None
) -> dict[str, Any]:
    """What metadata say of a network of several sequences or pathologies, or of one that tells classes.

    Of a generator from noise: how much of it, with the class behind it, and the mask that it makes.

    Args:
        metadata: the bundle's, of one sequence, one kind of lesion, or a number.
        inference: the run's config.
        classes: that it tells.
    """
    about = metadata["network_data_format"]
    image, pred = about["inputs"]["image"], about["outputs"]["pred"]
    sequences, pathologies = inference.get("channels", ()), followed(inference, inference.get("pathologies", ()))
    # Of networks that take neighbouring slices as channels, a bundle's metadata have those of its own settings.
    neighbours = followed(inference, inference.get("neighbours", 0)) if "degradation" in inference else 0
    if len(sequences) > 1 or neighbours:
        offsets = [f", {offset:+d} slices" if offset else "" for offset in range(-neighbours, neighbours + 1)]
        image = {
            **image,
            **_channels(f"{name}{offset}, windowed to [0, 1]" for name in sequences for offset in offsets),
        }
    if "latent" in inference:
        told = [f"noise {number} of N(0, 1)" for number in range(inference["latent"])]
        told += [f"1 if {name}" for name in CLASSES] if inference.get("condition") == "class" else []
        image = {**image, **_channels(told)}
    if inference.get("joint"):
        pred = {**pred, **_channels((pred["channel_def"]["0"], "lesion mask"))}
    if len(pathologies) > 1:
        pred = {**pred, **_channels(f"logit of {name}" for name in pathologies)}
    if classes:
        pred = {
            **pred,
            "type": "classification",
            "format": "logits",
            **_channels(f"logit of {name}" for name in classes),
        }
    return {"network_data_format": {**about, "inputs": {**about["inputs"], "image": image}, "outputs": {"pred": pred}}}


def _channels(meanings: Iterable[str]) -> dict[str, Any]:
    """Number and meaning of channels in metadata's words."""
    named = {str(index): meaning for index, meaning in enumerate(meanings)}
    return {"num_channels": len(named), "channel_def": named}


def _of_cohort(bundle: Bundle, folder: Path, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings of a training on this cohort are, where a bundle has them.

    Args:
        bundle: to train.
        folder: of the preprocessed cohort.
        chosen: the bundle's settings, with presets and overrides laid over them.

    Raises:
        UsageError: if the cohort lacks what the bundle learns, or has more sequences than it takes.
    """
    # A scan is windowed for the trained network as the cohort was, and edited in the slab that the network has seen.
    cohort = read_cohort(folder)
    window, slab = cohort.settings.window, cohort.settings.slab
    settings = read_config(bundle.config("train"))
    channels = cohort.channels
    if "target_modality" in chosen:
        target = chosen["target_modality"]
        missing = [name for name in (target, *_in_cohort(chosen["sources"])) if name not in cohort.channels]
        if missing:
            raise UsageError(
                f"{folder}: has scans of {', '.join(cohort.channels)}, expected {' and '.join(missing)} too; say which "
                "modalities these are (--set target_modality=NAME --set sources=[NAME])"
            )
        # A translator of pairs takes its sources together; others learn in the target modality.
        channels = list(chosen["sources"]) if "in_channels" in settings else [target]
    if len(channels) > 1 and "in_channels" not in settings:
        raise UsageError(
            f"{folder}: has the sequences {', '.join(cohort.channels)}, expected one, which is what {bundle.name} "
            "takes; preprocess with --modality instead of --channels"
        )
    return {
        "percentile": window.percentile,
        "foreground_only": window.foreground_only,
        "fixed_window": window.fixed and list(window.fixed),
        "slab_slices": slab.slices,
        "slab_mm": slab.thickness_mm,
        "channels": channels,
        "in_channels": len(channels),
        **({"kinds": _classes(cohort)} if "kinds" in settings and _classes(cohort) else {}),
        **(_of_target(cohort, channels, folder, settings) if "target_mean" in settings else {}),
    }


def _of_target(cohort: Cohort, channels: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name, units, mean and deviation of the training patients' target, each scan counted once; or its classes."""
    scans = [subject for subject in cohort.having(channels) if subject.split == "training"]
    found = [subject.target for subject in scans if subject.target is not None]
    numbers = [float(target) for target in found if not isinstance(target, str)]
    if len(numbers) < len(found) and "classes" not in settings:
        raise UsageError(
            f"{folder}: has classes as target, expected numbers; preprocess with --target of another column"
        )
    if len(set(found)) < 2:
        raise UsageError(
            f"{folder}: found {len(set(found))} values of a target among {len(scans)} training scans, expected at "
            "least two to learn from; preprocess with --target COLUMN"
        )
    # It becomes part of file names, in BIDS an entity's value.
    name = re.sub(r"[\W_]+", "", cohort.settings.target or settings["target"])
    if len(numbers) < len(found):
        return {"target": name, "classes": _classes(cohort)}
    return {
        "target": name,
        # Those in the config are of its own target; of another one nobody said which.
        "units": settings["units"] if name == settings["target"] else "1",
        "target_mean": round(statistics.fmean(numbers), 6),
        "target_deviation": round(statistics.pstdev(numbers), 6),
    }


def _classes(cohort: Cohort) -> list[str]:
    """Names of the classes that subjects have as target, as `SliceDataset` counts them; none where it is a number."""
    found = [subject.target for subject in cohort.subjects if subject.target is not None]
    return sorted({str(target) for target in found}) if any(isinstance(target, str) for target in found) else []


def _overlay(bundle: Bundle, presets: Sequence[str], overrides: Mapping[str, Any]) -> dict[str, Any]:
    overlay: dict[str, Any] = {}
    for preset in presets:
        if preset not in bundle.presets:
            known = ", ".join(bundle.presets)
            raise UsageError(f"--preset {preset}: the bundle {bundle.name!r} has no such preset; it has {known}")
        overlay |= read_config(bundle.config(preset))
    settings = ConfigParser(read_config(bundle.config("train")))
    for key in overrides:
        if not key or key != key.strip() or key not in settings:
            raise UsageError(f"--set {key}: the bundle {bundle.name!r} has no such setting in configs/train.json")
    return {**overlay, **overrides}


def _laid_over(config: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """The config with those ids replaced that it has."""
    parser = ConfigParser(config)
    for key, value in overlay.items():
        if key in parser:
            parser[key] = value
    content: dict[str, Any] = parser.get()
    return content


def _write_record(
    run: Path, bundle: Bundle, cohort: Path, workflow: ConfigWorkflow, resumed: bool | None, finished: bool
) -> None:
    """What was run; `resumed` None adds no start."""
    trainer = workflow.trainer
    starts = list(_read_record(run).starts)
    if resumed is not None:
        starts.append(
            {
                "resumed": resumed,
                "device": str(workflow.device),
                "precision": str(trainer.speed),
                "step_seconds": {str(speed): round(taken, 4) for speed, taken in trainer.step_seconds.items()},
                "pipeline": __version__,
                "monai": monai.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
            }
        )
    write_json(
        run / RECORD,
        {
            "bundle": bundle.name,
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "training_patients": patient_hashes(cohort, "training"),
            "config_sha256": sha256(run / "configs" / "train.json"),
            "epochs": trainer.state.max_epochs,
            "finished": finished,
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


def _first_cause(error: BaseException) -> str:
    """The first line of what lies below all that was raised from it."""
    below = error
    while (deeper := below.__cause__ or below.__context__) is not None:
        below = deeper
    said = (str(below).strip().splitlines() or [type(below).__name__])[0]
    return f"the training diverged: {said}" if isinstance(below, OverflowError) or "overflow" in said else said
