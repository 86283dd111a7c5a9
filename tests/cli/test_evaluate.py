"""`phs-pipeline evaluate`, as a user calls it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK
import torch
from click.testing import CliRunner, Result

from pipeline.bundles import bundles_folder
from pipeline.cli.evaluate import evaluate
from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256
from pipeline.networks import JohnsonGenerator
from pipeline.phantoms import write_phantom_cohort
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.slab import Slab


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network was not trained yet: the identity."""
    folder = tmp_path_factory.mktemp("run")
    network = {"filters": 4, "residual_blocks": 1, "upsampling": "bilinear", "output": "residual"}
    small = {**network, "spacing_mm": 4.0, "size": [48, 64]}
    config = json.loads((bundles_folder() / "gvs" / "configs" / "inference.json").read_text())
    for name in ("configs", "models"):
        (folder / name).mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config | small))
    makes = {"outputs": {"pred": {"type": "image"}}}
    metadata = {"name": "gvs", "version": "0.0.1", "network_data_format": makes, "references": ["A paper"]}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(JohnsonGenerator(**network).state_dict(), folder / "models" / "model.pt")
    return folder


def made(folder: Path, subjects: int, training: float) -> Path:
    """A cohort of phantoms; who is not for training is for the test."""
    write_phantom_cohort(folder / "raw", subjects=subjects, seed=0)
    settings = Settings(slab=Slab(slices=12, thickness_mm=None), split=(training, 0.0, 1 - training))
    preprocess(folder / "raw", folder / "cohort", settings, workers=1)
    return folder / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("data"), subjects=2, training=0.5)


def called(run: Path, cohort: Path, report: Path, *further: str) -> Result:
    """`phs-pipeline evaluate` on a CPU, with a judge that was hardly trained."""
    arguments = ["-b", str(run), "--data", str(cohort), "-o", str(report), "--judge-iterations", "1"]
    return CliRunner().invoke(evaluate, [*arguments, "--device", "cpu", *further])


@pytest.mark.slow
def test_it_writes_a_report_and_prints_the_main_figures(run: Path, cohort: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    result = called(run, cohort, report)
    assert result.exit_code == 0, result.output
    summary = json.loads((report / "summary.json").read_text())
    assert summary["method"] == "gvs"
    assert summary["provenance"]["BundleVersion"] == "0.0.1"
    lines = {line[:20].strip(): line[20:].split() for line in result.stdout.splitlines()[1:-1]}
    for name, scores in summary["methods"].items():
        assert lines[name][0] == f"{scores['metrics']['healthiness_pooled']['mean']:.3f}"
    assert lines["untouched input"][1:] == ["identical", "1.0000"]
    assert result.stdout.splitlines()[-1] == f"report: {report / 'report.md'}"

    again = called(run, cohort, report)
    assert isinstance(again.exception, UsageError)
    assert "not empty" in str(again.exception)


@pytest.mark.slow
def test_a_filler_is_measured_against_the_truth_without_a_judge_if_none_is_wanted(cohort: Path, tmp_path: Path) -> None:
    arguments = ["-b", "harmonic", "--data", str(cohort), "-o", str(tmp_path / "report"), "--judge", "none"]
    result = CliRunner().invoke(evaluate, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (summary["kind"], summary["judge"]) == ("filler", None)
    lines = {line[:20].strip(): line[20:].split() for line in result.stdout.splitlines()[1:-1]}
    figures = summary["methods"]["harmonic"]["metrics"]
    shown = [f"{figures['psnr_lesion']['mean']:.2f}", f"{figures['ssim_lesion']['mean']:.4f}"]
    assert lines["harmonic"] == ["identical", "1.0000", *shown]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with three test patients."""
    return made(tmp_path_factory.mktemp("three"), subjects=5, training=0.4)


@pytest.fixture
def registered_alike() -> Iterator[None]:
    """A scan is registered to its mirror image with one thread: several add up in another order each time."""
    threads = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("registered_alike")
def test_the_report_of_shares_is_that_of_one_run(run: Path, three: Path, tmp_path: Path) -> None:
    def on_three(name: str, *further: str) -> Result:
        return called(run, three, tmp_path / name, *further)

    def files(name: str) -> dict[str, bytes]:
        found = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in found}

    assert on_three("one").exit_code == 0
    share = on_three("shares", "--num-parts", "2", "--part-id", "0")
    assert share.exit_code == 0, share.output
    assert share.stdout.splitlines() == [
        f"{tmp_path / 'shares'}: share 0 of 2 is measured, 2 scan(s)",
        "next, when all shares are: the same command without --num-parts makes the report",
    ]
    early = on_three("shares")
    assert isinstance(early.exception, UsageError)
    assert "share 1 of 2 is missing; give the same command with --num-parts 2 --part-id 1" in str(early.exception)
    assert on_three("shares", "--num-parts", "2", "--part-id", "1").exit_code == 0
    other = on_three("shares", "--name", "another")
    assert isinstance(other.exception, UsageError)
    assert "share 0 was measured with another method than is asked for" in str(other.exception)

    whole = on_three("shares")
    assert whole.exit_code == 0, whole.output
    assert files("shares") == files("one")
    for further in ((), ("--num-parts", "2")):
        late = on_three("shares", *further)
        assert isinstance(late.exception, UsageError)
        assert "not empty" in str(late.exception)


def test_an_unknown_split_is_refused(run: Path, cohort: Path, tmp_path: Path) -> None:
    arguments = ["-b", str(run), "--data", str(cohort), "-o", str(tmp_path), "--split", "everything"]
    assert CliRunner().invoke(evaluate, arguments).exit_code == 2


def test_healthy_measures_the_slices_of_a_cohort_without_lesion(run: Path, cohort: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    arguments = ["-b", str(run), "--healthy", "--data", str(cohort), "-o", str(report), "--device", "cpu"]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 0, result.output
    first, last = result.stdout.splitlines()
    assert first == (
        "gvs: tissue changed, % 0.00; regions appeared, a slice 0.00; regions vanished, a slice 0.00; "
        "tissue PSNR, dB identical; tissue SSIM 1.0000"
    )
    assert last == f"report: {report / 'report.md'}"
    summary = json.loads((report / "summary.json").read_text())
    assert summary["provenance"]["CohortSha256"] == sha256(cohort / "cohort.json")


def test_healthy_takes_scans_and_folders_and_goes_on_after_a_bad_one(
    run: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = cohort.parent / "raw" / "derivatives" / "truth"
    (healthy,) = scans.glob("sub-001/anat/*.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"damaged")
    monkeypatch.setenv("PHS_EVALUATE_DATA", str(tmp_path))  # as a container sets it
    arguments = ["-b", str(run), "--healthy", str(healthy), str(tmp_path / "bad.nii.gz"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(evaluate, arguments, auto_envvar_prefix="PHS_EVALUATE")
    assert isinstance(result.exception, ScanError)
    assert "bad: failed: " in result.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["volumes"], list(summary["failed"])) == (1, ["bad"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan.nii.gz", "--data", "cohort"], "SCAN… is for --healthy"),
        (["--healthy", "scan.nii.gz", "--data", "cohort"], "found both; give one of the two"),
        (["--healthy"], "missing --data COHORT, or SCAN…"),
        ([], "missing --data COHORT"),
        (["--healthy", "--data", "cohort", "--a-dice", "3"], "--a-dice needs lesions"),
        (["--data", "cohort", "--a-dice-rate", "0.01"], "--a-dice-rate is for --a-dice SEEDS"),
        (["--data", "cohort", "--num-parts", "2", "--a-dice", "3"], "--num-parts 2: does not go with --a-dice"),
        (["--healthy", "--data", "cohort", "--num-parts", "2"], "--num-parts 2: does not go with --healthy"),
    ],
)
def test_what_makes_no_sense_together_is_refused(run: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(evaluate, ["-b", str(run), "-o", str(tmp_path / "report"), *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "report").exists()
