"""`study paired`, `misregistration` and `hallucination`, tiny: every row, stopped and gone on with, known answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cli.study import study as study_command
from pipeline.errors import UsageError
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.window import WindowRule
from pipeline.studies import hallucination, misregistration, paired
from pipeline.studies.hallucination import detected, domains, patient_halves
from pipeline.studies.misregistration import shifted
from pipeline.studies.paired import CASES, noisy
from pipeline.studies.paired_slices import Pairs, Scale

TINY = Scale(4.0, iterations=1, filters=2, discriminator_filters=2, batch_size=8, pool_size=2)
SPLITS = ["training"] * 4 + ["validation"] * 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients in T1w and FLAIR, four slices each, of which two have a lesion."""
    root = tmp_path_factory.mktemp("pairs")
    rows = ["subject,T1w,FLAIR,mask,split"]
    x, y, _ = np.mgrid[-16:16, -16:16, :4]
    head = np.hypot(x, y) < 13
    for number, split in enumerate(SPLITS):
        rng = np.random.default_rng(number)
        mask = (np.hypot(x - 3, y + number - 2) < 4) & (np.arange(4) < 2)
        t1 = head * (500 + 50 * rng.random(head.shape) - 200 * mask)
        for name, voxels in (("T1w", t1), ("FLAIR", head * (900 - t1)), ("mask", mask)):
            file = root / f"{name}{number}.nii"
            nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.diag([4.0, 4, 5, 1])), file)
        rows.append(f"s{number},T1w{number}.nii,FLAIR{number}.nii,mask{number}.nii,{split}")
    (root / "scans.csv").write_text("\n".join(rows))
    settings = Settings(slab=WHOLE, channels=["T1w", "FLAIR"], window=WindowRule(fixed=(0, 1000)))
    preprocess(root / "scans.csv", root / "cohort", settings, workers=1)
    return root / "cohort"


STUDIES: dict[str, Callable[[Path, Path], str]] = {
    "paired": lambda cohort, out: paired(cohort, out, ["T1w", "edges"], "FLAIR", seeds=1, scale=TINY, device="cpu"),
    "noise": lambda cohort, out: paired(cohort, out, [], "FLAIR", 0.1, seeds=1, scale=TINY, device="cpu"),
    "misregistration": lambda cohort, out: misregistration(
        cohort, out, "T1w", "FLAIR", (0, 2), seeds=1, scale=TINY, device="cpu"
    ),
    "hallucination": lambda cohort, out: hallucination(
        cohort, out, "T1w", "FLAIR", (0.0, 1.0), seeds=1, scale=TINY, device="cpu"
    ),
}
# Of hallucination, the detector in real slices too.
RESULTS = {"paired": len(CASES), "noise": len(CASES), "misregistration": 8, "hallucination": 5}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_row_is_measured_once_and_a_stopped_study_goes_on(
    name: str, cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    folder = tmp_path / "study"
    epochs_trained(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        STUDIES[name](cohort, folder)
    page = STUDIES[name](cohort, folder)
    again = epochs_trained()
    assert STUDIES[name](cohort, folder) == page
    assert again == []
    results = json.loads((folder / "summary.json").read_text())["results"]
    assert len(list((folder / "results").iterdir())) == RESULTS[name]
    for result in results:
        assert {"row", "seed"} <= set(result)
    for file in ("table.md", "table.csv", "plot.png", "pictures.png"):
        assert (folder / file).stat().st_size > 100
    assert "2 validation patients" in page
    with pytest.raises(UsageError, match="made with other settings"):
        misregistration(cohort, folder, "FLAIR", "T1w", (0,), 1, scale=TINY, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paired", "--target", "FLAIR"], "give --source, or --noise"),
        (["paired", "--target", "FLAIR", "--source", "T1w", "--noise", "0.1"], "give --source, or --noise"),
        (["misregistration", "--target", "FLAIR", "--source", "T1w", "--shifts", "-1,0"], "expected pixels, 0 or more"),
    ],
)
def test_the_commands_say_what_they_need(cohort: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [*arguments, "--data", str(cohort), "-o", str(tmp_path / "study")]
    done = CliRunner().invoke(study_command, given)
    assert done.exit_code == 2
    assert said in done.output


def pairs_of(*tumours: bool, patients: list[str] | None = None) -> Pairs:
    mask = torch.zeros(len(tumours), 1, 32, 32)
    mask[list(tumours), :, 8:16, 8:16] = 1  # 64 pixels of 16 mm²
    image = torch.rand(len(tumours), 1, 32, 32)
    return Pairs(image, image, mask, patients or [str(number) for number in range(len(tumours))], 4.0)


def test_noise_is_that_of_a_magnitude_image() -> None:
    flat = noisy(torch.full((1, 200, 200), 0.5), 0.1, torch.Generator().manual_seed(0))
    assert float(flat.std()) == pytest.approx(0.1, rel=0.05)
    air = noisy(torch.zeros(1, 200, 200), 0.1, torch.Generator().manual_seed(0))
    assert float(air.mean()) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)  # Rayleigh's


class TestShift:
    def test_targets_move_by_whole_pixels_each_in_a_direction_of_its_own(self) -> None:
        pairs = pairs_of(*[True] * 30)
        moved = shifted(pairs, 4, seed=0)
        assert torch.equal(moved.image, pairs.image)
        found = set()
        for before, after in zip(pairs.target_image[:, 0], moved.target_image[:, 0], strict=True):
            (by,) = [
                (r, c)
                for r in range(-4, 5)
                for c in range(-4, 5)
                if torch.equal(before[8 - r : 24 - r, 8 - c : 24 - c], after[8:24, 8:24])
            ]
            assert round(np.hypot(*by)) == 4
            found.add(by)
        assert len(found) > 10

    def test_what_comes_in_is_air_and_no_shift_changes_nothing(self) -> None:
        pairs = pairs_of(True, True)
        assert torch.equal(shifted(pairs, 0, 0).target_image, pairs.target_image)
        assert (shifted(pairs, 3, 0).target_image == 0).any(dim=3).any(dim=2).all()


class TestDomains:
    def pairs(self) -> Pairs:
        patients = [str(number // 4) for number in range(40)]
        return pairs_of(*[number % 2 == 0 for number in range(40)], patients=patients)

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_each_has_its_share_of_tumours_as_many_slices_and_no_common_patient(self, share: float) -> None:
        pairs = self.pairs()
        sources, targets = patient_halves(pairs, 0)
        assert not sources & targets
        source, target, regressed = domains(pairs, sources, targets, share, 0)
        assert len(source) == len(target) == len(regressed) == 10
        assert set(source.patients) <= sources
        assert set(target.patients) <= targets
        assert set(regressed.patients) <= sources
        shares = [float((each.mask.sum(dim=(1, 2, 3)) > 0).float().mean()) for each in (source, target, regressed)]
        assert shares == [0.5, share, share]

    def test_a_half_without_both_kinds_is_refused(self) -> None:
        pairs = pairs_of(True, True, False, True)
        with pytest.raises(UsageError, match="expected both in either half"):
            domains(pairs, {"0", "1"}, {"2", "3"}, 0.5, 0)


class TestCounts:
    def marks(self, *rows: int) -> torch.Tensor:
        """Marks of so many rows of the tumour's place, of 8 pixels or 128 mm² each."""
        marks = torch.zeros(len(rows), 1, 32, 32, dtype=torch.bool)
        for mark, count in zip(marks, rows, strict=True):
            mark[:, 8 : 8 + count, 8:16] = True
        return marks

    def test_what_vanishes_and_appears_is_counted_among_what_the_detector_gets_right_in_real_slices(self) -> None:
        pairs = pairs_of(True, True, True, False, False, False)
        # Real: the third tumour is missed, the last healthy slice is a false alarm.
        real = self.marks(8, 8, 0, 0, 0, 4)
        found = detected(self.marks(8, 0, 8, 2, 0, 0), real, pairs)
        assert found["vanished"] == pytest.approx(1 / 2)
        assert found["appeared"] == pytest.approx(1 / 2)
        assert found["found"] == pytest.approx(2 / 3)
        assert found["alarms"] == pytest.approx(1 / 3)
        assert found["area_ratio"] == pytest.approx(2 / 3)

    def test_a_mark_beside_the_tumour_does_not_find_it(self) -> None:
        pairs, real = pairs_of(True, False), self.marks(8, 0)
        found = detected(self.marks(8, 0).flip(3), real, pairs)
        assert found["vanished"] == 1

    def test_without_slices_to_count_nothing_is_said(self) -> None:
        found: dict[str, Any] = detected(self.marks(8), self.marks(8), pairs_of(True))
        assert (found["vanished"], found["appeared"]) == (0.0, None)


def test_a_share_is_a_share(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found 1\.5, expected shares from 0 to 1"):
        hallucination(cohort, tmp_path / "study", "T1w", "FLAIR", (1.5,), scale=TINY, device="cpu")
