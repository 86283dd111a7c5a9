"""Fixtures that several rooms' tests use."""

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Two trainings end with the same bits if they compute with the same number of threads, and tests run side by side.
# Libraries read this when they are imported; processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import nibabel as nib
import pytest
from hypothesis import settings
from shape_checks import remove_shape_checks

from pipeline.phantoms import brain_phantom
from pipeline.phantoms.cluttered import scikit_digits
from pipeline.phantoms.cluttered_cohort import write_cluttered_cohort
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import WHOLE, Slab
from pipeline.preprocessing.window import WindowRule

# Programs that came with the test requirements are found without the virtual environment being activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile("thorough", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("thorough")

# A GVS that trains an epoch of the phantom cohort in a fraction of a second.
TINY: dict[str, Any] = {
    "spacing_mm": 4.0,
    "size": [64, 64],
    "filters": 4,
    "segmentor_filters": 4,
    "residual_blocks": 1,
    # Not what happens to be fastest: two trainings are to end with the same bits.
    "amp": None,
}


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks as they are outside the tests: TorchScript does not see through what the checks wrap."""
    remove_shape_checks(monkeypatch)


@pytest.fixture
def names_of_any_bytes(tmp_path: Path) -> None:
    """Skips where a file's name has to be UTF-8, as on macOS, and nowhere else: a full disk is an error."""
    probe = tmp_path / os.fsdecode(b"\xfc")
    try:
        probe.touch()
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        pytest.skip("the file system takes no name that is not UTF-8")
    probe.unlink()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans beside the checkout; tests that ask for them are skipped where they are absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real scans of ../shared/data are absent")
    return folder


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Settings of the GVS bundle for the phantom cohort."""
    return dict(TINY)


@pytest.fixture(scope="session")
def phantom_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six coarse phantoms as a BIDS cohort with lesion masks and ages."""
    folder = tmp_path_factory.mktemp("phantoms")
    for number in range(6):
        phantom = brain_phantom(number, shape=(44, 52, 12), spacing_mm=(4.0, 4.0, 10.0))
        label = f"sub-{number}"
        for path, voxels in (
            (f"{label}/anat/{label}_FLAIR.nii.gz", phantom.image),
            (f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz", phantom.lesion),
        ):
            (folder / path).parent.mkdir(parents=True)
            nib.save(nib.Nifti1Image(voxels, phantom.affine), folder / path)
    ages = "".join(f"sub-{number}\t{40 + 5 * number}\n" for number in range(6))
    (folder / "participants.tsv").write_text(f"participant_id\tage\n{ages}")
    return folder


@pytest.fixture(scope="session")
def phantom_cohort(phantom_scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms preprocessed whole: four training patients, one for validation, one for test."""
    folder = tmp_path_factory.mktemp("preprocessed") / "cohort"
    settings = Settings(slab=Slab(thickness_mm=None), split=(0.66, 0.17, 0.17), target="age")
    preprocess(phantom_scans, folder, settings, workers=1)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preprocessed cohort of cluttered digits: 84 for training, of which about 8 are nines."""
    folder = tmp_path_factory.mktemp("digits")
    write_cluttered_cohort(folder / "raw", scikit_digits(), "48-simple", seed=0, count=120)
    how = Settings(modality="image", slab=WHOLE, window=WindowRule(fixed=(0, 255)), target="digit")
    preprocess(folder / "raw", folder / "cohort", how, workers=1)
    return folder / "cohort"


@pytest.fixture(scope="session")
def laptop_run(phantom_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `phs-pipeline train gvs --preset laptop` with tiny settings and three epochs."""
    from pipeline.bundles import find_bundle
    from pipeline.launch import train

    folder = tmp_path_factory.mktemp("runs") / "laptop"
    train(find_bundle("gvs"), phantom_cohort, folder, ["laptop"], {**TINY, "epochs": 3, "device_name": "cpu"})
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 60 mm whose small network takes a known amount away, and does not say what it was trained on."""
    import torch

    from pipeline.bundles import bundles_folder
    from pipeline.networks import JohnsonGenerator

    settings = {"filters": 2, "residual_blocks": 1, "upsampling": "bilinear", "output": "residual"}
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(bundles_folder() / "gvs" / "configs", folder / "configs")
    for name, changes in (
        ("inference", {**settings, "slab_mm": 60.0, "spacing_mm": 2.0, "size": [32, 32]}),
        ("metadata", {}),
    ):
        path = folder / "configs" / f"{name}.json"
        content = json.loads(path.read_text())
        content.pop("training_domain", None)
        path.write_text(json.dumps(content | changes))
    torch.manual_seed(0)
    network = JohnsonGenerator(**settings)
    torch.nn.init.constant_(network.last.bias, -0.2)
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings whose curves are not drawn; that they are, tests/training/test_handlers.py and test_launch.py say."""
    monkeypatch.setattr("pipeline.training.Curves._draw", lambda curves: None)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unnamed temporary files lie on a disk without space."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))  # noqa: SIM115


@pytest.fixture
def dangerous() -> Callable[[Path], object]:
    """Objects that touch a file when they are unpickled."""

    class Dangerous:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __reduce__(self) -> Any:
            return (Path.touch, (self.path,))

    return Dangerous


@pytest.fixture(scope="session")
def bids_findings() -> Callable[[Path], tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Errors that the BIDS validator finds in a dataset, and its summary."""
    if sys.platform == "win32":
        pytest.skip("bids-validator-deno does not come for Windows")

    def findings(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        done = subprocess.run(["bids-validator-deno", folder, "--format", "json"], capture_output=True, text=True)
        report = json.loads(done.stdout)
        return [issue for issue in report["issues"]["issues"] if issue["severity"] == "error"], report["summary"]

    return findings


@pytest.fixture(scope="session")
def dicom_series() -> Callable[..., list[Path]]:
    """`write_series` of tests/dicom_series.py."""
    path = Path(__file__).with_name("dicom_series.py")
    spec = importlib.util.spec_from_file_location("dicom_series", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    write: Callable[..., list[Path]] = module.write_series
    return write
