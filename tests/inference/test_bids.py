"""BIDS derivatives: results of a scan in a BIDS dataset lie, are named and are described as BIDS asks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.inference.bids import (
    bids_sidecar,
    derivative_folder,
    write_dataset_description,
)
from pipeline.inference.enhance import enhance
from pipeline.inference.outputs import Form, Outputs
from pipeline.inference.products import Product
from pipeline.phantoms import write_phantom_cohort
from pipeline.scans import read_nifti
from pipeline.scans.sources import Source

SCAN = "sub-001/anat/sub-001_FLAIR.nii.gz"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw BIDS dataset of one subject."""
    folder = tmp_path_factory.mktemp("bids") / "raw"
    write_phantom_cohort(folder, 1, 0)
    shutil.rmtree(folder / "derivatives")
    return folder


def source(dataset: Path | None, place: str) -> Source:
    return Source((dataset or Path("scans")) / place, "scan", "nifti", dataset)


class TestPlace:
    @pytest.mark.parametrize(
        ("place", "folder"),
        [
            (SCAN, "sub-001/anat"),
            ("sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz", "sub-1/ses-a/anat"),
            ("sourcedata/sub-1/T1w.nii.gz", "."),
            ("sub-1_T1w.nii.gz", "."),
            (".", "."),
        ],
    )
    def test_of_a_dataset_is_that_of_the_scan(self, place: str, folder: str) -> None:
        assert derivative_folder(Path("out"), source(Path("data"), place)) == Path("out") / folder

    def test_without_a_dataset_is_the_output_folder(self) -> None:
        assert derivative_folder(Path("out"), source(None, SCAN)) == Path("out")

    def test_does_not_depend_on_how_paths_are_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        relative = Source(Path("data") / SCAN, "scan", "nifti", tmp_path / "data")
        assert derivative_folder(Path("out"), relative) == Path("out/sub-001/anat")


class TestSidecar:
    def test_names_the_source_by_a_bids_uri(self) -> None:
        assert bids_sidecar(source(Path("data"), SCAN), True, "A twin") == {
            "Description": "A twin",
            "SkullStripped": True,
            "Sources": [f"bids:raw:{SCAN}"],
        }

    def test_without_a_dataset_there_is_no_uri(self) -> None:
        assert bids_sidecar(source(None, SCAN), False, "A twin") == {"Description": "A twin", "SkullStripped": False}

    def test_says_nothing_of_the_skull_where_that_is_not_known(self) -> None:
        assert bids_sidecar(source(None, SCAN), None, "A twin") == {"Description": "A twin"}


class TestDescription:
    def test_names_the_dataset_and_where_it_lies(self, raw: Path, tmp_path: Path) -> None:
        write_dataset_description(raw / "derivatives" / "phs", raw)
        description = json.loads((raw / "derivatives" / "phs" / "dataset_description.json").read_text())
        shutil.rmtree(raw / "derivatives")
        assert description["DatasetType"] == "derivative"
        assert description["Name"] == "Pseudo-healthy synthesis of Synthetic brain phantoms (FLAIR contrast)"
        assert description["SourceDatasets"] == [{"URL": "../.."}]
        assert description["DatasetLinks"] == {"raw": "../.."}
        assert description["GeneratedBy"][0]["Name"] == "phs-pipeline"

    @pytest.mark.parametrize("content", ["", "[]", '{"Name": ""}'])
    def test_a_dataset_without_a_name_lends_its_folder_s(self, content: str, tmp_path: Path) -> None:
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "dataset_description.json").write_text(content)
        write_dataset_description(tmp_path / "out", tmp_path / "study")
        description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
        assert description["Name"] == "Pseudo-healthy synthesis of study"

    def test_is_written_again_by_the_next_run(self, raw: Path, tmp_path: Path) -> None:
        write_dataset_description(tmp_path, raw)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        write_dataset_description(tmp_path, raw)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_the_raw_dataset_s_own_is_never_replaced(self, raw: Path) -> None:
        before = {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()}
        with pytest.raises(UsageError, match="describes another dataset"):
            write_dataset_description(raw, raw)
        assert {path: path.read_bytes() for path in raw.rglob("*") if path.is_file()} == before

    def test_nor_that_of_another_pipeline_or_of_another_dataset_s_results(self, raw: Path, tmp_path: Path) -> None:
        write_dataset_description(tmp_path / "ours", tmp_path / "elsewhere")
        links = json.loads((tmp_path / "ours" / "dataset_description.json").read_text())["DatasetLinks"]
        theirs = {"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}], "DatasetLinks": links}
        write_json(tmp_path / "theirs" / "dataset_description.json", theirs)
        for out, dataset in ((tmp_path / "theirs", tmp_path / "elsewhere"), (tmp_path / "ours", raw)):
            with pytest.raises(UsageError, match="choose another output folder"):
                write_dataset_description(out, dataset)


class Page:
    """Stands in for the real page, whose room writes it."""

    viewer = False

    def __call__(self, *_: Any) -> str:
        return "<!doctype html>"


class TestValidator:
    @pytest.fixture
    def derivative(self, raw: Path, tmp_path: Path, make_synthesizer: Callable[..., Any], darken: nn.Module) -> Path:
        """Everything that a run writes, with a mask that was found and a number."""
        out = tmp_path / "derivative"
        scan = source(raw, SCAN)
        result = make_synthesizer(darken, 2.0, (96, 112))(read_nifti(scan.path), uncertainty=True).result
        about = {"SkullStripped": True}
        for written in (result, enhance(result, 0.7)):
            main = written.main
            Outputs(out, "sub-001_FLAIR", scan, (main.name, main.kind), Form(page=Page())).write(written, {}, about)
        age = Product("age", "number", np.array(50.0), "years", "age", "Age by the network")
        Outputs(out, "sub-001_FLAIR", scan, ("age", "number")).write(replace(result, products=(age,)), {}, about)
        for path in (out / "index.html", out / "scores.csv"):
            path.write_bytes(b"x")
        write_dataset_description(out, raw)
        return out

    @pytest.mark.slow
    def test_finds_no_error(self, raw: Path, derivative: Path, bids_findings: Callable[..., Any]) -> None:
        errors, _ = bids_findings(raw)
        assert not errors
        errors, summary = bids_findings(derivative)
        assert not errors
        assert summary["subjects"] == ["001"]

    @pytest.mark.slow
    def test_finds_none_in_a_dataset_that_holds_its_derivative(
        self, raw: Path, derivative: Path, bids_findings: Callable[..., Any]
    ) -> None:
        nested = raw / "derivatives" / "phs-pipeline"
        shutil.copytree(derivative, nested)
        (nested / "dataset_description.json").unlink()
        write_dataset_description(nested, raw)
        try:
            assert not bids_findings(raw)[0]
            assert not bids_findings(nested)[0]
        finally:
            shutil.rmtree(raw / "derivatives")

    @pytest.mark.slow
    def test_would_find_a_missing_statement(self, derivative: Path, bids_findings: Callable[..., Any]) -> None:
        write_json(derivative / "sub-001/anat/sub-001_desc-anomaly_FLAIR.json", {"Description": "What was taken out"})
        errors, _ = bids_findings(derivative)
        assert any("SkullStripped" in json.dumps(error) for error in errors)
