"""What the HTML pages share: templates that escape whatever they are given, and pictures inside the page."""

import base64
import hashlib
import io
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, PngImagePlugin

BANNER = "SYNTHETIC – research only, not for diagnosis"

_TEMPLATES = Environment(
    loader=PackageLoader("pipeline.reports", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **facts: Any) -> str:
    """A page from a template in `assets`; every text in `facts` is escaped."""
    return _TEMPLATES.get_template(template).render(banner=BANNER, **facts)


def script_hash(script: str) -> str:
    """By what a page's policy lets this script run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def data_uri(picture: Image.Image, synthetic: bool) -> str:
    """A picture as a PNG for `href` or `src`.

    Args:
        picture: grey, palette or RGB.
        synthetic: say in the PNG's own text that it is; whoever takes it out of the page still has the warning.
    """
    file = io.BytesIO()
    told = PngImagePlugin.PngInfo()
    if synthetic:
        told.add_text("Warning", BANNER.replace("–", "-"))
    picture.save(file, format="PNG", pnginfo=told)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
