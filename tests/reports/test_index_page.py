"""The cohort's index: what needs a look first is on top, and nothing that lies in the folder breaks it."""

import base64
import csv
import hashlib
import io
import json
import re
import tracemalloc
from collections.abc import Callable, Iterable
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from browser import browse, needs_chromium
from PIL import Image

from pipeline.mosaic import difference, grey, mosaic, save_png
from pipeline.reports import index_page as module
from pipeline.reports.index_page import index_page, read_entries, scores_csv


@pytest.fixture
def write(tmp_path: Path, sidecar: dict[str, Any]) -> Callable[..., Path]:
    """Write a scan's sidecar, and the files it names."""

    def write(name: str, percent: float = 1.0, folder: str = "", **told: Any) -> Path:
        base = f"{name}_desc-pseudohealthy"
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        content = {
            **sidecar,
            "Scan": name,
            "Figures": [{**sidecar["Figures"][0], "value": percent}, *sidecar["Figures"][1:]],
            "Outputs": {f"{base}.nii.gz": "cd" * 32},
            "Page": f"{base}.html",
            **told,
        }
        for suffix in (".nii.gz", ".html"):
            (tmp_path / folder / f"{base}{suffix}").write_text("")
        path = tmp_path / folder / f"{base}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


FIGURE = {"name": "Age", "label": "Age", "value": 63.0, "units": "years", "digits": 1, "detail": "", "leading": True}


def links(html: str) -> list[str]:
    return [unquote(unescape(address)) for address in re.findall(r'<a href="([^"]+)"', html)]


class TestOrder:
    def test_failed_first_then_warnings_then_by_the_share_changed(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("little", 0.1)
        write("much", 40)
        write("warned", 0.2, Warnings=["The spacing is 5 mm."])
        write("warned-more", 3, Warnings=["The spacing is 5 mm."])
        write("lost", 0.3).with_suffix(".nii.gz").unlink(missing_ok=True)
        (tmp_path / "lost_desc-pseudohealthy.nii.gz").unlink(missing_ok=True)
        write("broken").write_text("{")
        (tmp_path / "broken_desc-pseudohealthy.png").write_bytes(b"")
        entries = read_entries(tmp_path)
        assert [(entry.scan, entry.state) for entry in entries] == [
            ("broken_desc-pseudohealthy", "failed"),
            ("lost", "failed"),
            ("warned-more", "warnings"),
            ("warned", "warnings"),
            ("much", "ok"),
            ("little", "ok"),
        ]
        html = index_page(tmp_path)
        positions = [html.index(f">{entry.scan}<") for entry in entries[1:]]
        assert positions == sorted(positions)
        assert "2 failed, 2 with warnings, 2 without." in html
        assert "Missing: lost_desc-pseudohealthy.nii.gz; run the scan again with --overwrite." in html

    def test_scans_without_a_result_are_on_top_with_the_reason(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("scan", Warnings=["unlike the training"])
        failed = tmp_path / "failed"
        failed.mkdir()
        (failed / "cut.json").write_text(json.dumps({"Scan": "cut", "Error": "cut.nii.gz: is <b>truncated</b>"}))
        (failed / "odd.json").write_text("[]")
        entries = read_entries(tmp_path)
        assert [(entry.scan, entry.state) for entry in entries] == [
            ("cut", "failed"),
            ("odd", "failed"),
            ("scan", "warnings"),
        ]
        assert "cut.nii.gz: is &lt;b&gt;truncated&lt;/b&gt;" in index_page(tmp_path)
        assert entries[1].problems == ["The note odd.json cannot be read; run the scan again."]

    def test_an_empty_folder_says_so(self, tmp_path: Path) -> None:
        assert "No result of phs-pipeline was found" in index_page(tmp_path)
        assert scores_csv(tmp_path).count("\n") == 1


class TestWhatCounts:
    def test_main_volumes_in_all_subfolders_and_no_maps_masks_or_others(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("sub-01_ses-1_FLAIR", folder="sub-01/ses-1/anat").rename(
            tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_desc-pseudohealthy_FLAIR.json"
        )
        product = {"Name": "enhanced", "Kind": "image", "Title": "lesion-enhanced image"}
        write("scan", Page=None, Product=product).rename(tmp_path / "scan_desc-enhanced.json")
        mask = {"Name": "lesion", "Kind": "mask", "Title": "lesion mask"}
        write("scan", Product=mask).rename(tmp_path / "scan_label-lesion_mask.json")
        write("scan")
        write("theirs", GeneratedBy=[{"Name": "fMRIPrep"}]).with_suffix(".png").write_bytes(b"")
        ours = [{"Name": "phs-pipeline", "Version": "0.2.0"}]
        (tmp_path / "dataset_description.json").write_text(json.dumps({"GeneratedBy": ours}))
        for other in ("scan_desc-anomaly.json", "scan_desc-uncertainty.json", "sub-01_label-lesion_mask.json"):
            (tmp_path / other).write_text(json.dumps({"Description": "Input minus pseudo-healthy"}))
        (tmp_path / "broken.json").write_text("{")
        assert sorted((entry.scan, entry.product[0]) for entry in read_entries(tmp_path)) == [
            ("scan", "enhanced"),
            ("scan", "lesion"),
            ("scan", "pseudohealthy"),
            ("sub-01/ses-1/anat/sub-01_ses-1_FLAIR", "pseudohealthy"),
        ]

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe\x00",
            b"[" * 100_000,
            b"{}",
            b'{"GeneratedBy": 3}',
            b'{"GeneratedBy": ["phs-pipeline"]}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}]}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": 7}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": {}, "Figures": 7}',
            b'{"GeneratedBy": [{"Name": "phs-pipeline"}], "Outputs": {}, "Change": {"ChangedPercent": 1.0}}',
        ],
    )
    def test_a_damaged_sidecar_is_listed_as_such(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "scan_desc-pseudohealthy.json").write_bytes(content)
        (tmp_path / "scan_desc-pseudohealthy.png").write_bytes(b"")
        (entry,) = read_entries(tmp_path)
        assert entry.state == "failed"
        assert "scan_desc-pseudohealthy.json" in index_page(tmp_path)
        assert scores_csv(tmp_path).splitlines()[1].startswith("scan_desc-pseudohealthy,,failed,,")

    @pytest.mark.parametrize(
        "told",
        [
            {"Figures": None},
            {"Figures": [{}]},
            {"Figures": ["ChangedPercent"]},
            {"Figures": [{**FIGURE, "value": "much"}]},
            {"Figures": [{**FIGURE, "value": [1]}]},
            {"Figures": [{**FIGURE, "value": 10**400}]},
            {"Figures": [{**FIGURE, "value": float("inf")}]},
            {"Figures": [{**FIGURE, "digits": 10**9}]},
            {"Figures": [{**FIGURE, "digits": "2"}]},
            {"Warnings": 3},
            {"Outputs": None},
            {"Outputs": {"\x00": ""}},
            {"Product": None},
            {"Product": {}},
            {"Scan": "../other/scan"},
            {"Scan": ""},
        ],
    )
    def test_so_is_one_whose_facts_are_no_facts(
        self, told: dict[str, Any], write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("scan", **told)
        assert [entry.state for entry in read_entries(tmp_path)] == ["failed"]
        assert "failed" in index_page(tmp_path)

    def test_numbers_that_are_none_do_not_upset_the_order(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("scan", float("nan"))
        write("other", 2.0)
        assert [(entry.scan, entry.state) for entry in read_entries(tmp_path)] == [("scan", "failed"), ("other", "ok")]


class TestLinks:
    def test_they_are_relative_and_lead_to_the_pages_that_are_there(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("a b#?%", 2, folder="sub 1")
        write("none", 1).with_name("none_desc-pseudohealthy.html").unlink()
        (address,) = links(index_page(tmp_path))
        assert address == "sub 1/a b#?%_desc-pseudohealthy.html"
        assert (tmp_path / address).is_file()

    @pytest.mark.parametrize("page", ["javascript:alert(1)", "../../etc/passwd", "https://example.org/x.html", 3, ""])
    def test_a_sidecar_cannot_send_the_reader_elsewhere(
        self, page: Any, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("scan", Page=page)
        assert links(index_page(tmp_path)) == []

    def test_hostile_names_and_sentences_are_text(self, write: Callable[..., Path], tmp_path: Path) -> None:
        name = "<script>alert('1')<b>{{ 7 * 7 }}"
        write(name, Warnings=["<img src=x onerror=alert(2)>"], Bundle="<i>gvs</i>")
        html = index_page(tmp_path)
        assert not re.search(r"<(script|b|i)>|<img src=x", html)
        assert "{{ 7 * 7 }}" in html
        assert links(html) == [f"{name}_desc-pseudohealthy.html"]

    def test_a_name_that_is_no_unicode_is_listed_and_linked(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("bad\udcff")
        html = index_page(tmp_path)
        assert 'href="bad%FF_desc-pseudohealthy.html"' in html

    def test_nothing_is_fetched_and_no_script_runs(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("scan")
        html = index_page(tmp_path)
        assert "default-src 'none'" in html
        assert not re.search(r"script-src|<script|https?:|url\(|@import", html)
        assert "SYNTHETIC – research only, not for diagnosis" in html


class TestMany:
    """More than fit on one page: they are turned, found and sorted without a server."""

    COUNT, ROWS = 25, 10

    @pytest.fixture
    def many(self, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for number in range(self.COUNT):
            path = write(f"scan{number:02}", percent=number, Warnings=["unlike <b>it</b>"] if number % 5 == 0 else [])
            path.with_suffix(".png").write_bytes(b"")
        monkeypatch.setattr(module, "MOST_INLINE", self.ROWS)
        page = tmp_path / "index.html"
        page.write_text(index_page(tmp_path), encoding="utf-8")
        return page

    @staticmethod
    def shown(html: str) -> list[str]:
        table = html.partition("<tbody>")[2].partition("</tbody>")[0]
        return re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', table)

    def test_the_first_are_in_the_page_for_whoever_has_no_scripts_and_all_in_its_data(self, many: Path) -> None:
        html = many.read_text(encoding="utf-8")
        assert "25 scans</h1>" in html
        assert self.shown(html) == [f"scan{n:02}" for n in (20, 15, 10, 5, 0, 24, 23, 22, 21, 19)]
        assert "The first 10 of 25 scans are shown" in html
        data = re.search(r'<script type="application/json" id="table">(.*?)</script>', html, re.DOTALL)
        assert data is not None
        table = json.loads(data[1])
        assert len(table["rows"]) == self.COUNT
        assert table["texts"].count("unlike <b>it</b>") == 1
        assert "<b>" not in html

    def test_its_own_script_runs_and_no_other_and_pictures_wait_until_they_are_looked_at(self, many: Path) -> None:
        html = many.read_text(encoding="utf-8")
        (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}';" in html
        assert not re.search(r"script-src 'unsafe|https?:|url\(|@import|data:image", html)
        pictures = re.findall(r"<img [^>]*src=[^>]+>", html)
        assert len(pictures) == self.ROWS
        assert all('loading="lazy"' in picture for picture in pictures)

    def test_the_controls_have_labels(self, many: Path) -> None:
        html = many.read_text(encoding="utf-8")
        form = html.partition('<form class="find')[2].partition("</form>")[0]
        assert len(re.findall(r"<(?:input|select)", form)) == len(
            re.findall(r"<label>[^<]*<(?:input|select)|<label><inp", form)
        )
        assert form.count("<fieldset><legend>State</legend>") == 1
        assert html.count('aria-label="Pages, ') == 2
        assert html.count('role="status"') == 1

    @needs_chromium
    @pytest.mark.parametrize(
        ("fragment", "expected", "said"),
        [
            ("#text=&order=scan&state=failed&state=warnings&state=ok&page=3", range(20, 25), "21 to 25 of 25"),
            ("#text=SCAN1&order=0&state=ok&page=1", (19, 18, 17, 16, 14, 13, 12, 11), "1 to 8 of 8 found, of 25"),
        ],
    )
    def test_a_browser_turns_finds_and_sorts(
        self, fragment: str, expected: Iterable[int], said: str, many: Path, tmp_path: Path
    ) -> None:
        browser = browse(many, tmp_path, "--dump-dom", fragment=fragment)
        assert [line for line in browser.stderr.splitlines() if "CONSOLE" in line] == []
        assert self.shown(browser.stdout) == [f"scan{n:02}" for n in expected]
        assert browser.stdout.count(f">{said}</span>") == 2
        assert 'hidden=""' not in browser.stdout.partition("<body>")[2]

    def test_memory_grows_little_with_each_scan(self, write: Callable[..., Path], tmp_path: Path) -> None:
        def peak() -> int:
            tracemalloc.start()
            index_page(tmp_path)
            size = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return size

        added, peaks = 150, []
        for first in (0, added, 2 * added):  # the first fills what is kept once
            for number in range(first, first + added):
                write(f"scan{number:05}", percent=number)
            peaks.append(peak())
        assert (peaks[2] - peaks[1]) / added < 12_000


class TestThumbnails:
    @staticmethod
    def picture(path: Path) -> None:
        """Three slices; the second has the change."""
        plain, changed = np.full((40, 40), 0.5), np.zeros((40, 40))
        changed[10:20, 10:20] = 0.5
        rows = [[grey(plain), grey(plain), difference(change)] for change in (0 * changed, changed, 0.1 * changed)]
        save_png(path, mosaic(["input", "SYNTHETIC pseudo-healthy", "difference"], rows, "not for diagnosis"))

    def test_the_slice_with_most_colour_is_shown_small(self, write: Callable[..., Path], tmp_path: Path) -> None:
        self.picture(write("scan").with_suffix(".png"))
        html = index_page(tmp_path)
        (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
        assert len(data) < 20_000
        assert "input · SYNTHETIC pseudo-healthy · difference" in html
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.size == (264, 88)
        assert "SYNTHETIC" in picture.info["Warning"]
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert (pixels[..., 0] - pixels[..., 2]).max() > 200
        assert pixels[44, 44] == pytest.approx(127, abs=4)

    def test_of_many_scans_the_pictures_are_linked(
        self, write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.picture(write("a scan", 3).with_suffix(".png"))
        write("without", 2)
        monkeypatch.setattr(module, "MOST_INLINE", 1)
        assert re.findall(r'<img src="([^"]+)"', index_page(tmp_path)) == ["a%20scan_desc-pseudohealthy.png"]

    @pytest.mark.parametrize("content", [b"", b"no picture", "cut", "small"])
    def test_a_picture_that_is_none_of_ours_is_left_out(
        self, content: bytes | str, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = write("scan").with_suffix(".png")
        self.picture(path)
        if content == "cut":
            path.write_bytes(path.read_bytes()[:400])
        elif content == "small":
            Image.new("RGB", (10, 10)).save(path)
        else:
            assert isinstance(content, bytes)
            path.write_bytes(content)
        assert "<img" not in index_page(tmp_path)


class TestScores:
    def test_every_number_of_every_scan_in_the_order_of_the_page(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("calm", 0.5)
        write(
            "worse",
            2.5,
            folder="sub-1",
            Figures=[
                {**FIGURE, "name": "ChangedPercent", "value": 2.5},
                FIGURE,
                {**FIGURE, "name": "Spread", "value": None},
            ],
            Warnings=["The spacing is 5 mm, expected 1 mm.", "No brain."],
        )
        rows = list(csv.DictReader(io.StringIO(scores_csv(tmp_path))))
        assert [row["Scan"] for row in rows] == ["sub-1/worse", "calm"]
        worse, calm = rows
        assert worse["Warnings"] == "The spacing is 5 mm, expected 1 mm. | No brain."
        numbers = [float(calm[name]) for name in ("ChangedPercent", "LesionMl", "EditedMl")]
        assert numbers == pytest.approx([0.5, 0.96, 57.6])
        assert (worse["ChangedPercent"], worse["Age"], worse["Spread"]) == ("2.5", "63.0", "")
        assert (worse["LesionMl"], calm["Age"]) == ("", "")
        assert (calm["State"], calm["Bundle"], calm["BundleVersion"], calm["Problems"]) == ("ok", "gvs", "0.2.0", "")

    def test_a_spreadsheet_does_not_run_a_name(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("=cmd()", Warnings=["+1"], Product={"Name": "@SUM(A1)", "Kind": "image", "Title": ""})
        (row,) = csv.DictReader(io.StringIO(scores_csv(tmp_path)))
        assert (row["Scan"], row["Product"], row["Warnings"]) == ("'=cmd()", "'@SUM(A1)", "'+1")

    def test_each_result_is_one_line_whatever_its_names_hold(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("a\n=cmd()", Bundle="\r=cmd()", Warnings=["\x1b[2J"], Figures=[{**FIGURE, "name": "\n=cmd()"}])
        text = scores_csv(tmp_path)
        assert len(text.splitlines()) == 2
        assert "\x1b" not in text
        assert "\r" not in text
        header, row = csv.reader(io.StringIO(text))
        assert not any(cell.startswith(("=", "\n", "\r")) for cell in header + row)


class TestFigures:
    def test_the_leading_ones_of_all_results_are_columns_in_order_with_their_units(
        self, write: Callable[..., Path], tmp_path: Path
    ) -> None:
        write("scan", 2.0)
        write("aged", Figures=[FIGURE, {**FIGURE, "name": "Hidden", "label": "Hidden", "leading": False}])
        write("days", Figures=[{**FIGURE, "value": 9.0, "units": "days"}])
        html = index_page(tmp_path)
        assert re.findall(r'<th scope="col" class="number">([^<]+)(?:<br>([^<]+))?</th>', html) == [
            ("Age,", "years"),
            ("Age,", "days"),
            ("Changed share,", "% of edited"),
            ("Changed,", "ml"),
            ("Taken for disease,", "ml"),
            ("Mean change,", "% of window"),
        ]
        rows = [
            [re.match(r"[^<]*", cell)[0] for cell in re.findall(r'<td class="number[^>]*>(.*?)</td>', row)]  # type: ignore[index]
            for row in re.findall(r"<tr(?: class=\"explained\")?>\n<th scope=\"row\">.*?</tr>", html, re.DOTALL)
        ]
        assert rows == [
            ["63.0", "–", "–", "–", "–", "–"],
            ["–", "9.0", "–", "–", "–", "–"],
            ["–", "–", "2.00", "1.0", "1.0", "0.83"],
        ]

    def test_results_of_several_kinds_say_what_each_is(self, write: Callable[..., Path], tmp_path: Path) -> None:
        write("scan")
        one = index_page(tmp_path)
        assert "<h1>SYNTHETIC pseudo-healthy image: 1 scan</h1>" in one
        assert '<span class="soft">pseudo-healthy image</span>' not in one
        write("other", 0.5, Product={"Name": "lesion", "Kind": "mask", "Title": "lesion mask"})
        html = index_page(tmp_path)
        assert "<h1>SYNTHETIC pseudo-healthy image, lesion mask: 2 scans</h1>" in html
        assert '<span class="soft">pseudo-healthy image</span>' in html
        assert '<span class="soft">lesion mask</span>' in html

    def test_what_they_say_is_text(self, write: Callable[..., Path], tmp_path: Path) -> None:
        hostile = '<img src=x onerror=alert(2)>"'
        write("scan", Figures=[{**FIGURE, "name": hostile, "label": hostile, "units": hostile}])
        assert "<img" not in index_page(tmp_path)
