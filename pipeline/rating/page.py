"""The page that raters score on: one file that needs no network and tells no method."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.evaluation.twins import Twins
from pipeline.mosaic import body_box, grey, outlined, square

PLACEHOLDER = "{{study}}"


@dataclass(frozen=True)
class Panels:
    """The pictures of one case, each a PNG in base64.

    Attributes:
        input: the pathological slice.
        images: the methods' images of it, in the order of the letters A, B, C…
        annotation: the slice with its lesion outlined.
    """

    input: str
    images: tuple[str, ...]
    annotation: str


def panels(reference: Twins, images: Sequence[NDArray[np.float32]], index: int) -> Panels:
    """Pictures of one slice, all cut to the same box around the body.

    Args:
        reference: the volume with its lesions.
        images: pseudo-healthy images of the same slices, each (N, H, W) in [0, 1].
        index: which of the N slices.
    """
    lesion = reference.lesion[index]
    body = body_box(reference.foreground[index] | lesion)

    def picture(rgb: NDArray[np.uint8]) -> str:
        file = io.BytesIO()
        Image.fromarray(square(rgb, reference.spacing_mm)).save(file, format="PNG")
        return base64.b64encode(file.getvalue()).decode("ascii")

    x_p = reference.image[index][body]
    return Panels(
        input=picture(grey(x_p)),
        images=tuple(picture(grey(image[index][body])) for image in images),
        annotation=picture(outlined(x_p, lesion[body])),
    )


def page(study: str, cases: Sequence[Panels]) -> str:
    """The page as HTML, with its pictures, style and script inline.

    Args:
        study: the study's id, hexadecimal digits.
        cases: in the order in which raters see them.
    """
    template = resources.files("pipeline.rating").joinpath("page.html").read_text(encoding="utf-8")
    # Hexadecimal digits and base64 need no escaping in HTML.
    content = json.dumps({"study": study, "cases": [asdict(case) for case in cases]})
    return template.replace(PLACEHOLDER, content)
