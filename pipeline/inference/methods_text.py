"""The paragraph on methods that a paper needs, ready to paste, with its references."""

from collections.abc import Mapping
from typing import Any

from pipeline import __version__
from pipeline.inference.products import Result

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
IMAGES_MADE = "{} images are synthetic; they were used for research and not for diagnosis."
FOUND = "Masks and values found by a network were used for research and not for diagnosis."


def methods_text(result: Result, about: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What was done to a scan, in sentences, and the references they name by number.

    Args:
        result: of the scan.
        about: the sidecar's facts: Bundle, BundleVersion, WeightsSha256, Precision where it is not float32, and the
            bundle's references as `Citations`.
    """
    references = [str(reference) for reference in about.get("Citations", ())]
    cited = f" [{', '.join(str(number) for number in range(1, len(references) + 1))}]" if references else ""
    bundle = f"{about.get('Bundle', 'unnamed')} {about.get('BundleVersion') or ''}".strip()
    weights = about.get("WeightsSha256")
    by = f"bundle {bundle}, weights SHA-256 {weights[:12]}…" if weights else f"bundle {bundle}"
    sentences = [f"{result.made} with phs-pipeline {__version__} ({by}){cited}."]
    transfer, *others = result.method or ("",)
    sentences += [transfer] if transfer else []
    for step in result.steps:
        sentence, reference = STEPS[step["Step"]]
        if reference:
            references.append(reference)
        sentences.append(sentence.format(n=len(references)))
    sentences += others
    if precision := about.get("Precision"):
        sentences.append(f"Networks were computed in {precision} mixed precision.")
    image = result.first("image")
    sentences.append(FOUND if image is None else IMAGES_MADE.format(image.title[0].upper() + image.title[1:]))
    return " ".join(sentences), references
