"""A model card's figures are those of the evaluations' records, and the prose around them stays."""

import json
from pathlib import Path

import pytest

from pipeline.bundles import Bundle
from pipeline.errors import UsageError
from pipeline.files import sha256
from pipeline.metrics import METRICS
from pipeline.reports.card import BEGIN, END, card

METRIC = METRICS["psnr_normal"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    for name, text in (("docs/README.md", f"# Mine\n\n{BEGIN}\nold\n{END}\n\nProse.\n"), ("models/model.pt", "w")):
        (tmp_path / "gvs" / name).parent.mkdir(parents=True)
        (tmp_path / "gvs" / name).write_text(text)
    return Bundle(tmp_path / "gvs", "gvs")


@pytest.fixture
def healthy(bundle: Bundle, tmp_path: Path) -> Path:
    """A report of `evaluate --healthy`."""
    summary = {
        "provenance": {"WeightsSha256": sha256(bundle.weights)},
        "metrics": [METRIC.record()],
        "scores": {METRIC.name: {"mean": 41.0, "sd": 1.5, "n": 3, "identical": 0}},
        "of": "the healthy",
        "slices": 9,
        "patients": 3,
    }
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "summary.json").write_text(json.dumps(summary))
    return tmp_path / "report"


def test_tables_replace_what_is_between_the_markers(bundle: Bundle, healthy: Path) -> None:
    text = card(bundle, [healthy], pictures=True)
    assert text.startswith(f"# Mine\n\n{BEGIN}\n\n### Identity on the healthy\n")
    assert text.endswith(f"\n\n{END}\n\nProse.\n")
    assert "old" not in text
    assert f"| {METRIC.heading} | 41.00 ± 1.50 (3) |" in text
    assert "    phs-pipeline evaluate -b gvs --healthy --data COHORT -o REPORT\n" in text
    (bundle.root / "docs" / "README.md").write_text(text)
    assert card(bundle, [healthy], pictures=True) == text


def test_a_command_names_the_bundle_as_it_is_typed_and_a_table_shows_it(bundle: Bundle, healthy: Path) -> None:
    path = healthy / "summary.json"
    content = json.loads(path.read_text())
    content["provenance"]["Bundle"] = "phs_gan\n<b>"
    path.write_text(json.dumps(content))
    text = card(bundle, [healthy], pictures=False)
    (command,) = [line for line in text.splitlines() if "phs-pipeline evaluate" in line]
    assert command.startswith("    phs-pipeline evaluate -b phs_gan")
    assert "\n<b>" not in text
    assert "| | phs\\_gan" in text


def test_figures_of_other_weights_and_cards_without_markers_are_refused(bundle: Bundle, healthy: Path) -> None:
    (bundle.root / "models" / "model.pt").write_text("others")
    with pytest.raises(UsageError, match=r"report: measured weights \w{12}, expected those of gvs"):
        card(bundle, [healthy], pictures=False)
    (bundle.root / "docs" / "README.md").write_text("# Mine\n")
    with pytest.raises(UsageError, match=r"README.md: found no place for the tables, expected the lines"):
        card(bundle, [healthy], pictures=False)


def test_a_report_of_two_bundles_belongs_to_the_card_of_either(bundle: Bundle, healthy: Path) -> None:
    path = healthy / "summary.json"
    ours = sha256(bundle.weights)
    for weights, fits in ((f"0000+{ours}", True), (f"{ours}+0000", False)):
        provenance = {"Bundle": "lesion+gvs", "WeightsSha256": weights}
        path.write_text(json.dumps({**json.loads(path.read_text()), "provenance": provenance}))
        if fits:
            assert "evaluate -b lesion+gvs --healthy --data" in card(bundle, [healthy], pictures=False)
        else:
            with pytest.raises(UsageError, match="expected those of gvs"):
                card(bundle, [healthy], pictures=False)
