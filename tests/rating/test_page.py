"""The raters' page: nothing tells the method, nothing needs a network, and scores come out as they went in."""

import base64
import io
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browse, needs_chromium
from PIL import Image

from pipeline.rating.results import read_key, read_ratings

pytestmark = pytest.mark.slow


def content(study: Path) -> dict[str, Any]:
    html = (study / "rating.html").read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', html)
    return dict(json.loads(data))


def pixels(png: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def chunks(png: bytes) -> Sequence[bytes]:
    names, place = [], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        names.append(png[place + 4 : place + 8])
        place += 12 + length
    return names


def test_no_method_no_subject_and_no_place_of_the_reports_is_on_the_page(study: Path) -> None:
    html = (study / "rating.html").read_text(encoding="utf-8").lower()
    key = read_key(study)
    hidden = {*key["methods"], *(case[name] for case in key["cases"] for name in ("patient", "subject"))}
    hidden |= {method["summary_sha256"] for method in key["methods"].values()}
    hidden |= {str(study.parent), "report-", "repeat_of", "abc"}
    without_images = re.sub(r'"[a-z0-9+/=]{100,}"', '""', html)
    assert len(without_images) < len(html)
    assert [name for name in hidden if name.lower() in without_images] == []


def test_the_pictures_carry_no_text_and_no_date(study: Path) -> None:
    for case in content(study)["cases"]:
        for png in (case["input"], *case["images"], case["annotation"]):
            assert set(chunks(base64.b64decode(png))) == {b"IHDR", b"IDAT", b"IEND"}


def test_each_letter_shows_the_image_that_the_key_says_and_none_is_always_the_same_method(study: Path) -> None:
    # A method's brightness: darkness 0.4, dusk 0.6, light 0.8 of the input's.
    brightness = {"method-of-darkness": 0.4, "method-of-dusk": 0.6, "method-of-light": 0.8}
    key = read_key(study)
    seen: dict[str, set[str]] = {}
    for case, told in zip(content(study)["cases"], key["cases"], strict=True):
        whole = pixels(case["input"]).sum()
        for letter, png in zip("ABC", case["images"], strict=True):
            method = told["images"][letter]
            assert pixels(png).sum() / whole == pytest.approx(brightness[method], abs=0.02)
            seen.setdefault(letter, set()).add(method)
    assert all(len(methods) > 1 for methods in seen.values())


def test_all_pictures_of_a_case_have_one_size_and_the_lesion_is_outlined_in_the_last_only(study: Path) -> None:
    for case in content(study)["cases"]:
        pictures = [pixels(png) for png in (case["input"], *case["images"], case["annotation"])]
        assert len({picture.shape for picture in pictures}) == 1
        coloured = [bool((np.ptp(picture, axis=2) > 100).any()) for picture in pictures]
        assert coloured == [False, False, False, False, True]


def test_a_repeated_case_shows_the_same_pictures(study: Path) -> None:
    cases = content(study)["cases"]
    repeats = [case for case in read_key(study)["cases"] if case["repeat_of"]]
    for case in repeats:
        again, first = cases[case["case"] - 1], cases[case["repeat_of"] - 1]
        assert again["input"] == first["input"]
        assert sorted(again["images"]) == sorted(first["images"])
    assert len(repeats) == 3


def test_the_page_refers_to_nothing_outside_and_says_that_its_images_are_synthetic(study: Path) -> None:
    html = (study / "rating.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=[\"']?[^\"'d]|href=|@import|fetch\(|XMLHttpRequest", html)
    assert "default-src 'none'" in html
    assert "SYNTHETIC images, for research. Not for diagnosis." in html


# What a rater does, played in the page itself: the keys of two cases, a look back, and the file.
PLAY = """
<script type="module">
const press = key => (document.activeElement ?? document.body).dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const title = () => document.getElementById("case-title").textContent;
let saved;
URL.createObjectURL = blob => { saved = blob; return "about:blank"; };
HTMLAnchorElement.prototype.click = function () { document.title = this.download; };
document.getElementById("name").value = " Ä. K ";
document.getElementById("start").requestSubmit();
const seen = [title(), document.activeElement.getAttribute("aria-label")];
for (const key of "543215") press(key);
seen.push(document.activeElement.id);
press("n");
for (const key of "12") press(key);
press("b");
seen.push(title(), document.querySelectorAll(":checked").length);
document.querySelector("fieldset input").focus();
press("0");
document.getElementById("finish").click();
seen.push(document.querySelectorAll("#open button").length);
document.getElementById("export").click();
const kept = localStorage.getItem(`rating ${document.getElementById("study-id").textContent} Ä. K`);
document.body.replaceChildren(JSON.stringify({ seen, file: document.title, kept: JSON.parse(kept) }), "\\n",
  await saved.text());
document.title = "played";
</script>
"""


@needs_chromium
def test_a_browser_takes_scores_from_the_keyboard_keeps_them_and_saves_what_the_report_reads(
    study: Path, tmp_path: Path
) -> None:
    html = (study / "rating.html").read_text(encoding="utf-8")
    # The content moves out of the way of what is printed, the script stays as raters get it.
    (tmp_path / "played.html").write_text(html.replace("</body>", PLAY + "</body>"), encoding="utf-8")
    shown = browse(tmp_path / "played.html", tmp_path, "--virtual-time-budget=5000", "--dump-dom")
    (body,) = re.findall(r"<body>(.*)</body>", shown.stdout, re.DOTALL)
    told, _, saved = body.partition("\n")
    told = json.loads(told)
    assert told["seen"] == ["Case 1 of 12", "Healthiness of image A: 1, bad", "next", "Case 1 of 12", 6, 12]
    assert told["file"] == "rating_Ä_K.json"

    (tmp_path / "rating.json").write_text(saved, encoding="utf-8")
    rater, scores = read_ratings(tmp_path / "rating.json", read_key(study))
    assert rater == "Ä. K"
    assert [tuple(row) for row in scores.itertuples(index=False)] == [
        (1, "A", "identity", 4),
        (1, "B", "healthiness", 3),
        (1, "B", "identity", 2),
        (1, "C", "healthiness", 1),
        (1, "C", "identity", 5),
        (2, "A", "healthiness", 1),
        (2, "A", "identity", 2),
    ]
    assert told["kept"]["scores"]["1"]["B"] == {"healthiness": 3, "identity": 2}
