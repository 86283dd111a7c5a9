"""A scan's page: complete in itself, honest about what is synthetic, and safe whatever the names are."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browse, needs_chromium
from PIL import Image

from pipeline.inference.products import Product, Result
from pipeline.preprocessing.window import WindowRule
from pipeline.reports import ScanPage, scan_page
from pipeline.scans import read_nifti

HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp;{{ 7 * 7 }}"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page without scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.text += " "
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        if self.found[-1:] and self.found[-1][0] not in {"script", "style"}:
            self.text += data

    def of(self, tag: str) -> Iterator[dict[str, str]]:
        return (attributes for name, attributes in self.found if name == tag)


@pytest.fixture
def make_page(make_result: Callable[..., Result], sidecar: dict[str, Any], lesion: np.ndarray) -> Callable[..., str]:
    def make(name: str = "sub-01_FLAIR", viewer: bool = False, uncertainty: bool = False, **told: Any) -> str:
        deviation = np.full(lesion.shape, 20, dtype=np.float32) if uncertainty else None
        return ScanPage(viewer)(make_result(deviation=deviation), name, {**sidecar, **told})

    return make


def words(html: str) -> str:
    return " ".join(Elements(html).text.split())


class TestWhatItTells:
    def test_banner_summary_assumptions_methods_and_no_error(self, make_page: Callable[..., str]) -> None:
        text = words(make_page())
        for sentence in (
            "SYNTHETIC – research only, not for diagnosis",
            "The scan with the network's pseudo-healthy residual added.",
            "Made of this scan: SYNTHETIC pseudo-healthy image, anomaly map, lesion mask.",
            "Changed share 1.67 % of edited voxels that differ by more than 10 % of the intensity window",
            "Changed 1.0 ml 1.67 % of the edited tissue; 1.0 ml darker, 0.0 ml brighter",
            "Darker 1.0 ml",
            "Brighter 0.0 ml",
            "Taken for disease 1.0 ml by the method; outlined in the pictures",
            "Edited tissue 58 ml where the method was allowed to change the scan",
            "Mean change 0.83 % of window in the edited tissue",
            "Bundle gvs version 0.2.0",
            "4 slices were left alone.",
            "A pseudo-healthy version of the scan was synthesised [1]. A paper. A venue 2022",
            "None: the scan was processed to its end.",
            "Border of the lesion mask. Where the method removed disease",
            "SYNTHETIC anomaly map. Input minus pseudo-healthy: orange, brightness taken away; blue, brightness added",
            "full colour at 30 % of the window (300 in the scan's units)",
            "input SYNTHETIC pseudo-healthy image. The dashed line",
        ):
            assert sentence in text
        assert "ncertainty" not in text

    def test_the_title_says_what_it_is(self, make_page: Callable[..., str]) -> None:
        assert "<title>sub-01_FLAIR: SYNTHETIC pseudo-healthy image</title>" in make_page()

    def test_warnings_come_before_all_else(self, make_page: Callable[..., str]) -> None:
        html = make_page(Warnings=["The spacing is 5 mm, expected 1 to 3 mm."])
        text = words(html)
        assert text.index("The spacing is 5 mm") < text.index("Changed 1.0 ml")
        assert "No warnings" not in text
        assert "No warnings" in words(make_page())

    def test_settings_name_what_the_page_does_not_say_elsewhere_and_repeat_nothing(
        self, make_page: Callable[..., str]
    ) -> None:
        text = words(make_page())
        table = text[text.rindex("Settings and provenance") :]
        assert f"WeightsSha256 {'ab' * 32}" in table
        assert f"Outputs: scan_desc-pseudohealthy.nii.gz {'cd' * 32}" in table
        assert "GeneratedBy: Name phs-pipeline" in table
        assert "Slab: thickness_mm 60.0" in table
        assert "Steps none" in table
        assert table.count("Bundle gvs") == 1
        assert "Citations" not in table

    def test_a_map_is_drawn_and_its_colours_and_numbers_told(
        self, make_page: Callable[..., str], make_result: Callable[..., Result], sidecar: dict[str, Any]
    ) -> None:
        html = make_page(uncertainty=True)
        text = words(html)
        assert "Uncertainty of the lesion 20.000 scan units in what was taken for disease" in text
        assert (
            "SYNTHETIC uncertainty. Standard deviation: from 0 to 10 % of the window (100 in the scan's units)" in text
        )
        assert sum(image["id"].endswith("-map0") for image in Elements(html).of("image")) == 12

        def heal(stored: np.ndarray, made: np.ndarray) -> None:
            made[:] = stored

        result = make_result(deviation=np.zeros((30, 36, 12), dtype=np.float32), mend=heal)
        nothing = words(ScanPage()(result, "scan", sidecar))
        assert "Uncertainty of the lesion – in what was taken for disease" in nothing

    def test_errors_are_listed(self, make_page: Callable[..., str]) -> None:
        text = words(make_page(Errors=["The anomaly map could not be written."]))
        assert "The anomaly map could not be written." in text
        assert "processed to its end" not in text

    def test_doubtful_and_oblique_orientation_is_told(
        self, make_result: Callable[..., Result], sidecar: dict[str, Any]
    ) -> None:
        def told(**how: Any) -> str:
            return words(ScanPage()(make_result(**how), "scan", sidecar))

        assert "Radiological convention: the person's right (R) is at the left" in told()
        assert "oblique" not in told()
        assert "may be wrong" not in told()
        assert "The scan is oblique, up to 12° off the body's axes" in told(tilt_degrees=12)
        assert "The header does not say which side is which" in told(codes=0)


class TestPictures:
    def test_three_planes_of_three_panels_and_a_flicker_of_the_same_pictures(
        self, make_page: Callable[..., str]
    ) -> None:
        page = Elements(make_page())
        shown = [image["id"] for image in page.of("image")]
        assert len(shown) == len(set(shown)) == (6 + 3 + 3) * 3
        used = [use["href"].removeprefix("#") for use in page.of("use")]
        assert [name.split("-")[::2] for name in used] == [
            [plane, kind] for plane in ("axial", "coronal", "sagittal") for kind in ("input", "image0")
        ]
        assert set(used) <= set(shown)

    def test_every_picture_that_is_not_the_input_says_synthetic_in_itself_above_and_in_its_file(
        self, make_page: Callable[..., str]
    ) -> None:
        html = make_page(uncertainty=True)
        figures = re.findall(r'<figure class="panel">.*?</figure>', html, re.DOTALL)
        assert len(figures) == 3 + 12 * 4
        for figure in figures[3:]:
            synthetic = '-input"' not in figure
            (uri,) = re.findall(r'href="data:image/png;base64,([^"]+)"', figure)
            (caption,) = re.findall(r"<figcaption>(.*?)</figcaption>", figure)
            (label,) = re.findall(r'aria-label="([^"]+)"', figure)
            told = Image.open(io.BytesIO(base64.b64decode(uri))).info.get("Warning", "")
            marks = [">SYNTHETIC</text>" in figure, "SYNTHETIC" in caption, "SYNTHETIC" in label, "SYNTHETIC" in told]
            assert marks == [synthetic] * 4
        for flicker in figures[:3]:
            before, after = flicker.split('<g class="after">')
            assert ">INPUT</text>" in before
            assert ">SYNTHETIC</text>" in after

    def test_each_has_words_for_who_cannot_see_it(self, make_page: Callable[..., str]) -> None:
        pictures = list(Elements(make_page()).of("svg"))
        assert len(pictures) == 3 + 36 + 2
        assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)

    def test_a_scan_in_which_nothing_was_changed_has_a_page(
        self, make_result: Callable[..., Result], sidecar: dict[str, Any]
    ) -> None:
        def heal(stored: np.ndarray, made: np.ndarray) -> None:
            made[:] = stored

        html = ScanPage()(make_result(mend=heal), "scan", sidecar)
        assert "cm²" not in html
        assert 'class="outline"' not in html
        assert html.count('class="chart"') == 1
        assert "Axial slice 7 of 12" in html

    @pytest.mark.data
    def test_the_page_of_a_brain_at_1_mm_takes_less_than_2_mb(
        self, shared_data: Path, sidecar: dict[str, Any], translation: Callable[..., Result]
    ) -> None:
        path = next((shared_data / "brats2013").glob("*/*_flair.nii.gz"))
        scan = read_nifti(path)
        assert scan.shape == (240, 240, 155)
        lesion = read_nifti(path.with_name(path.name.replace("flair", "seg"))).intensities() > 0
        window = WindowRule().window(scan.intensities(), path)
        made = np.where(lesion, scan.stored // 2, scan.stored).astype(scan.stored.dtype)
        result = translation(scan, made, scan.intensities() > 0, lesion.astype(np.float32))
        page = ScanPage()(replace(result, window=window), "scan", sidecar)
        assert 100_000 < len(page.encode()) < 2_000_000


class TestKinds:
    """Pages of results without an image, or of another image, are of the same pieces and of no other's words."""

    @staticmethod
    def page(result: Result, sidecar: dict[str, Any], viewer: bool = False) -> str:
        return ScanPage(viewer)(result, "scan", {**sidecar, "Description": result.main.meaning, "Methods": "Methods."})

    def test_of_a_segmenter(self, segmented: Result, sidecar: dict[str, Any]) -> None:
        html = self.page(segmented, sidecar)
        text = words(html)
        for sentence in (
            "Lesion 1.0 ml",
            "Border of the lesion mask, and its inside in the SYNTHETIC panel. Where the network finds lesion",
            "Border of the head mask, and its inside",
            "SYNTHETIC probability of lesion. Probability of lesion by the network, not calibrated: from 0 to 1 ",
            "With and without borders",
            "Inside the lesion mask",
        ):
            assert sentence in text
        for other in ("healthy image", "disease", "twin", "Before and after", "brightness", "could be edited"):
            assert other not in text
        assert "<title>scan: SYNTHETIC lesion mask</title>" in html
        page = Elements(html)
        assert {image["id"].split("-")[2] for image in page.of("image")} == {"input", "mask0", "mask1", "map0", "map1"}
        assert {use["href"].split("-")[2] for use in page.of("use")} == {"input"}
        borders = {path["stroke"] for path in page.of("path") if path.get("class") == "outline"}
        assert borders == {"rgb(255,196,0)", "rgb(86,180,233)"}
        swatches = [span["style"] for span in page.of("span") if span.get("class") == "swatch"]
        assert swatches == ["border-color: rgb(255,196,0)", "border-color: rgb(86,180,233)"]
        assert "curve-before" in html
        assert '<path class="curve-after"' not in html

    def test_of_a_scorer(self, scored: Result, sidecar: dict[str, Any]) -> None:
        html = self.page(scored, sidecar)
        text = words(html)
        assert re.search(r"Brightness \d\d\.\d\d %", text)
        assert "Brightness by the network; mean over 8 slices" in text
        assert "Axial slice 7 of 12" in text
        assert "Methods." in text
        for section in ("flicker", "histogram"):
            assert f'id="{section}"' not in html
        assert "borders" not in text
        assert len(list(Elements(html).of("image"))) == 12
        assert all(image["id"].endswith("-input") for image in Elements(html).of("image"))

    def test_of_a_filler(self, filled: Result, sidecar: dict[str, Any]) -> None:
        html = self.page(filled, sidecar)
        text = words(html)
        assert "Made of this scan: SYNTHETIC filled image, difference, filled mask." in text
        assert "Filled 1.0 ml inside the mask" in text
        assert "Border of the filled mask. The lesion mask that was filled" in text
        assert html.count('class="chart"') == 1  # all that was edited is inside the mask
        for other in ("healthy image", "disease", "twin"):
            assert other not in text

    def test_a_number_that_no_figure_describes_is_told(self, scored: Result, sidecar: dict[str, Any]) -> None:
        age = Product("age", "number", np.float32(63.25), "years", "age", "Age by the network")
        text = words(self.page(replace(scored, products=(age,), figures=()), sidecar))
        assert "Age by the network. age 63.25 years" in text

    def test_the_viewer_has_every_volume_under_its_title(self, segmented: Result, sidecar: dict[str, Any]) -> None:
        html = self.page(segmented, sidecar, viewer=True)
        assert "SYNTHETIC probability of lesion over it" in words(html)
        ids = [script["id"] for script in Elements(html).of("script") if "id" in script]
        assert ids == [f"volume-{key}" for key in ("input", "mask0", "mask1", "map0", "map1")]
        (section,) = (each for each in Elements(html).of("section") if each.get("id") == "viewer-section")
        looks = json.loads(section["data-look"])["volumes"]
        assert [look["kind"] for look in looks] == ["input", "mask", "mask", "map", "map"]
        assert (looks[0]["low"], looks[0]["high"]) == (0, 1000)

    def test_titles_and_meanings_of_products_are_text(self, result: Result, sidecar: dict[str, Any]) -> None:
        plain = Elements(self.page(result, sidecar, viewer=True))
        hostile = tuple(replace(each, title=HOSTILE, meaning=HOSTILE) for each in result.products)
        labelled = tuple(replace(each, label=HOSTILE, units=HOSTILE, detail=HOSTILE) for each in result.figures)
        page = Elements(self.page(replace(result, products=hostile, figures=labelled), sidecar, viewer=True))
        assert [tag for tag, _ in page.found] == [tag for tag, _ in plain.found]


class TestSafety:
    def test_nothing_is_fetched_and_no_script_runs(self, make_page: Callable[..., str]) -> None:
        html = make_page()
        page = Elements(html)
        assert "script" not in [tag for tag, _ in page.found]
        assert "default-src 'none'; img-src data:;" in html
        assert "script-src" not in html
        addresses = [attributes[name] for _, attributes in page.found for name in ("src", "href") if name in attributes]
        assert addresses
        assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
        assert not re.search(r"https?:|url\(|@import", html)
        targets = {attributes.get("id") for _, attributes in page.found}
        assert {address[1:] for address in addresses if address.startswith("#")} <= targets

    def test_whatever_names_and_sentences_hold_is_text(self, make_page: Callable[..., str]) -> None:
        plain = Elements(make_page(Warnings=["a"], References=["b"], Request={}))
        html = make_page(
            name=HOSTILE,
            Description=HOSTILE,
            Warnings=[HOSTILE],
            Notes=[HOSTILE],
            Methods=HOSTILE,
            References=[HOSTILE],
            Bundle=HOSTILE,
            Outputs={HOSTILE: HOSTILE},
            Request={},
        )
        page = Elements(html)
        assert [tag for tag, _ in page.found] == [tag for tag, _ in plain.found]
        assert page.text.count(HOSTILE) >= 8
        assert "49" not in page.text.replace(HOSTILE, "")

    def test_with_a_viewer_only_its_own_scripts_run_and_the_licence_is_with_them(
        self, make_page: Callable[..., str]
    ) -> None:
        html = make_page(name=HOSTILE, viewer=True)
        assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';" in html
        scripts = list(Elements(html).of("script"))
        assert [script.get("id") for script in scripts] == [
            *("volume-input", "volume-image0", "volume-mask0", "volume-difference0"),
            *(None, None),
        ]
        assert "Copyright (c) 2021, Niivue" in html
        assert "alert('1')" not in html.replace("&lt;script&gt;alert(&#39;1&#39;)", "")

    def test_niivue_is_the_published_file_and_fits_into_a_script(self) -> None:
        assets = resources.files("pipeline.reports") / "assets"
        niivue, licence = (assets / "niivue.umd.js").read_bytes(), (assets / "niivue.LICENSE").read_text()
        assert f"SHA-256: {hashlib.sha256(niivue).hexdigest()}" in licence
        assert len(niivue) < 3_000_000
        assert b"</script" not in niivue.lower()
        assert b"<!--" not in niivue
        assert "*/" not in licence

    def test_a_page_whose_volumes_are_large_says_so(
        self, make_page: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "MB large" not in words(make_page(viewer=True))
        monkeypatch.setattr(scan_page, "LARGE_PAGE_MB", 0)
        assert "MB large; it may open slowly" in words(make_page(viewer=True))


def screenshot(address: Path, tmp_path: Path, size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """What a browser draws of a page, int, shape (rows, columns, 3), and the lines that it logs.

    On a busy machine a browser may take its picture before the page is drawn: a picture of one colour is taken again.
    """
    window = "--window-size={},{}".format(*size)
    for _ in range(5):
        # Time stands still for the page until nothing of it waits to be loaded or drawn.
        drawn = ("--virtual-time-budget=5000", "--run-all-compositor-stages-before-draw")
        browser = browse(address, tmp_path, window, *drawn, f"--screenshot={tmp_path / 'shot.png'}")
        shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
        if (shot != shot[0, 0]).any():
            break
    return shot, browser.stderr.splitlines()


@needs_chromium
def test_a_browser_shows_the_pictures_without_scripts_on_a_narrow_screen(
    make_page: Callable[..., str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(make_page(viewer=True), encoding="utf-8")
    # A sandboxed frame runs no script, and may be narrower than the narrowest window.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<!doctype html><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>"
        f'<iframe sandbox src="{page.name}" width="400" height="4500"></iframe>',
        encoding="utf-8",
    )
    shot, lines = screenshot(frame, tmp_path, (600, 4500))
    assert [line for line in lines if "CONSOLE" in line and "sandboxed" not in line] == []
    shot = shot[:, :400]

    def share(colour: tuple[int, int, int]) -> float:
        return float((np.abs(shot - colour) <= 2).all(axis=2).mean())

    assert share((255, 196, 0)) > 0.005  # the banner
    assert share((102, 102, 102)) > 0.05  # tissue, at 40 % of the window
    assert share((230, 230, 230)) > 0.0005  # the lesion
    assert share((255, 114, 0)) > 0.0002  # what was taken away


@needs_chromium
def test_where_the_viewer_cannot_run_it_says_so_and_nothing_breaks(
    make_page: Callable[..., str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(make_page(viewer=True), encoding="utf-8")
    browser = browse(page, tmp_path, "--dump-dom")
    assert [line for line in browser.stderr.splitlines() if "CONSOLE" in line] == []
    assert "The viewer cannot run here (this browser offers no WebGL 2)." in browser.stdout
    assert re.search(r'id="viewer-body" hidden', browser.stdout)
