"""Steps change what the network sees, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from torch import nn

from pipeline.errors import ScanError
from pipeline.inference import Preparation, Translator
from pipeline.inference.preparation import LPS, bias_field, rigid_pose
from pipeline.phantoms import write_phantom_cohort
from pipeline.scans import Scan, read_nifti

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_cohort(folder, subjects=1, seed=0)
    return read_nifti(next(folder.glob("sub-*/anat/*_FLAIR.nii.gz")))


def moved(scan: Scan, degrees: float, mm: tuple[float, float, float]) -> Scan:
    """The scan lying elsewhere: its voxels are the same, its affine is turned and shifted."""
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=np.radians(degrees)), mm)
    header = scan.header.copy()
    header.set_qform(turn @ scan.affine, 1)
    header.set_sform(turn @ scan.affine, 1)
    return replace(scan, header=header)


def test_no_step_shows_the_network_the_scan_itself(scan: Scan) -> None:
    view, notes, record = Preparation().view(scan)
    assert view.scan is scan
    assert (notes, record) == ([], [])


class TestBrainMask:
    def test_the_network_sees_the_brain_alone_and_nothing_else_is_edited(
        self, scan: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module
    ) -> None:
        inside = np.zeros(scan.shape, dtype=np.uint8)
        inside[: scan.shape[0] // 2] = 1
        mask = replace(scan, stored=inside, slope=1.0, intercept=0.0)
        twin = make_synthesizer(darken)(scan, steps=Preparation(brain=mask))
        assert (twin.stored != scan.stored).any()
        assert np.array_equal(twin.stored[inside == 0], scan.stored[inside == 0])
        assert not twin.edited[inside == 0].any()
        assert twin.steps[0]["Step"] == "brain mask"

    def test_an_empty_one_is_refused(self, scan: Scan) -> None:
        empty = replace(scan, stored=np.zeros(scan.shape, dtype=np.uint8), slope=1.0, intercept=0.0)
        with pytest.raises(ScanError, match="the brain mask is empty"):
            Preparation(brain=empty).view(scan)

    @pytest.mark.parametrize("added", [0, 300])
    def test_what_it_leaves_out_is_as_dark_as_the_air(self, scan: Scan, added: int) -> None:
        lifted = replace(scan, stored=scan.stored + np.int16(added))
        inside = (scan.stored > 500).astype(np.uint8)
        view, *_ = Preparation(brain=replace(scan, stored=inside)).view(lifted)
        assert (view.scan.stored[inside == 0] == added).all()

    def test_one_that_counts_from_other_ends_lies_on_every_sequence_as_on_the_scan(self, scan: Scan) -> None:
        inside = (scan.stored > 0).astype(np.uint8)
        inside[:, : scan.shape[1] // 2] = 0
        header, turned = scan.header.copy(), scan.affine @ np.diag([1.0, -1.0, 1.0, 1.0])
        turned[:3, 3] = (scan.affine @ [0, scan.shape[1] - 1, 0, 1])[:3]
        header.set_sform(turned, 1)
        header.set_qform(turned, 1)
        steps = Preparation(brain=replace(scan, stored=inside[:, ::-1], header=header))
        view, *_ = steps.view(scan)
        for shown in (view.scan, steps.like(view, replace(scan, stored=scan.stored + np.int16(1)))):
            np.testing.assert_array_equal(shown.stored > 1, (scan.stored > 1) & (inside == 1))

    def test_one_of_another_grid_is_refused(self, scan: Scan) -> None:
        other = replace(scan, stored=np.ones((3, 3, 3), dtype=np.uint8))
        with pytest.raises(ScanError, match="brain mask has shape"):
            Preparation(brain=other).view(scan)


class TestBiasCorrection:
    @pytest.mark.slow
    def test_n4_finds_a_field_that_was_planted(self, brain: Scan) -> None:
        planted = np.exp(0.4 * np.linspace(-1, 1, brain.shape[0]))[:, None, None].astype(np.float32)
        shaded = replace(brain, stored=brain.intensities() * planted, slope=1.0, intercept=0.0)
        inside = brain.intensities() > brain.intensities().mean()
        found = np.log(bias_field(shaded) / bias_field(brain))[inside]
        truth = np.log(np.broadcast_to(planted, brain.shape))[inside]
        assert np.corrcoef(found, truth)[0, 1] > 0.98

    @pytest.mark.slow
    def test_what_the_network_changes_is_multiplied_by_the_field_on_the_way_out(
        self, brain: Scan, make_synthesizer: Callable[..., Translator]
    ) -> None:
        class Halve(nn.Module):
            def forward(self, image):  # type: ignore[no-untyped-def]
                return image / 2

        twin = make_synthesizer(Halve())(brain, steps=Preparation(bias_correction=True))
        # Half of what was seen is gone: with the field undone, half of the scan itself, below the window's end.
        inside = twin.edited & (brain.intensities() < 0.7 * twin.window.high)
        ratio = (twin.anomaly / np.maximum(brain.intensities(), 1))[inside & (brain.intensities() > 50)]
        assert np.median(ratio) == pytest.approx(0.5, abs=0.02)
        assert np.array_equal(twin.stored[~twin.edited], brain.stored[~twin.edited])

    def test_a_scan_of_too_few_voxels_is_refused(self, scan: Scan) -> None:
        thin = replace(scan, stored=scan.stored[:, :, :2])
        with pytest.raises(ScanError, match="leave --n4 out"):
            bias_field(thin)


class TestRegistration:
    def test_a_known_pose_is_found(self, brain: Scan) -> None:
        away = moved(brain, 10, (6, -4, 3))
        pose, degrees, _ = rigid_pose(brain, away)
        assert degrees == pytest.approx(10, abs=0.5)
        corners = [(0, 0, 0), tuple(size - 1 for size in brain.shape)]
        for corner in corners:
            here, there = (apply_affine(LPS @ affine, corner) for affine in (brain.affine, away.affine))
            assert np.linalg.norm(pose.TransformPoint(here.tolist()) - there) < min(brain.spacing_mm)

    def test_the_change_comes_back_to_where_the_scan_lies(
        self, brain: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module
    ) -> None:
        plain = make_synthesizer(darken)(brain)
        twin = make_synthesizer(darken)(moved(brain, 10, (6, -4, 3)), steps=Preparation(template=brain))
        assert np.array_equal(twin.stored[~twin.edited], brain.stored[~twin.edited])
        both = plain.edited & twin.edited
        assert np.corrcoef(plain.anomaly[both], twin.anomaly[both])[0, 1] > 0.9
        assert twin.steps[0]["Degrees"] == pytest.approx(10, abs=0.5)

    def test_a_lesion_mask_goes_along(
        self, brain: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module
    ) -> None:
        away = moved(brain, 10, (6, -4, 3))
        box = np.zeros(brain.shape, dtype=np.uint8)
        x, y, z = (size // 2 for size in brain.shape)
        box[x - 4 : x + 4, y - 4 : y + 4, z - 1 : z + 2] = 1
        lesion = replace(away, stored=box, slope=1.0, intercept=0.0)
        twin = make_synthesizer(darken)(away, lesion, Preparation(template=brain))
        far = np.ones(brain.shape, dtype=bool)
        far[x - 16 : x + 16, y - 16 : y + 16] = False
        assert twin.edited.any()
        assert not twin.edited[far].any()

    def test_scans_without_anything_in_common_are_refused(self, brain: Scan, tmp_path: Path) -> None:
        flat = replace(brain, stored=np.full(brain.shape, 7, dtype=np.int16))
        with pytest.raises(ScanError, match="no registration"):
            rigid_pose(flat, brain)

    def test_noise_is_nothing_to_register_to(self, brain: Scan) -> None:
        noise = np.random.default_rng(0).integers(0, 1000, brain.shape).astype(np.int16)
        with pytest.raises(ScanError, match="expected scans of the same part of the body"):
            rigid_pose(replace(brain, stored=noise), brain)


class TestUncertainty:
    def test_a_network_that_does_not_care_is_sure(
        self, scan: Scan, make_synthesizer: Callable[..., Translator], identity: nn.Module
    ) -> None:
        twin = make_synthesizer(identity)(scan, uncertainty=True)
        assert twin.uncertainty is not None
        assert twin.uncertainty.max() < 1e-3 * twin.window.width

    def test_a_threshold_makes_it_unsure_of_tissue_near_the_threshold_and_not_of_the_bright_lesion(
        self, scan: Scan, make_synthesizer: Callable[..., Translator], darken: nn.Module
    ) -> None:
        twin = make_synthesizer(type(darken)(above=0.4))(scan, uncertainty=True)
        assert twin.uncertainty is not None
        assert twin.uncertainty[~twin.edited].max() == 0
        seen = scan.intensities() / twin.window.high
        near, lesion = twin.edited & (abs(seen - 0.4) < 0.01), seen > 0.75
        assert near.any()
        assert lesion.any()
        assert twin.uncertainty[near].mean() > 5 * twin.uncertainty[lesion].mean()
