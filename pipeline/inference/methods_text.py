"""The paragraph on methods that a paper needs, ready to paste, with its references."""

from collections.abc import Mapping
from typing import Any

from pipeline import __version__
from pipeline.inference.translator import Twin

RESIDUAL = (
    "The network was applied to axial slices, windowed to [{low:g}, {high:g}] in the scan's units; only its residual "
    "was resampled to the scan's grid, rescaled to its intensities and added, so that all other voxels keep their "
    "exact values."
)
# Of each step a sentence, and a reference where there is one.
STEPS: dict[str, tuple[str, str | None]] = {
    "brain mask": ("The network was shown the brain alone.", None),
    "N4 bias correction": (
        (
            "Before, a bias field was estimated by N4 [{n}] and divided out for the network, and multiplied back into "
            "its residual."
        ),
        "N. J. Tustison et al. N4ITK: Improved N3 Bias Correction. IEEE Transactions on Medical Imaging 29(6), 2010",
    ),
    "rigid registration": (
        (
            "For the network, the scan was registered rigidly to a template by mutual information [{n}]; the residual "
            "was brought back by the inverse transform."
        ),
        (
            "D. Mattes et al. PET-CT image registration in the chest using free-form deformations. IEEE Transactions "
            "on Medical Imaging 22(1), 2003"
        ),
    ),
}


def methods_text(twin: Twin, alpha: float | None, about: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What was done to a scan, in sentences, and the references they name by number.

    Args:
        twin: the result.
        alpha: degree of enhancement; None for a pseudo-healthy twin.
        about: the sidecar's facts: Bundle, BundleVersion, WeightsSha256, and the bundle's references as `Citations`.
    """
    references = [str(reference) for reference in about.get("Citations", ())]
    cited = f" [{', '.join(str(place) for place in range(1, len(references) + 1))}]" if references else ""
    bundle = f"{about.get('Bundle', 'unnamed')} {about.get('BundleVersion') or ''}".strip()
    weights = str(about.get("WeightsSha256", ""))[:12]
    sentences = [
        (
            f"A pseudo-healthy version of the scan was synthesised with phs-pipeline {__version__} (bundle {bundle}, "
            f"weights SHA-256 {weights}…){cited}."
        ),
        RESIDUAL.format(low=twin.window.low, high=twin.window.high),
    ]
    for step in twin.steps:
        sentence, reference = STEPS[step["Step"]]
        if reference:
            references.append(reference)
        sentences.append(sentence.format(n=len(references)))
    if twin.uncertainty is not None:
        sentences.append(
            "Its uncertainty was taken as the standard deviation over six versions of each slice, mirrored or not and "
            "at 95, 100 and 105 % of its brightness."
        )
    if alpha is not None:
        sentences.append(f"The difference of the scan and this version was added to the scan {alpha:g} times.")
    sentences.append("Pseudo-healthy images are synthetic; they were used for research and not for diagnosis.")
    return " ".join(sentences), references
