"""`synthesize` and `enhance` as a user meets them: files, exit codes, and one sentence for each kind of bad input."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from pipeline.cli.main import main

pytestmark = pytest.mark.slow


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process."""

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(stop.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write(tmp_path / "sub-01_FLAIR.nii.gz", head())


def head() -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (20, 24, 8)), indexing="ij"))
    noise = np.random.default_rng(0).integers(0, 200, grid.shape[1:])
    return (((grid**2).sum(axis=0) < 0.8) * (300 + noise)).astype(np.int16)


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.is_dir() else []


class TestOutputs:
    def test_twin_anomaly_mask_picture_and_page(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        result = run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
        assert result.code == 0
        assert "not for diagnosis" in result.out
        assert files(tmp_path / "out") == [
            "sub-01_desc-anomaly_FLAIR.json",
            "sub-01_desc-anomaly_FLAIR.nii.gz",
            "sub-01_desc-pseudohealthy_FLAIR.html",
            "sub-01_desc-pseudohealthy_FLAIR.json",
            "sub-01_desc-pseudohealthy_FLAIR.nii.gz",
            "sub-01_desc-pseudohealthy_FLAIR.png",
            "sub-01_label-lesion_desc-FLAIR_mask.json",
            "sub-01_label-lesion_desc-FLAIR_mask.nii.gz",
        ]
        source, twin, anomaly = (
            nib.load(path)
            for path in (
                scan,
                tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.nii.gz",
                tmp_path / "out" / "sub-01_desc-anomaly_FLAIR.nii.gz",
            )
        )
        for image in (twin, anomaly):
            np.testing.assert_array_equal(image.affine, source.affine)
            assert image.shape == source.shape
        assert twin.get_data_dtype() == source.get_data_dtype()
        np.testing.assert_array_equal(source.get_fdata() - twin.get_fdata(), anomaly.get_fdata())
        assert anomaly.get_fdata().max() > 0

    def test_sidecar_says_what_was_done(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
        sidecar = json.loads((tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.json").read_text())
        assert sidecar["SyntheticData"] is True
        assert "NOT FOR DIAGNOSIS" in sidecar["Warning"]
        assert sidecar["Sources"] == ["sub-01_FLAIR.nii.gz"]
        assert len(sidecar["Request"]["WeightsSha256"]) == 64
        assert sidecar["Request"]["Bundle"] == "gvs"
        assert sidecar["Window"][0] == 0
        assert str(tmp_path) not in json.dumps(sidecar)

    def test_enhance_with_alpha_zero_returns_the_scan(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path
    ) -> None:
        assert run("enhance", scan, "-b", trained, "-o", tmp_path, "--alpha", "0", "--device", "cpu").code == 0
        enhanced = nib.load(tmp_path / "sub-01_desc-enhanced_FLAIR.nii.gz")
        assert enhanced.dataobj.get_unscaled().tobytes() == nib.load(scan).dataobj.get_unscaled().tobytes()

    def test_four_dimensional_file_with_one_volume_stays_four_dimensional(
        self, run: Run, trained: Path, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "scan.nii.gz", head()[..., None])
        assert run("synthesize", path, "-b", trained, "-o", tmp_path / "out", "--device", "cpu").code == 0
        assert nib.load(tmp_path / "out" / "scan_desc-pseudohealthy.nii.gz").shape == (20, 24, 8, 1)

    def test_two_scans_of_one_name_are_told_apart_by_their_folders(
        self, run: Run, trained: Path, tmp_path: Path
    ) -> None:
        scans = []
        for case in ("a", "b"):
            (tmp_path / case).mkdir()
            scans.append(write(tmp_path / case / "flair.nii.gz", head()))
        assert run("synthesize", *scans, "-b", trained, "-o", tmp_path / "out", "--device", "cpu").code == 0
        assert {"a_flair_desc-pseudohealthy.nii.gz", "b_flair_desc-pseudohealthy.nii.gz"} <= set(
            files(tmp_path / "out")
        )

    def test_scan_without_a_place_in_space_is_noted(self, run: Run, trained: Path, tmp_path: Path) -> None:
        image = nib.Nifti1Image(head(), None)
        image.header["pixdim"][1:4] = 1
        nib.save(image, tmp_path / "scan.nii.gz")
        result = run("synthesize", tmp_path / "scan.nii.gz", "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
        assert (result.code, "does not say how the scan lies in space" in result.out) == (0, True)

    def test_slab_of_the_training_is_edited_or_another_and_whole_edits_all(
        self, run: Run, trained: Path, tmp_path: Path
    ) -> None:
        tall = write(tmp_path / "tall.nii.gz", np.repeat(head(), 6, axis=2))  # 48 slices of 2 mm, 60 mm are seen
        said = {(): "6 slices outside the 30", ("--slab-mm", "40"): "16 slices outside the 20"}
        changed = {}
        for options in ((), ("--whole",), ("--slab-mm", "40")):
            out = tmp_path / f"out{len(options)}"
            result = run("synthesize", tall, "-b", trained, "-o", out, "--device", "cpu", *options)
            anomaly = nib.load(out / "tall_desc-anomaly.nii.gz").get_fdata()
            changed[options] = np.flatnonzero(anomaly.any(axis=(0, 1)))
            assert ("slices outside" in result.out) == (options != ("--whole",))
            assert said.get(options, "") in result.out
        assert (changed[()].min(), changed[()].max()) == (9, 38)
        assert (changed["--whole",].min(), changed["--whole",].max()) == (6, 41)
        assert (changed["--slab-mm", "40"].min(), changed["--slab-mm", "40"].max()) == (14, 33)

    def test_quiet_says_nothing_when_all_is_well(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        result = run("--quiet", "synthesize", scan, "-b", trained, "-o", tmp_path / "out")
        assert result == (0, "", "")

    def test_mask_confines_the_change(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        mask = np.zeros((20, 24, 8), np.uint8)
        mask[10, 12, 4] = 1
        path = write(tmp_path / "mask.nii.gz", mask)
        run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--mask", path, "--device", "cpu")
        changed = nib.load(tmp_path / "out" / "sub-01_desc-anomaly_FLAIR.nii.gz").get_fdata() != 0
        assert changed[10, 12, 4]
        x, y, z = np.nonzero(changed)
        assert max(np.ptp(x), np.ptp(y), 2 * np.ptp(z)) < 10  # a ball of 5 mm radius


class TestFlipAverage:
    def test_a_flipped_scan_gets_the_flipped_twin_and_the_page_says_how_much_the_two_agree(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path
    ) -> None:
        write(tmp_path / "flipped.nii.gz", head()[::-1])
        command = ("synthesize", scan, tmp_path / "flipped.nii.gz", "-b", trained, "-o", tmp_path / "out", "--force")
        assert run(*command, "--flip-average").code == 0
        twin, other = (
            nib.load(tmp_path / "out" / f"{name}.nii.gz").get_fdata()
            for name in ("sub-01_desc-pseudohealthy_FLAIR", "flipped_desc-pseudohealthy")
        )
        assert (twin != head()).any()
        np.testing.assert_array_equal(other, twin[::-1])
        sidecar = json.loads((tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.json").read_text())
        assert sidecar["Request"]["FlipAverage"] is True
        (figure,) = (figure for figure in sidecar["Figures"] if figure["name"] == "FlipCorrelation")
        assert -1 <= figure["value"] <= 1
        assert "Agreement when flipped" in (tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.html").read_text()
        assert "other settings" in run(*command, "--no-flip-average").err
        assert run(*command, "--no-flip-average", "--overwrite").code == 0
        page = (tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.html").read_text()
        assert "Agreement when flipped" not in page
        assert "how differently was not measured" in page


class TestManyScans:
    def test_finished_scans_are_skipped_and_overwrite_makes_them_again(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path
    ) -> None:
        arguments = ("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
        run(*arguments)
        twin = tmp_path / "out" / "sub-01_desc-pseudohealthy_FLAIR.nii.gz"
        before = twin.stat().st_mtime_ns
        again = run(*arguments)
        assert (again.code, "1 done before" in again.out) == (0, True)
        assert twin.stat().st_mtime_ns == before
        assert run(*arguments, "--overwrite").code == 0
        assert twin.stat().st_mtime_ns > before

    def test_result_of_other_settings_is_not_taken_for_this_one(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path
    ) -> None:
        arguments = ("enhance", scan, "-b", trained, "-o", tmp_path / "out", "--device", "cpu", "--alpha")
        run(*arguments, "0.3")
        other = run(*arguments, "0.7")
        assert other.code == 1
        assert "holds a result made from another scan, other weights or other settings; give --overwrite" in other.err

    def test_a_bad_scan_does_not_stop_the_others(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        bad = tmp_path / "bad.nii.gz"
        bad.write_bytes(b"no scan")
        result = run("synthesize", bad, scan, "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
        assert result.code == 1
        assert "bad: failed" in result.err
        assert "1 written, 0 done before, 1 failed" in result.out
        assert "sub-01_desc-pseudohealthy_FLAIR.nii.gz" in files(tmp_path / "out")
        (note,) = (tmp_path / "out" / "failed").iterdir()
        assert [name for name in files(tmp_path / "out") if "bad" in name or "partial" in name] == [note.name]


def affine_of_zeros(path: Path) -> Path:
    write(path.with_suffix(""), head())
    content = bytearray(path.with_suffix("").read_bytes())
    path.with_suffix("").unlink()
    content[76:108] = bytes(32)  # pixdim
    content[252:256] = bytes(4)  # qform and sform codes
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def truncated(path: Path) -> Path:
    write(path, head())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def rgb(path: Path) -> Path:
    colour = np.zeros((6, 5, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), path)
    return path


def with_value(value: float) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        voxels = head().astype(np.float32)
        voxels[3, 3, 3] = value
        return write(path, voxels)

    return make


def no_nifti(path: Path) -> Path:
    path.write_text("not a scan")
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD_SCANS: dict[str, tuple[Callable[[Path], Path], int, str]] = {
    "missing file": (lambda path: path, 2, "no such file; check the path"),
    "empty directory": (folder, 2, "holds no scan that can be used"),
    "truncated gz": (truncated, 1, "truncated or damaged"),
    "not a NIfTI": (no_nifti, 1, "expected a NIfTI file"),
    "empty volume": (lambda path: write(path, np.zeros((4, 0, 3), np.int16)), 1, "expected a volume with three axes"),
    "constant volume": (lambda path: write(path, np.full((4, 5, 3), 7, np.int16)), 1, "found a constant volume"),
    "NaN": (with_value(np.nan), 1, "1 voxels that are NaN or infinite"),
    "Inf": (with_value(np.inf), 1, "1 voxels that are NaN or infinite"),
    "many volumes": (lambda path: write(path, np.stack([head()] * 3, axis=-1)), 1, "found 3 volumes"),
    "RGB": (rgb, 1, "found colour (RGB)"),
    "affine of zeros": (affine_of_zeros, 1, "expected the size of the voxels"),
    "absurd affine": (
        lambda path: write(path, head(), np.diag([1e6, 1.0, 1.0, 1.0])),
        1,
        "places the volume nowhere",
    ),
    "all below zero": (lambda path: write(path, -head() - 1), 1, "expected a scan whose tissue is positive"),
}


@pytest.mark.parametrize(("make", "code", "sentence"), BAD_SCANS.values(), ids=BAD_SCANS)
def test_bad_scan_gets_one_sentence_and_leaves_nothing(
    make: Callable[[Path], Path], code: int, sentence: str, run: Run, trained: Path, tmp_path: Path
) -> None:
    bad = make(tmp_path / "bad.nii.gz")
    result = run("synthesize", bad, "-b", trained, "-o", tmp_path / "out", "--device", "cpu")
    assert result.code == code
    assert sentence in result.err
    assert "bad.nii.gz" in result.err
    assert "Traceback" not in result.err
    assert files(tmp_path / "out") == []


class TestWhatCannotStart:
    def test_mask_on_another_grid(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        mask = write(tmp_path / "mask.nii.gz", np.eye(20, dtype=np.uint8)[..., None])
        result = run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--mask", mask, "--device", "cpu")
        assert (result.code, "the mask has shape" in result.err) == (1, True)
        assert files(tmp_path / "out") == []

    def test_a_file_where_the_folder_of_results_should_be_is_told_before_anything_is_loaded(
        self, run: Run, scan: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "twin.nii.gz").write_text("of someone")
        result = run("synthesize", scan, "-b", "nonsense", "-o", tmp_path / "twin.nii.gz")
        assert result.code == 2
        assert result.err.endswith("twin.nii.gz: is a file, expected a folder for the results; name another with -o\n")
        assert (tmp_path / "twin.nii.gz").read_text() == "of someone"

    def test_unknown_bundle_lists_the_known_ones(self, run: Run, scan: Path, tmp_path: Path) -> None:
        result = run("synthesize", scan, "-b", "nonsense", "-o", tmp_path / "out")
        assert result.code == 2
        assert "gvs" in result.err.partition("known bundles: ")[2]

    def test_bundle_without_weights_names_the_command_that_trains_it(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(trained / "configs", tmp_path / "fresh" / "configs")
        result = run("synthesize", scan, "-b", tmp_path / "fresh", "-o", tmp_path / "out")
        assert result.code == 2
        assert "has no weights yet" in result.err
        assert "phs-pipeline train gvs --data COHORT -o RUN" in result.err

    @pytest.mark.parametrize("content", [b"", b"damaged", b"PK\x03\x04 cut off"])
    def test_damaged_weights(self, run: Run, trained: Path, scan: Path, tmp_path: Path, content: bytes) -> None:
        shutil.copytree(trained, tmp_path / "broken")
        (tmp_path / "broken" / "models" / "model.pt").write_bytes(content)
        result = run("synthesize", scan, "-b", tmp_path / "broken", "-o", tmp_path / "out")
        assert (result.code, "not a weights file that can be loaded safely" in result.err) == (2, True)

    def test_weights_of_another_network(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        shutil.copytree(trained, tmp_path / "foreign")
        torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "foreign" / "models" / "model.pt")
        result = run("synthesize", scan, "-b", tmp_path / "foreign", "-o", tmp_path / "out")
        assert (result.code, "the weights belong to another network" in result.err) == (2, True)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_no_numbers(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path, value: float
    ) -> None:
        shutil.copytree(trained, tmp_path / "diverged")
        weights = tmp_path / "diverged" / "models" / "model.pt"
        state = torch.load(weights, weights_only=True)
        state["last.bias"][0] = value
        torch.save(state, weights)
        result = run("synthesize", scan, "-b", tmp_path / "diverged", "-o", tmp_path / "out")
        assert (result.code, "found weights that are NaN or infinite" in result.err) == (2, True)
        assert files(tmp_path / "out") == []

    def test_mask_that_is_not_there(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        options = ("-b", trained, "-o", tmp_path / "out", "--mask", tmp_path / "mask.nii.gz")
        result = run("synthesize", scan, *options)
        assert (result.code, "mask.nii.gz: found no file, expected a lesion mask" in result.err) == (2, True)

    def test_mask_of_several_scans(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        second = shutil.copyfile(scan, tmp_path / "second.nii.gz")
        result = run("synthesize", scan, second, "-b", trained, "-o", tmp_path / "out", "--mask", scan)
        assert (result.code, "belongs to one scan, found 2" in result.err) == (2, True)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--mask", "SCAN", "--whole"), "--whole changes nothing with --mask"),
            (("--mask", "SCAN", "--slab-mm", "60"), "--slab-mm changes nothing with --mask"),
            (("--whole", "--slab-mm", "60"), "give one of --whole and --slab-mm"),
            (("--slab-mm", "nan"), "--slab-mm nan: expected a thickness in millimetres"),
            (("--slab-mm", "inf"), "--slab-mm inf: expected a thickness in millimetres"),
            (("--slab-mm", "0"), "0.0 is not in the range x>0"),
        ],
    )
    def test_slab_and_what_decides_it_already(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path, options: tuple[str, ...], said: str
    ) -> None:
        given = [scan if each == "SCAN" else each for each in options]
        result = run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", *given)
        assert (result.code, said in result.err) == (2, True)
        assert files(tmp_path / "out") == []

    @pytest.mark.parametrize("alpha", ["1000", "-1000", "1e300", "inf", "nan"])
    def test_absurd_degree_of_enhancement(
        self, run: Run, trained: Path, scan: Path, tmp_path: Path, alpha: str
    ) -> None:
        result = run("enhance", scan, "-b", trained, "-o", tmp_path / "out", "--alpha", alpha)
        assert (result.code, "expected a number between -1000 and 1000" in result.err) == (2, True)
        assert files(tmp_path / "out") == []

    def test_device_that_is_not_there(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        result = run("synthesize", scan, "-b", trained, "-o", tmp_path / "out", "--device", "gpu")
        assert (result.code, "device 'gpu' is not available here" in result.err) == (2, True)

    def test_unwritable_output(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        result = run("synthesize", scan, "-b", trained, "-o", tmp_path / "file" / "out", "--device", "cpu")
        assert (result.code, "cannot be written" in result.err) == (2, True)

    def test_no_space_left(self, run: Run, trained: Path, scan: Path, tmp_path: Path) -> None:
        """On a file system of 20 kB that the kernel really fills up."""
        target = tmp_path / "full"
        target.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", target], capture_output=True)
        if mounted.returncode:
            pytest.skip("mounting a small file system needs root")
        try:
            result = run("synthesize", scan, "-b", trained, "-o", target, "--device", "cpu")
            left = files(target)
        finally:
            subprocess.run(["umount", target], check=True)
        assert result.code == 2
        assert "no space is left" in result.err
        assert "Traceback" not in result.err
        assert not [name for name in left if "partial" in name or name.endswith(".json")]

    def test_debug_shows_the_traceback(self, scan: Path, tmp_path: Path) -> None:
        from pipeline.errors import UsageError

        with pytest.raises(UsageError):
            main(["--debug", "synthesize", str(scan), "-b", "nonsense", "-o", str(tmp_path)])


@pytest.mark.data
class TestRealScans:
    @pytest.mark.parametrize(
        "name",
        [
            "brats2013/Brats13_0001/Brats13_0001_flair.nii.gz",
            "open_ms/patient07/patient07_flair.nii.gz",
            "lgg/sub-CS4941/anat/sub-CS4941_FLAIR.nii.gz",
        ],
    )
    def test_twin_lies_on_the_scans_grid(
        self, name: str, run: Run, trained: Path, shared_data: Path, tmp_path: Path
    ) -> None:
        import itk
        import SimpleITK

        source = shared_data / name
        assert run("synthesize", source, "-b", trained, "-o", tmp_path, "--device", "cpu").code == 0
        (twin,) = tmp_path.rglob("*pseudohealthy*.nii.gz")
        before, after = nib.load(source), nib.load(twin)
        for field in (
            "dim",
            "pixdim",
            "qform_code",
            "sform_code",
            "srow_x",
            "srow_y",
            "srow_z",
            "xyzt_units",
            "datatype",
        ):
            np.testing.assert_array_equal(before.header[field], after.header[field], err_msg=field)
        for read in (SimpleITK.ReadImage, itk.imread):
            a, b = read(str(source)), read(str(twin))
            assert tuple(a.GetOrigin()) == tuple(b.GetOrigin())
            assert tuple(a.GetSpacing()) == tuple(b.GetSpacing())
            np.testing.assert_array_equal(np.asarray(a.GetDirection()).ravel(), np.asarray(b.GetDirection()).ravel())
        background = np.asarray(before.dataobj) == 0
        if name.startswith(("brats", "open_ms")):
            assert not np.asarray(after.dataobj)[background & ~_filled(~background)].any()


def _filled(foreground: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return np.stack([binary_fill_holes(foreground[..., z]) for z in range(foreground.shape[2])], axis=-1)
