"""The files of a scan: what they are called, and when they are taken for finished."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from torch import nn

from pipeline.errors import UsageError
from pipeline.scans import Scan
from pipeline.synthesis import Synthesizer, Twin, enhance
from pipeline.synthesis.outputs import Outputs, output_names

REQUEST = {"Source": {"Name": "scan.nii.gz"}, "Slab": {"slices": None}, "Window": (0.0, 1.0)}


@pytest.fixture
def twin(scan: Scan, make_synthesizer: Callable[..., Synthesizer], darken: nn.Module) -> Twin:
    return make_synthesizer(darken)(scan)


class TestNames:
    def test_a_scan_that_is_named_twice_is_one_scan(self) -> None:
        scans = [Path("a/flair.nii.gz"), Path("a/t2.nii"), Path("a/flair.nii.gz")]
        assert output_names(scans) == {scans[0]: "flair", scans[1]: "t2"}

    def test_scans_that_would_still_share_a_name_are_refused(self) -> None:
        scans = [Path("1/anat/flair.nii.gz"), Path("2/anat/flair.nii.gz")]
        with pytest.raises(UsageError, match="2 scans would all be written as 'anat_flair'; run them one by one"):
            output_names(scans)


class TestDone:
    def test_what_the_same_request_wrote_is_done(self, twin: Twin, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan")
        assert not outputs.done(REQUEST)
        outputs.write(twin, REQUEST, {})
        assert outputs.done(REQUEST)

    @pytest.mark.parametrize("lost", ["pseudohealthy", "anomaly"])
    def test_with_a_volume_missing_it_is_not_done(self, lost: str, twin: Twin, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan")
        outputs.write(twin, REQUEST, {})
        outputs.path(lost, ".nii.gz").unlink()
        assert not outputs.done(REQUEST)

    def test_what_another_request_wrote_is_refused(self, twin: Twin, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan")
        outputs.write(twin, REQUEST, {})
        with pytest.raises(UsageError, match=r"desc-pseudohealthy\.json: holds a result made from another scan"):
            outputs.done({**REQUEST, "Slab": {"slices": 60}})

    @pytest.mark.parametrize(
        "sidecar",
        [
            "",
            "{",
            "[]",
            "null",
            "7",
            "{}",
            json.dumps({"Request": REQUEST}),
            json.dumps({"Request": REQUEST, "Outputs": 7}),
        ],
    )
    def test_sidecar_that_does_not_say_so_is_refused(self, sidecar: str, twin: Twin, tmp_path: Path) -> None:
        outputs = Outputs(tmp_path, "scan")
        outputs.write(twin, REQUEST, {})
        outputs.sidecar.write_text(sidecar)
        with pytest.raises(
            UsageError, match=r"desc-pseudohealthy\.json: holds a result made from another .* --overwrite"
        ):
            outputs.done(REQUEST)


class TestSidecar:
    @pytest.mark.parametrize(("alpha", "kind"), [(None, "pseudohealthy"), (0.7, "enhanced"), (0.0, "enhanced")])
    def test_counts_the_voxels_in_which_the_volume_beside_it_differs_from_the_scan(
        self, alpha: float | None, kind: str, twin: Twin, tmp_path: Path
    ) -> None:
        outputs = Outputs(tmp_path, "scan", alpha)
        outputs.write(twin, REQUEST, {})
        volume = nib.load(tmp_path / f"scan_desc-{kind}.nii.gz").dataobj.get_unscaled()
        assert sidecar(outputs)["ChangedVoxels"] == np.count_nonzero(volume != twin.scan.stored)

    def test_enhancement_that_the_data_type_swallows_changes_fewer_voxels_than_the_twin(
        self, twin: Twin, tmp_path: Path
    ) -> None:
        outputs = Outputs(tmp_path, "scan", 0.001)
        outputs.write(twin, REQUEST, {})
        changed = np.count_nonzero(enhance(twin, 0.001)[0] != twin.scan.stored)
        assert sidecar(outputs)["ChangedVoxels"] == changed == 0
        assert (twin.stored != twin.scan.stored).any()

    def test_warning_names_what_the_volume_is(self, twin: Twin, tmp_path: Path) -> None:
        for alpha, warning in (
            (None, "SYNTHETIC pseudo-healthy image for research - NOT FOR DIAGNOSIS"),
            (0.7, "SYNTHETIC enhanced image for research - NOT FOR DIAGNOSIS"),
        ):
            outputs = Outputs(tmp_path, "scan", alpha)
            outputs.write(twin, REQUEST, {})
            assert sidecar(outputs)["Warning"] == warning


def sidecar(outputs: Outputs) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(outputs.sidecar.read_text())
    return content
