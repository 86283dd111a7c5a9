"""Does a segmentor keep its Dice on another scanner? Adaptation of features and of images (survey, Sections 4 and 5.5).

Features: domain-adversarial training of the last layer (Eq. 9) and of several layers (Fig. 10, Kamnitsas et al. 2017).
Images: the labelled source translated by a CycleGAN, and a segmentor trained on it (Huo et al. 2018); the target
translated back by a self-regularised generator (Eq. 8) for the segmentor of the source (Mahmood et al. 2018).
The oracle alone is trained on masks of the target domain.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import Dataset

from pipeline.devices import pick_device
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.methods import ConditionalGAN, CycleGAN, DomainAdaptation, ImagePool, Segmentation
from pipeline.methods.base import Method
from pipeline.methods.domain_adaptation import LAST
from pipeline.metrics import pooled_dice, psnr
from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.networks import JohnsonGenerator, PatchGANDiscriminator, UNetSegmentor
from pipeline.phantoms.scanner import FIRST, SECOND, Scanner
from pipeline.preprocessing.cohort_format import COHORT_FILE
from pipeline.preprocessing.foreground import AIR
from pipeline.preprocessing.grid import Grid
from pipeline.reports.markdown import count, table
from pipeline.studies.domains import Beside, Domains, RandomContrast, Slices, matched, read_slices, real, simulated
from pipeline.studies.few_labels import fitted_cut
from pipeline.studies.pictures import ROWS
from pipeline.studies.study import file_name, mean_sd, once, open_study, over_seeds, write_study
from pipeline.studies.training import trained
from pipeline.training.single import SEGMENTOR, Schedule

logger = logging.getLogger(__name__)

SOURCE_ONLY, MATCHED, CONTRASTS = "source only", "source only, histogram matched", "source only, random contrast"
LAST_LAYER, MULTI = "DANN, last layer", "DANN, multi-connected"
TRANSLATED, REVERSE = "source translated, CycleGAN", "target translated back, self-regularised"
THRESHOLD, ORACLE = "threshold of the source, histogram matched", "target oracle"
CONTROLS = (SOURCE_ONLY, MATCHED, CONTRASTS, THRESHOLD, ORACLE)
ARMS = (SOURCE_ONLY, MATCHED, CONTRASTS, THRESHOLD, LAST_LAYER, MULTI, TRANSLATED, REVERSE, ORACLE)
# Arms of the picture, and their columns' titles.
SHOWN = {
    SOURCE_ONLY: "source only",
    MATCHED: "histogram matched",
    MULTI: "DANN, multi-connected",
    TRANSLATED: "source translated",
    REVERSE: "translated back",
    ORACLE: "target oracle",
}
# Of several depths and scales, as Fig. 10 draws it, the last before C among them.
LAYERS = ("down_2", "down_4", "upcat_3", *LAST)
METRICS = {
    "dice": ("Dice on the target ↑", 3),
    "dice_source": ("on the source ↑", 3),
    "probe_last": ("probe, last layer", 2),
    "probe": ("probe, all layers", 2),
    "psnr": ("PSNR to scanner A, dB ↑", 1),
}
AT_ONCE = 32
POOL = 50  # translations that CycleGAN keeps
TRANSLATOR = Schedule(batch_size=4, rate=4e-4, decay="late linear", betas=(0.5, 0.999))


@dataclass(frozen=True)
class Scale:
    """Sizes of the study.

    Args:
        spacing_mm, size: of the one grid.
        filters: of the segmentors' first stage.
        iterations: of each segmentor, with 8 slices of each domain that it sees.
        translator_iterations: of each translator, with 4 slices of each domain.
        translator_filters, residual_blocks: of the translators.
        discriminator_filters: of their PatchGANs.
        weight: what λ_p rises to.
        lambda_self: λ of Eq. 8.
    """

    spacing_mm: float = 4.0
    size: tuple[int, int] = (64, 64)
    filters: int = 8
    iterations: int = 200
    translator_iterations: int = 200
    translator_filters: int = 8
    residual_blocks: int = 3
    discriminator_filters: int = 16
    weight: float = 0.1
    lambda_self: float = 10.0


LAPTOP = Scale()
STRIDE, FIELD_MM = 16, 240.0


def scale(spacing_mm: float | None = None, iterations: int | None = None, filters: int | None = None) -> Scale:
    """The laptop's sizes, or finer pixels of the same field of view, longer trainings, larger segmentors.

    Args:
        spacing_mm: of the grid.
        iterations: of segmentors and translators.
        filters: of the segmentors' first stage.
    """
    chosen = LAPTOP
    if spacing_mm is not None:
        side = STRIDE * math.ceil(FIELD_MM / spacing_mm / STRIDE)
        chosen = replace(chosen, spacing_mm=spacing_mm, size=(side, side))
    if iterations is not None:
        chosen = replace(chosen, iterations=iterations, translator_iterations=iterations)
    if filters is not None:
        chosen = replace(chosen, filters=filters)
    return chosen


def domain_adaptation(
    cohort: Path,
    folder: Path,
    target: str | None = None,
    source: str = "*",
    seeds: int = 3,
    scale: Scale = LAPTOP,
    device: str = "auto",
) -> str:
    """Train and test every method with several seeds, each of which draws its own patients.

    Without a target, two scanners are simulated from the cohort (`pipeline.phantoms.scanner`). `runs/` holds the
    trainings, `results/` what was measured, `pictures.png` what is found with seed 0. Started again, it skips what is
    finished and goes on with a training that was stopped; seeds may be added then.

    Args:
        cohort: folder made by `preprocess`, of one channel; its own split is not used.
        folder: of the study.
        target: patients of the target domain, by a pattern of their names such as `brats13-*`; None simulates scanners.
        source: patients of the source domain, by a pattern; those of the target are none of them.
        seeds: 0, 1, …, of patients, weights and draws.
        scale: sizes.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the cohort has several channels, a domain too few patients, or the folder holds another study.
    """
    open_study(
        folder,
        {
            "study": "domain adaptation",
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "target": target,
            "source": source,
            "scale": asdict(scale),
        },
    )
    slices = read_slices(cohort, Grid(scale.spacing_mm, scale.size))
    of_source, of_target = _patients(slices, target, source)
    where = pick_device(device)
    results: list[dict[str, Any]] = []
    for seed in range(seeds):
        if target is None:
            domains = simulated(slices.of(of_source), scale.spacing_mm, seed)
        else:
            domains = real(slices, of_source, of_target, seed)
        trial = Trial(domains, folder / "runs" / f"seed={seed}", scale, seed, where)
        for arm in ARMS:
            logger.info("seed %d of %d: %s", seed + 1, seeds, arm)
            path = folder / "results" / f"{file_name(arm)}_seed={seed}.json"
            results.append(once(path, partial(trial.measured, arm)))
        if seed == 0 and not (folder / "pictures.png").is_file():
            trial.draw(folder / "pictures.png")
    known = [name for name in METRICS if any(result[name] is not None for result in results)]
    frame = over_seeds(results, ["arm"], known)
    page = _page(frame, results, known, scale, target)
    write_study(folder, page, frame, results, lambda path: _figure(frame).savefig(path, dpi=150))
    return page


def _patients(slices: Slices, target: str | None, source: str) -> tuple[list[str], list[str]]:
    """Names of the patients of both domains.

    Raises:
        UsageError: if they are too few to be split.
    """
    names = sorted(set(slices.patients))
    of_target = [name for name in names if target is not None and fnmatchcase(name, target)]
    of_source = [name for name in names if fnmatchcase(name, source) and name not in of_target]
    least = 5 if target is None else 2
    for option, pattern, found, needed in (("source", source, of_source, least), ("target", target, of_target, 2)):
        if pattern is not None and len(found) < needed:
            raise UsageError(
                f"--{option} {pattern}: found {count(len(found), 'patient')} with drawn masks, expected at least "
                f"{needed} to train and test with; correct the pattern, or take a larger cohort"
            )
    return of_source, of_target


class Trial:
    """The trainings and measures of one seed.

    Args:
        domains: its slices.
        folder: of its trainings.
        scale: sizes.
        seed: of weights and draws.
        device: where to compute.
    """

    def __init__(self, domains: Domains, folder: Path, scale: Scale, seed: int, device: torch.device) -> None:
        self.domains, self.folder, self.scale, self.seed, self.device = domains, folder, scale, seed, device
        self._networks: dict[str, UNetSegmentor] = {}

    def measured(self, arm: str) -> dict[str, Any]:
        """What one arm reaches on held-out patients of both domains."""
        domains = self.domains
        shown = self._shown(domains.target_test, arm)
        result: dict[str, Any] = {
            "arm": arm,
            "seed": self.seed,
            **_dice(self._found(arm, shown.images), domains.target_test),
            "dice_source": None,
            "probe_last": None,
            "probe": None,
            "psnr": None,
        }
        if shown.truth is not None and arm in (SOURCE_ONLY, MATCHED, REVERSE):
            result["psnr"] = _psnr(shown, shown.truth)
        if arm == THRESHOLD:
            return result
        source_test = self._as_learned(domains.source_test, arm)
        result["dice_source"] = _dice(self._found(arm, source_test.images), source_test)["dice"]
        if arm != ORACLE:
            known = [
                self._activations(arm, each)
                for each in (self._as_learned(domains.source, arm), self._shown(domains.target, arm))
            ]
            asked = [self._activations(arm, each) for each in (source_test, shown)]
            for name, layers in (("probe_last", LAST), ("probe", LAYERS)):
                result[name] = probe(
                    *([torch.cat([every[layer] for layer in layers], 1) for every in part] for part in (known, asked))
                )
        return result

    def _network(self, arm: str) -> UNetSegmentor:
        """The segmentor of an arm, trained; arms that differ by their input share one."""
        shared = {MATCHED: SOURCE_ONLY, REVERSE: SOURCE_ONLY}.get(arm, arm)
        if shared not in self._networks:
            self._networks[shared] = self._segmentor(shared)
        return self._networks[shared]

    def _segmentor(self, arm: str) -> UNetSegmentor:
        domains, scale = self.domains, self.scale
        # Before the seed is set for the segmentor: this may train a translator.
        source = self._as_learned(domains.source, arm)
        names = {"image_source": (0, "image"), "mask_source": (0, "mask"), "image": (1, "image")}

        def build() -> Method:
            segmentor = UNetSegmentor(filters=scale.filters)
            layers = {LAST_LAYER: LAST, MULTI: LAYERS}.get(arm)
            if layers is None:
                return Segmentation(segmentor)
            return DomainAdaptation(segmentor, "source", scale.iterations, layers, scale.weight)

        def data() -> Dataset[dict[str, Tensor]]:
            if arm in (LAST_LAYER, MULTI):
                return Beside(source, domains.target, names)
            if arm == CONTRASTS:
                return RandomContrast(source)
            return domains.target if arm == ORACLE else source

        network: UNetSegmentor = self._trained(arm, build, data, scale.iterations, SEGMENTOR)
        return network

    @cached_property
    def _to_target(self) -> nn.Module:
        """CycleGAN's generator from source to target."""
        scale = self.scale

        def build() -> Method:
            G, F = self._translator(), self._translator()
            D_T, D_S = (PatchGANDiscriminator(scale.discriminator_filters) for _ in range(2))
            of_T, of_S = (ImagePool(POOL, (1, *scale.size)) for _ in range(2))
            return CycleGAN(G, F, D_T, D_S, of_T, of_S)

        return self._translating("CycleGAN", build, self.domains.source, self.domains.target)

    @cached_property
    def _to_source(self) -> nn.Module:
        """The self-regularised generator from target to source."""
        scale = self.scale

        def build() -> Method:
            critic = PatchGANDiscriminator(scale.discriminator_filters)
            return ConditionalGAN(self._translator(), critic, lambda_self=scale.lambda_self)

        return self._translating("self-regularised", build, self.domains.target, self.domains.source)

    def _translator(self) -> JohnsonGenerator:
        scale = self.scale
        return JohnsonGenerator(
            1, 1, scale.translator_filters, scale.residual_blocks, upsampling="bilinear", output="residual"
        )

    def _translating(self, name: str, build: Any, given: Slices, wanted: Slices) -> nn.Module:
        # Methods of two domains call them so, whatever they are.
        names = {"image": (0, "image"), "healthy": (1, "image")}
        data = partial(Beside, given, wanted, names)
        translator: nn.Module = self._trained(name, build, data, self.scale.translator_iterations, TRANSLATOR)
        return translator

    def _trained(self, name: str, build: Any, data: Any, iterations: int, schedule: Schedule) -> Any:
        folder = self.folder / file_name(name)
        return trained(folder, build, data, iterations, self.seed, self.device, schedule=schedule)

    def _as_learned(self, source: Slices, arm: str) -> Slices:
        """Slices of the source domain as an arm learns from them."""
        return source.showing(self._translate(self._to_target, source.images)) if arm == TRANSLATED else source

    def _shown(self, target: Slices, arm: str) -> Slices:
        """Slices of the target domain as an arm's segmentor is shown them."""
        if arm in (MATCHED, THRESHOLD):
            return target.showing(matched(target, self.domains.source))
        return target.showing(self._translate(self._to_source, target.images)) if arm == REVERSE else target

    @torch.inference_mode()
    def _translate(self, translator: nn.Module, images: Tensor) -> Tensor:
        return torch.cat([translator(part.to(self.device)).clamp(0, 1).cpu() for part in images.split(AT_ONCE)])

    def _found(self, arm: str, images: Tensor) -> Tensor:
        """Masks (N, 1, H, W), bool."""
        if arm == THRESHOLD:
            return fitted_cut(self.domains.source.images, self.domains.source.masks.long())(images)
        network = self._network(arm)
        with torch.inference_mode():
            return torch.cat([network(part.to(self.device)).cpu() > 0 for part in images.split(AT_ONCE)])

    def _activations(self, arm: str, slices: Slices) -> dict[str, Tensor]:
        """Means and deviations over places of each layer's activations, shape (N, 2 C)."""
        network = self._network(arm)
        found: dict[str, list[Tensor]] = {layer: [] for layer in LAYERS}
        for part in slices.images.split(AT_ONCE):
            with torch.inference_mode():
                made = network.features(part.to(self.device))
            for layer, summaries in found.items():
                places = made[layer].flatten(2)
                summaries.append(torch.cat([places.mean(2), places.std(2)], dim=1).cpu())
        return {layer: torch.cat(summaries) for layer, summaries in found.items()}

    def draw(self, path: Path) -> None:
        """Slices of the target domain, what each arm's segmentor is shown and what it finds."""
        test = self.domains.target_test
        largest = [max(mine, key=lambda index: float(test.masks[index].sum())) for mine in test.by_patient.values()]
        chosen = largest[:ROWS]
        seen = [self._shown(test, arm).images[chosen] for arm in SHOWN]
        found = [self._found(arm, images) for arm, images in zip(SHOWN, seen, strict=True)]
        images, masks = [test.images[chosen], *seen], [test.masks[chosen] > 0, *found]
        rows = [
            [
                grey(test.images[index, 0].numpy()),
                *(outlined(x[row, 0].numpy(), m[row, 0].numpy()) for x, m in zip(images, masks, strict=True)),
            ]
            for row, index in enumerate(chosen)
        ]
        legend = "images translated back are SYNTHETIC; found by networks - not for diagnosis"
        save_png(path, mosaic(["target", "drawn", *SHOWN.values()], rows, legend))


def _dice(found: Tensor, slices: Slices) -> dict[str, Any]:
    """Dice of each patient's slices taken together: their mean, and `patients`."""
    drawn = slices.masks > 0
    patients = {
        patient: pooled_dice(found[mine], drawn[mine])
        for patient, mine in slices.by_patient.items()
        if drawn[mine].any()
    }
    return {"dice": sum(patients.values()) / len(patients), "patients": patients}


def _psnr(slices: Slices, truth: Tensor) -> float:
    """Mean PSNR in dB over slices of their images against the known truth, in the foreground of that."""
    inside = truth > AIR
    kept = inside.flatten(1).any(dim=1)
    return float(psnr(slices.images[kept], truth[kept], inside[kept]).mean())


def probe(known: Sequence[Tensor], asked: Sequence[Tensor]) -> float:
    """How well a fresh logistic regression tells the domains apart on held-out slices, 0.5 being chance.

    Args:
        known: features of the source's and of the target's slices to fit on, each (N, F).
        asked: of other patients.

    Returns:
        Its mean accuracy over both domains.
    """
    (x, domain), (x_asked, domain_asked) = (
        (torch.cat(list(part)).numpy(), torch.arange(2).repeat_interleave(torch.tensor(list(map(len, part)))).numpy())
        for part in (known, asked)
    )
    judge = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    return float(balanced_accuracy_score(domain_asked, judge.fit(x, domain).predict(x_asked)))


def _page(
    frame: pd.DataFrame, results: Sequence[dict[str, Any]], known: Sequence[str], scale: Scale, target: str | None
) -> str:
    rows = [
        [
            str(row["arm"]) + (" (control)" if row["arm"] in CONTROLS else ""),
            *(mean_sd(row, name, METRICS[name][1]) for name in known),
        ]
        for _, row in frame.iterrows()
    ]
    seeds = len({result["seed"] for result in results})
    tested = len({patient for result in results for patient in result["patients"]})
    means = dict(zip(frame["arm"], frame["dice"], strict=True))
    best = max((arm for arm in ARMS if arm not in CONTROLS), key=means.__getitem__)
    control = max((arm for arm in CONTROLS if arm != ORACLE), key=means.__getitem__)
    verdict = (
        f"The best adaptation is {best} ({means[best]:.3f}), the best control without target masks {control} "
        f"({means[control]:.3f}): "
        + ("adaptation is ahead." if means[best] > means[control] else "**the control is not beaten**.")
    )
    if target is None:
        domains = f"Two simulated scanners, of the same cohort: source {_scanner(FIRST)}; target {_scanner(SECOND)}."
    else:
        domains = f"The target domain are the patients {target}."
    how = (
        f"{domains} Mean ± deviation over {count(seeds, 'seed')}, each with patients, weights and draws of its own; "
        f"{count(tested, 'patient')} tested in all. Dice is of all slices of a patient, averaged over patients. The "
        "source is as each segmentor learned it; the oracle, which learned none, is tested on it as it is. The probe "
        "is a logistic regression from means and deviations of activations, fitted to the training patients and asked "
        "about the others: 0.50 is chance."
    )
    reductions = (
        f"Reductions: slices one by one, {scale.size[0]}×{scale.size[1]} pixels of {scale.spacing_mm:g} mm; U-Net of "
        f"{scale.filters} filters, {scale.iterations} steps of 8; translators of {scale.translator_filters} filters "
        f"and {scale.residual_blocks} blocks, {scale.translator_iterations} steps of 4."
    )
    return "\n\n".join([table(["", *(METRICS[name][0] for name in known)], rows), verdict, how, reductions])


def _scanner(scanner: Scanner) -> str:
    return f"γ {scanner.gamma:g}, bias {scanner.bias:g}, noise {scanner.noise:g}, blur {scanner.fwhm_mm:g} mm"


def _figure(frame: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    shown = [name for name in ("dice", "probe") if name in frame]
    for axes, name in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        colours = ["0.6" if arm in CONTROLS else "C0" for arm in frame["arm"]]
        axes.barh(frame["arm"], frame[name], xerr=frame[f"{name}_sd"].fillna(0), color=colours)
        axes.set_xlabel(METRICS[name][0])
        axes.set_xlim(0, 1)
        if name == "probe":
            axes.axvline(0.5, color="black", linestyle=":", linewidth=1)
    figure.axes[0].invert_yaxis()
    return figure
