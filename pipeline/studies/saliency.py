"""Where a classifier and a segmentor look for a lesion (GVS, Section I and Fig. 1).

The claim is that a discriminator which classifies whole images looks at other tissue too, or only at a lesion's core,
and that a segmentor looks at the lesion. Both are trained on the cohort's training patients and look at slices of
others through Grad-CAM (Selvaraju et al. 2017) and Seg-Grad-CAM (Vinogradova et al. 2020).
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from monai.networks.nets import ResNet
from monai.visualize import GradCAM
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.devices import pick_device
from pipeline.evaluation import Judge, load_judge
from pipeline.evaluation.judge import ITERATIONS, SEED
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL
from pipeline.files import sha256
from pipeline.methods.base import Batch, Player, Shared, Terms
from pipeline.mosaic import body_box, grey, mosaic, outlined
from pipeline.preprocessing.cohort_format import COHORT_FILE, read_cohort
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.slices import SliceDataset
from pipeline.reports.markdown import table
from pipeline.studies.pictures import spread
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, write_study
from pipeline.studies.training import trained
from pipeline.training.single import BATCH_SIZE

logger = logging.getLogger(__name__)

EPOCHS = 20
FILTERS = 16
LABELS = (PATHOLOGICAL, HEALTHY)
COLUMNS = {"mass": ("share of the saliency inside the lesion ↑", 3), "overlap": ("overlap with the lesion, Dice ↑", 3)}
# Name, and the layer that is looked at: the coarsest, where such maps are usually taken, and the finest.
CLASSIFIER = {"Grad-CAM, stride 16": "layer4", "Grad-CAM, stride 2": "layer1"}
SEGMENTOR = {"Seg-Grad-CAM, stride 16": "segmentor.unet.down_4", "Seg-Grad-CAM, stride 1": "segmentor.unet.upcat_1"}
UNIFORM = "the whole body alike"

# From images (B, 1, H, W) to maps of the same shape.
Saliency = Callable[[Tensor], Tensor]


class SliceClassifier(ResNet):
    """MONAI's ResNet-10 with one logit: whether a slice is pathological.

    Its last stage has a stride of 16 pixels, as the U-Net's lowest stage has.

    Args:
        filters: channels of the first stage, F; the stages have F, 2F, 4F, 8F.
    """

    def __init__(self, filters: int = FILTERS) -> None:
        super().__init__(
            "basic",
            layers=[1, 1, 1, 1],
            block_inplanes=[filters, 2 * filters, 4 * filters, 8 * filters],
            spatial_dims=2,
            n_input_channels=1,
            num_classes=1,
        )


class Classification:
    """Cross-entropy against whether there is a lesion in the slice: one player, no game.

    Args:
        classifier: images (B, 1, H, W) to logits (B, 1).
    """

    def __init__(self, classifier: nn.Module) -> None:
        self.networks = {"classifier": classifier}
        self.exports = {"classifier": classifier}
        self.players = (Player("classifier", ("classifier",), self.supervise),)

    def forward(self, batch: Batch) -> Shared:
        """Nothing is shared: there is one player."""
        del batch
        return {}

    def supervise(self, batch: Batch, shared: Shared) -> Terms:
        """Tell pathological slices from healthy ones."""
        del shared
        logits = self.networks["classifier"](batch["image"])
        return {"ce": functional.binary_cross_entropy_with_logits(logits, batch["mask"].amax(dim=(2, 3)))}


class LesionScore(nn.Module):
    """Seg-Grad-CAM's score: the sum of the lesion logits over the pixels that the segmentor itself calls lesion.

    The annotation takes no part, so that the map shows nothing that the segmentor was told. Where it finds no lesion,
    score and map are zero.

    Args:
        segmentor: images (B, 1, H, W) to lesion logits of the same shape.
    """

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image: Tensor) -> Tensor:
        """Scores of shape (B, 1)."""
        logits = self.segmentor(image)
        scores: Tensor = (logits * (logits > 0)).sum(dim=(2, 3))
        return scores


def saliency(
    cohort: Path,
    folder: Path,
    seeds: int = 3,
    epochs: int = EPOCHS,
    split: str = "validation",
    judge_iterations: int = ITERATIONS,
    device: str = "auto",
) -> str:
    """Measure and show how well saliency of a classifier and of a segmentor agrees with the annotated lesions.

    The segmentor is the judge of healthiness f_pre, kept with the cohort; the classifier is trained on the same slices
    and grid, and kept in the study. Started again, it skips what is finished and goes on with a training that was
    stopped; seeds may be added then, all else stays.

    Args:
        cohort: folder made by `preprocess`.
        folder: of the study.
        seeds: classifiers (seeds 0, 1, …) and judges (1234, 1235, …).
        epochs: of the classifier's training.
        split: patients to look at.
        judge_iterations: of the judge's training.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the split has no pathological slice, or the folder holds another study.
    """
    target = pick_device(device)
    settings = {"cohort_sha256": sha256(cohort / COHORT_FILE), "split": split, "epochs": epochs}
    open_study(folder, {"study": "saliency", **settings, "judge_iterations": judge_iterations})
    results = []
    for seed in range(seeds):
        judge = load_judge(cohort, SEED + seed, judge_iterations, target)
        classifier = _classifier(cohort, folder / f"classifier_seed={seed}", judge, epochs, seed)
        maps = saliencies(classifier, judge.network)
        path = folder / "results" / f"seed={seed}.json"
        measure = functools.partial(_measure, maps, classifier, judge, cohort, split, seed)
        results.append(once(path, measure))
        if seed == 0:
            slices = SliceDataset(cohort, split, judge.grid)
            picture = _picture(slices, maps, target)
    rows = [row for result in results for row in result["rows"]]
    # Each patient's mean over seeds first: the deviation is that between patients.
    patients = over_seeds(rows, ["saliency", "patient"], list(COLUMNS))
    frame = over_seeds(patients[["saliency", "patient", *COLUMNS]], ["saliency"], list(COLUMNS))
    rows_table = table(
        ["saliency", *(heading for heading, _ in COLUMNS.values())],
        [
            [row["saliency"], *(mean_sd(row, m, digits) for m, (_, digits) in COLUMNS.items())]
            for _, row in frame.iterrows()
        ],
    )
    page = "\n\n".join([rows_table, *_notes(results, patients, split)])
    write_study(folder, page, frame, results, picture.save)
    return page


def saliencies(classifier: nn.Module, segmentor: nn.Module) -> dict[str, Saliency]:
    """What each network looks at, as large as the image and not negative, by name."""
    score = LesionScore(segmentor)
    # MONAI's maps come with the largest value at 0, and another scale for each image, unless told otherwise.
    at = {name: GradCAM(classifier, layer, postprocessing=_as_it_is) for name, layer in CLASSIFIER.items()}
    at |= {name: GradCAM(score, layer, postprocessing=_as_it_is) for name, layer in SEGMENTOR.items()}

    def through(cam: GradCAM) -> Saliency:
        return lambda image: cam(image, class_idx=0).detach()

    # The control: what agreement is by chance.
    return {**{name: through(cam) for name, cam in at.items()}, UNIFORM: lambda image: (image > AIR).float()}


def agreement(saliency_map: Tensor, lesion: Tensor) -> dict[str, Tensor]:
    """How well maps agree with the annotated lesions.

    Args:
        saliency_map: not negative, shape (B, 1, H, W).
        lesion: bool, same shape, some lesion in each.

    Returns:
        `mass`, the share of the map's sum inside the lesion, and `overlap`, the Dice of the lesion with the map's
        highest pixels, as many as the lesion has (expected, if equal ones at the border were drawn by chance); both in
        [0, 1], shape (B,), and 0 where the map is.
    """
    maps, lesions = saliency_map.flatten(1).double(), lesion.flatten(1)
    pixels = lesions.sum(dim=1)
    mass = (maps * lesions).sum(dim=1) / maps.sum(dim=1).clamp_min(torch.finfo(maps.dtype).tiny)
    threshold = maps.sort(dim=1, descending=True).values.gather(1, pixels[:, None] - 1)
    above, equal = maps > threshold, maps == threshold
    drawn = (pixels - above.sum(dim=1)) / equal.sum(dim=1)
    overlap = ((above & lesions).sum(dim=1) + drawn * (equal & lesions).sum(dim=1)) / pixels
    return {"mass": mass, "overlap": torch.where(maps.any(dim=1), overlap, 0.0)}


def _as_it_is(maps: Tensor) -> Tensor:
    return maps


def _classifier(cohort: Path, folder: Path, judge: Judge, epochs: int, seed: int) -> nn.Module:
    content = read_cohort(cohort)
    logger.info("classifier with seed %d", seed)
    return trained(
        folder,
        lambda: Classification(SliceClassifier()),
        lambda: SliceDataset(cohort, "training", judge.grid, LABELS),
        epochs * -(-sum(content.slices("training", label) for label in LABELS) // BATCH_SIZE),
        seed,
        judge.device,
    )


def _measure(
    maps: dict[str, Saliency], classifier: nn.Module, judge: Judge, cohort: Path, split: str, seed: int
) -> dict[str, Any]:
    slices = SliceDataset(cohort, split, judge.grid)
    rows: list[dict[str, Any]] = []
    for name, saliency_of in maps.items():
        for index, patient in enumerate(slices.patients):
            sample = slices[index]
            lesion = sample["mask"][None] > 0
            if lesion.any():  # a lesion of less than half a pixel of the grid is none there
                found = agreement(saliency_of(sample["image"][None].to(judge.device)).cpu(), lesion)
                values = {metric: float(value) for metric, value in found.items()}
                rows.append({"saliency": name, "patient": patient, **values})
    by_patient = over_seeds(rows, ["saliency", "patient"], list(COLUMNS))
    return {
        "seed": seed,
        "classifier": {
            "sensitivity": _share_called_pathological(classifier, slices, judge.device),
            "specificity": _specificity(classifier, cohort, split, judge),
        },
        "segmentor_dice": judge.about["dice"].get(split),
        "rows": [
            {"seed": seed, "slices": row["mass_n"], **{key: row[key] for key in ("saliency", "patient", *COLUMNS)}}
            for row in by_patient.to_dict("records")
        ],
    }


def _specificity(classifier: nn.Module, cohort: Path, split: str, judge: Judge) -> float | None:
    if not read_cohort(cohort).slices(split, HEALTHY):
        return None
    healthy = SliceDataset(cohort, split, judge.grid, (HEALTHY,))
    return 1 - _share_called_pathological(classifier, healthy, judge.device)


@torch.inference_mode()
def _share_called_pathological(classifier: nn.Module, slices: SliceDataset, device: torch.device) -> float:
    called = [float(classifier(slices[index]["image"][None].to(device))) > 0 for index in range(len(slices))]
    return float(np.mean(called))


def _notes(results: list[dict[str, Any]], patients: Any, split: str) -> list[str]:
    def mean(values: list[float | None]) -> str:
        known = [value for value in values if value is not None]
        return f"{np.mean(known):.3f}" if known else "–"

    slices = sum(row["slices"] for row in results[0]["rows"] if row["saliency"] == UNIFORM)
    over = (
        f"Mean ± standard deviation over the {patients['patient'].nunique()} patients of the {split} split, each the "
        f"mean of their pathological slices ({slices} in all) and of {len(results)} trainings with different seeds. A "
        "map that is zero everywhere counts as 0 in both columns."
    )
    layers = (
        "Grad-CAM explains why the classifier calls a slice pathological, Seg-Grad-CAM the lesion that the segmentor "
        "finds itself. Compare maps of like stride (pixels of the layer they are taken at): a fine map can lie inside "
        f"a small lesion where a coarse one cannot. *{UNIFORM}* is what chance gives."
    )
    sensitivity, specificity = (
        mean([r["classifier"][share] for r in results]) for share in ("sensitivity", "specificity")
    )
    dice = mean([(r["segmentor_dice"] or {}).get("pooled") for r in results])
    quality = (
        f"Of the split's slices the classifier tells {sensitivity} of the pathological and {specificity} of the "
        f"healthy ones right; the segmentor's Dice is {dice}."
    )
    return [over, layers, quality]


def _picture(slices: SliceDataset, maps: dict[str, Saliency], device: torch.device) -> Any:
    """Some patients, each by the slice with its largest lesion."""
    areas = slices.masks.sum(axis=(1, 2, 3))
    largest = {patient: index for index, patient in sorted(enumerate(slices.patients), key=lambda at: areas[at[0]])}
    indices = sorted(largest.values())
    looked_through = [name for name in maps if name != UNIFORM]
    rows = []
    for index in spread(indices):
        sample = slices[index]
        image, mask = sample["image"][0].numpy(), sample["mask"][0].numpy()
        body = body_box(image > AIR)
        heats = [maps[name](sample["image"][None].to(device))[0, 0].cpu().numpy() for name in looked_through]
        overlays = [_heat(image[body], heat[body] / (heat.max() or 1)) for heat in heats]
        rows.append([grey(image[body]), *overlays, outlined(image[body], mask[body])])
    told = "seed 0; maps from blue, little, to red, most; not for diagnosis"
    return mosaic(["input", *looked_through, "lesion annotation"], rows, told)


def _heat(image: NDArray[np.floating], strength: NDArray[np.floating]) -> NDArray[np.uint8]:
    levels = grey(strength)[..., :1] / 255
    colours = colormaps["jet"](levels[..., 0])[..., :3] * 255
    return (grey(image) * (1 - levels) + colours * levels).astype(np.uint8)
