"""A run's folder is a bundle of its own: what lies in it is what was run."""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import pytest
import torch

from pipeline import __version__
from pipeline.bundles import Bundle, find_bundle, foreign_code, list_bundles, read_config
from pipeline.errors import OutputError, UsageError
from pipeline.files import MACHINE, sha256, write_json
from pipeline.inference import Inputs, load_predictor
from pipeline.launch import check_unseen, goes_on, train, unfinished
from pipeline.networks import JohnsonGenerator, UNetSegmentor
from pipeline.preprocessing.domain import Findings, compare, describe
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import read_nifti
from pipeline.training.speed import Speed


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "models" / "model.pt", weights_only=True)
    return content


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def go(phantom_cohort: Path, tiny: dict[str, Any]) -> Any:
    """Train the GVS bundle with tiny settings for one epoch, or as told."""

    def start(
        run: Path, presets: Any = (), resume: bool = False, cohort: Path = phantom_cohort, **overrides: Any
    ) -> None:
        settings = overrides if resume else {**tiny, "epochs": 1, "device_name": "cpu", **overrides}
        train(find_bundle("gvs"), cohort, run, presets, settings, resume)

    return start


def test_a_run_holds_what_a_bundle_holds(laptop_run):
    files = {str(path.relative_to(laptop_run)) for path in laptop_run.rglob("*") if path.is_file()}
    configs = {"train.json", "inference.json", "evaluate.json", "multi_gpu_train.json", "metadata.json", "logging.conf"}
    expected = {
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "docs/gvs.png",
        "models/model.pt",
        "models/segmentor.pt",
        "models/checkpoint.pt",
        "curves.csv",
        "curves.png",
        "run.json",
        *(f"configs/{name}" for name in configs),
        *(f"panels/epoch_00{epoch}.png" for epoch in (1, 2, 3)),
    }
    assert files >= expected
    assert all("tensorboard" in name for name in files - expected)


@pytest.mark.slow
def test_a_run_s_inference_follows_its_training_not_the_weights_that_the_bundle_ships(phantom_cohort, tiny, tmp_path):
    root = Path(shutil.copytree(find_bundle("gvs").root, tmp_path / "bundle"))
    shipped = read_config(root / "configs" / "inference.json")
    shipped |= {"upsampling": "bilinear", "filters": 7, "batch_size": 3}
    write_json(root / "configs" / "inference.json", shipped)
    train(Bundle(root, "gvs"), phantom_cohort, tmp_path / "run", (), {**tiny, "epochs": 1, "device_name": "cpu"})
    configs = tmp_path / "run" / "configs"
    training, inference = (read_config(configs / f"{name}.json") for name in ("train", "inference"))
    for key in ("upsampling", "output", "filters", "residual_blocks", "spacing_mm", "size"):
        assert inference[key] == training[key], key
    assert inference["batch_size"] == 3, "how many slices at once is the user's, not the training's, choice"
    load_predictor(find_bundle(str(tmp_path / "run")), device="cpu")


def test_settings_are_laid_over_training_and_inference_alike(laptop_run, tiny):
    training, inference = (read_config(laptop_run / "configs" / f"{name}.json") for name in ("train", "inference"))
    laptop = read_config(find_bundle("gvs").config("laptop"))
    for key, value in {**laptop, **tiny}.items():
        assert training[key] == value
        assert inference.get(key, value) == value
    assert inference["filters"] == 4
    assert inference["output"] == "residual"
    assert training["epochs"] == 3
    assert "lambda" not in inference


def test_the_presets_and_the_bundle_itself_are_left_as_they_are(laptop_run):
    assert not (laptop_run / "configs" / "laptop.json").exists()
    assert read_config(find_bundle("gvs").config("train"))["filters"] == 32


def test_a_run_can_be_found_and_keeps_the_name_of_its_bundle(laptop_run):
    found = find_bundle(str(laptop_run))
    assert found == Bundle(laptop_run, "gvs")
    assert found.presets == []


def test_a_run_says_what_it_was_trained_on_so_that_other_scans_can_be_compared(
    laptop_run, phantom_cohort, phantom_scans
):
    metadata = find_bundle(str(laptop_run)).metadata
    assert metadata["training_domain"] == describe(phantom_cohort)
    assert metadata["training_domain"]["scans"] == 4
    scan = read_nifti(next(phantom_scans.glob("sub-*/anat/*_FLAIR.nii.gz")))
    windowed = WindowRule().window(scan.intensities(), scan.origin).apply(scan.axial(scan.intensities()))
    assert compare(scan, windowed, metadata) == Findings(kind="stripped")


def test_run_json_says_what_was_run(laptop_run, phantom_cohort):
    record = json.loads((laptop_run / "run.json").read_text())
    assert record["bundle"] == "gvs"
    assert record["cohort_sha256"] == sha256(phantom_cohort / "cohort.json")
    assert record["config_sha256"] == sha256(laptop_run / "configs" / "train.json")
    (start,) = record["starts"]
    assert start["resumed"] is False
    assert start["device"] == "cpu"
    assert start["pipeline"] == __version__
    assert start["torch"] == torch.__version__


def test_the_weights_are_those_of_the_generator_alone(laptop_run):
    generator = JohnsonGenerator(filters=4, residual_blocks=1, upsampling="bilinear", output="residual")
    generator.load_state_dict(weights(laptop_run))
    segmentor = UNetSegmentor(filters=4)
    content = torch.load(laptop_run / "models" / "checkpoint.pt", weights_only=True)
    segmentor.load_state_dict(content["networks"]["segmentor"])
    # The laptop preset gives users the moving average.
    assert same(
        weights(laptop_run),
        {key[7:]: v for key, v in content["averages"]["healthy"].items() if key.startswith("module.")},
    )


@pytest.mark.slow
def test_optimisers_and_rates_are_the_papers(go, tmp_path):
    go(tmp_path / "run", epochs=3)
    content = torch.load(tmp_path / "run" / "models" / "checkpoint.pt", weights_only=True)
    for player in ("segmentor", "generator"):
        (group,) = content["optimizers"][player]["param_groups"]
        assert list(group["betas"]) == [0.9, 0.99]
        assert group["initial_lr"] == 1e-3
        assert group["weight_decay"] == 0
    header, *rows = (line.split(",") for line in (tmp_path / "run" / "curves.csv").read_text().splitlines())
    for player in ("segmentor", "generator"):
        rates = [float(row[header.index(f"rate/{player}")]) for row in rows]
        assert rates == pytest.approx([1e-3 * (1 - epoch / 3) ** 0.8 for epoch in range(3)])
    assert "segmentor/wce" in header
    assert "segmentor/real" not in header


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(go, tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        go(tmp_path / name, seed=seed)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert not same(weights(tmp_path / "one"), weights(tmp_path / "three"))


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_mixed_precision_and_accumulation_train(go, tmp_path, amp):
    go(tmp_path / "run", amp=amp, accumulate=2, average_decay=0.9, size=[32, 32], spacing_mm=8.0)
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


@pytest.mark.slow
def test_what_auto_chose_is_said_and_kept_by_the_run_so_that_it_measures_once(go, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    go(run, amp="auto", size=[32, 32], spacing_mm=8.0)
    (started,) = read_config(run / "run.json")["starts"]
    assert caplog.text.count(f"computing in {started['precision']}, chosen by the time of a step (float32, ") == 1
    assert started["precision"] in started["step_seconds"]
    settings = read_config(run / "configs" / "train.json")
    assert str(Speed(settings["amp"], settings["channels_last"])) == started["precision"]

    # Also a run that was stopped before its first epoch ended computes as it began.
    (run / "models" / "checkpoint.pt").unlink()
    go(run, resume=True)
    assert read_config(run / "run.json")["starts"][1]["precision"] == started["precision"]
    assert read_config(run / "run.json")["starts"][1]["step_seconds"] == {}
    assert caplog.text.count("computing in ") == 1


@pytest.mark.slow
def test_scans_are_windowed_for_the_network_as_the_cohort_was(phantom_cohort, go, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(phantom_cohort, cohort)
    content = json.loads((cohort / "cohort.json").read_text())
    content["settings"]["window"] = {"percentile": 99.0, "foreground_only": True, "fixed": [-200.0, 250.0]}
    write_json(cohort / "cohort.json", content)
    go(tmp_path / "run", cohort=cohort)
    inference = read_config(tmp_path / "run" / "configs" / "inference.json")
    assert (inference["percentile"], inference["foreground_only"]) == (99.0, True)
    assert inference["fixed_window"] == [-200.0, 250.0]


def test_a_folder_with_something_in_it_is_refused_untouched(go, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists and is not empty; give --resume to go on with it, or another folder"):
        go(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_the_folder_is_refused(go, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="exists and is not empty"):
        go(tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_refused_in_one_sentence(go, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"run: cannot be written \(.*\); choose a writable output folder") as caught:
        go(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_empty_folder_is_as_good_as_none(go, tmp_path):
    (tmp_path / "run").mkdir()
    go(tmp_path / "run")
    assert weights(tmp_path / "run")


@pytest.mark.slow
def test_weights_are_kept_along_the_way_on_request(go, tmp_path):
    go(tmp_path / "run", epochs=2, keep_every=2)
    assert {path.name for path in (tmp_path / "run" / "models").iterdir()} == {
        "checkpoint.pt",
        "model.pt",
        "model_epoch0002.pt",
        "segmentor.pt",
        "segmentor_epoch0002.pt",
    }
    assert same(weights(tmp_path / "run"), torch.load(tmp_path / "run/models/model_epoch0002.pt", weights_only=True))


def test_an_unknown_preset_is_refused_with_the_known_ones(go, tmp_path):
    with pytest.raises(UsageError, match="--preset desktop: the bundle 'gvs' has no such preset; it has laptop"):
        go(tmp_path / "run", presets=["desktop"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["filtres", "optimizers::generatr::lr", "train::trainer::apm", "size#2", ""])
def test_an_unknown_setting_is_refused(go, tmp_path, key):
    with pytest.raises(UsageError, match=rf"--set {key}: the bundle 'gvs' has no such setting in configs/train\.json"):
        go(tmp_path / "run", **{key: 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_nested_setting_is_laid_over(go, tmp_path):
    go(tmp_path / "run", **{"optimizers::generator::betas": [0.5, 0.9]})
    content = torch.load(tmp_path / "run" / "models" / "checkpoint.pt", weights_only=True)
    assert list(content["optimizers"]["generator"]["param_groups"][0]["betas"]) == [0.5, 0.9]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"lambda": -1}, "lambda must be a number above 0"),
        ({"size": [100, 100]}, "sides divisible by 16"),
        ({"filters": "many"}, "no training can be built from these settings"),
        ({"output": "nothing"}, "output is one of image, residual, .*found 'nothing'"),
        ({"amp": "float8"}, "found 'float8'"),
        ({"fraction": 0}, "fraction of training patients must be above 0"),
        ({"device_name": "cuda:99"}, "device 'cuda:99' is not available here"),
        ({"segmentor_rate": -1}, "Invalid learning rate"),
    ],
)
def test_a_value_that_makes_no_sense_is_one_sentence_and_leaves_no_folder(go, tmp_path, settings, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        go(tmp_path / "run", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_failed_resume_leaves_the_run(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    with pytest.raises(UsageError, match="'cuda:99' is not available"):
        go(tmp_path / "run", resume=True, device_name="cuda:99")
    assert same(weights(tmp_path / "run"), weights(laptop_run))


def test_resume_without_a_run_is_refused(go, tmp_path):
    with pytest.raises(UsageError, match="holds no training to resume; start it without --resume"):
        go(tmp_path / "run", resume=True)


@pytest.mark.parametrize(("presets", "settings"), [(["laptop"], {}), ([], {"lambda": 3})])
def test_a_resumed_training_keeps_its_settings(go, laptop_run, presets, settings):
    with pytest.raises(UsageError, match="keeps its settings; only --device and more --epochs can be given"):
        go(laptop_run, presets, resume=True, **settings)


def test_a_resumed_training_has_no_fewer_epochs(go, laptop_run):
    with pytest.raises(UsageError, match=r"--epochs 1: expected more than the \d+ epochs"):
        go(laptop_run, resume=True, epochs=1)


@pytest.mark.slow
def test_a_finished_training_is_prolonged_with_its_schedule_stretched(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    epochs = read_config(laptop_run / "configs" / "train.json")["epochs"]
    go(tmp_path / "run", resume=True, epochs=epochs + 2)
    curves = pd.read_csv(tmp_path / "run" / "curves.csv")
    assert curves["epoch"].tolist() == [float(epoch) for epoch in range(1, epochs + 3)]
    base = read_config(laptop_run / "configs" / "train.json")["generator_rate"]
    # Poly decay over all epochs; a schedule that had ended would leave 0.
    expected = [base * (1 - epoch / (epochs + 2)) ** 0.8 for epoch in range(epochs, epochs + 2)]
    assert curves["rate/generator"].tolist()[epochs:] == pytest.approx(expected)
    assert read_config(tmp_path / "run" / "configs" / "train.json")["epochs"] == epochs + 2
    assert unfinished(find_bundle(str(tmp_path / "run"))) is None


def test_a_training_of_another_bundle_is_not_resumed(laptop_run, phantom_cohort):
    with pytest.raises(UsageError, match="is a training of gvs, found cyclegan"):
        train(find_bundle("cyclegan"), phantom_cohort, laptop_run, resume=True)


def test_a_run_tells_whether_it_came_to_its_end(laptop_run, tmp_path):
    assert unfinished(find_bundle(str(laptop_run))) is None
    assert unfinished(find_bundle("gvs")) is None
    shutil.copytree(laptop_run, tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {**read_config(laptop_run / "run.json"), "finished": False})
    assert "was stopped before epoch" in str(unfinished(find_bundle(str(tmp_path / "run"))))


@pytest.fixture
def stopped(laptop_run: Path, tmp_path: Path) -> Path:
    """The run of `laptop_run`, as if it had been stopped before its end."""
    run = tmp_path / "run"
    shutil.copytree(laptop_run, run)
    write_json(run / "run.json", {**read_config(run / "run.json"), "finished": False})
    return run


def test_the_same_command_goes_on_with_a_training_that_was_stopped(stopped, phantom_cohort, tiny):
    settings = {**tiny, "epochs": 3, "device_name": "cuda"}  # on another machine
    assert goes_on(find_bundle("gvs"), phantom_cohort, stopped, ("laptop",), settings)
    # Stopped before it had a record, or wrote the types that `auto` measures to be the fastest.
    for name in ("run.json", "models/model.pt"):
        (stopped / name).unlink()
    config = read_config(stopped / "configs" / "train.json")
    write_json(stopped / "configs" / "train.json", {**config, "amp": "bfloat16"})
    assert goes_on(find_bundle("gvs"), phantom_cohort, stopped, ("laptop",), {**settings, "amp": "auto"})
    assert not goes_on(find_bundle("gvs"), phantom_cohort, stopped.with_name("new"), (), {})


@pytest.mark.parametrize(
    ("bundle", "presets", "changed", "said"),
    [
        (
            "gvs",
            ("laptop",),
            {"lambda": 3},
            r"\(lambda\); go on with it by `phs-pipeline train gvs --resume`, or start",
        ),
        ("gvs", (), {}, "another training that was stopped"),
        ("lesion", ("laptop",), {}, r"another training that was stopped \(gvs\)"),
    ],
)
def test_another_command_does_not(stopped, phantom_cohort, tiny, bundle, presets, changed, said):
    with pytest.raises(UsageError, match=said):
        goes_on(find_bundle(bundle), phantom_cohort, stopped, presets, {**tiny, "epochs": 3, **changed})


def test_nor_one_on_another_cohort_or_after_the_end(stopped, laptop_run, phantom_cohort, tmp_path, tiny):
    settings = {**tiny, "epochs": 3}
    with pytest.raises(UsageError, match="holds a finished training of gvs; for another one, `phs-pipeline"):
        goes_on(find_bundle("gvs"), phantom_cohort, laptop_run, ("laptop",), settings)
    shutil.copytree(phantom_cohort, tmp_path / "cohort")
    (tmp_path / "cohort" / "cohort.json").write_text((phantom_cohort / "cohort.json").read_text() + "\n")
    with pytest.raises(UsageError, match=r"was stopped \(another cohort\)"):
        goes_on(find_bundle("gvs"), tmp_path / "cohort", stopped, ("laptop",), settings)


def test_two_processes_do_not_train_in_one_folder(go, laptop_run, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    shutil.copytree(laptop_run, tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process trains in this folder"):
            go(tmp_path / "run", resume=True)


def test_the_lock_writes_through_no_link(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    (tmp_path / "precious").write_text("theirs")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=r"\.lock"):
        go(tmp_path / "run", resume=True)
    assert (tmp_path / "precious").read_text() == "theirs"


@pytest.mark.parametrize(
    "record", [{"training_patients": 5}, {"training_patients": [{}]}, {"starts": 5}, {"finished": "no"}], ids=str
)
def test_a_damaged_record_of_a_run_is_one_sentence(laptop_run, phantom_cohort, tmp_path, record):
    """Taken for none, it would let a run be measured on its training patients."""
    shutil.copytree(laptop_run, tmp_path / "run")
    write_json(tmp_path / "run" / "run.json", {**read_config(laptop_run / "run.json"), **record})
    with pytest.raises(UsageError, match=r"run\.json: .*; restore the file"):
        check_unseen(find_bundle(str(tmp_path / "run")), phantom_cohort, "test")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"epochs": 0}, "epochs is 0, expected a whole number of at least 1"),
        ({"epochs": 2.5}, "epochs is 2.5, expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"residual_blocks": 1_000_000}, "found 1000000, expected a size of at most 4096"),
        ({"generator_rate": float("nan")}, "nan"),
        ({"lambda": float("nan")}, "method::lambda_: found 'nan'"),
        ({"lambda": "x"}, "method::lambda_: found 'x'.*valid number"),
        ({"size": [64]}, "grid::size"),
        ({"filters": 0}, "without channels|no training can be built"),
        ({"generator_rate": 1e38}, "diverged|stopped with an error"),
        ({"lambda ": 3}, "has no such setting"),
        ({" lambda": 3}, "has no such setting"),
    ],
)
def test_values_that_train_nothing_are_one_sentence_and_leave_no_folder(go, tmp_path, setting, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        go(tmp_path / "run", **setting)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_training_left_goes_when_it_is_resumed(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    left = tmp_path / "run" / "models" / f".partial-{MACHINE}-999999999-12345678-model.pt"
    left.write_bytes(b"half")
    go(tmp_path / "run", resume=True)
    assert not left.exists()


def test_files_that_a_link_in_a_bundle_leads_to_are_not_copied(go, tmp_path, phantom_cohort):
    shutil.copytree(find_bundle("gvs").root, tmp_path / "theirs")
    (tmp_path / "secret").write_text("key")
    (tmp_path / "theirs" / "docs" / "NOTES.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match=r"NOTES\.md: is a link that leads out of the bundle"):
        train(find_bundle(str(tmp_path / "theirs")), phantom_cohort, tmp_path / "run", ["laptop"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_network_that_destroys_the_scan_is_told_of(go, tmp_path, caplog):
    go(tmp_path / "run", generator_rate=1000, epochs=1)
    assert "normal tissue is destroyed" in caplog.text


def test_a_training_is_not_resumed_on_another_cohort(go, laptop_run, phantom_cohort, tmp_path):
    shutil.copytree(phantom_cohort, tmp_path / "cohort")
    write_json(tmp_path / "cohort" / "cohort.json", {**read_config(phantom_cohort / "cohort.json"), "layout": "BraTS"})
    with pytest.raises(UsageError, match=r"was trained on another cohort than .*; give the one it was started with"):
        go(laptop_run, resume=True, cohort=tmp_path / "cohort")


@pytest.mark.slow
def test_a_run_that_was_stopped_before_its_first_epoch_ended_starts_over(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    for name in ("model.pt", "checkpoint.pt"):
        (tmp_path / "run" / "models" / name).unlink()
    go(tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(laptop_run))
    assert [start["resumed"] for start in read_config(tmp_path / "run" / "run.json")["starts"]] == [False, False]


def test_a_damaged_checkpoint_is_said_in_one_sentence(go, laptop_run, tmp_path):
    shutil.copytree(laptop_run, tmp_path / "run")
    (tmp_path / "run" / "models" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"checkpoint\.pt: not a weights file that can be loaded safely"):
        go(tmp_path / "run", resume=True)


@pytest.mark.slow
def test_the_checkpoint_of_another_network_is_said_in_one_sentence(go, laptop_run, tmp_path):
    go(tmp_path / "wider", filters=8)
    shutil.copytree(laptop_run, tmp_path / "run")
    shutil.copyfile(tmp_path / "wider" / "models" / "checkpoint.pt", tmp_path / "run" / "models" / "checkpoint.pt")
    with pytest.raises(UsageError, match="the checkpoint belongs to another method or network size"):
        go(tmp_path / "run", resume=True)


def test_a_folder_that_is_no_cohort_is_refused(go, tmp_path):
    with pytest.raises(UsageError, match="expected a folder made by `phs-pipeline preprocess`"):
        go(tmp_path / "run", cohort=tmp_path)
    assert not (tmp_path / "run").exists()


def test_one_of_several_processes_that_does_not_know_the_others_is_sent_to_torchrun(go, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2, expected .*RANK.*; start torchrun, or give --gpus"):
        go(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_trained_run_gives_a_twin_of_a_scan(laptop_run, phantom_scans):
    from pipeline.scans import read_nifti

    translator, provenance = load_predictor(find_bundle(str(laptop_run)), "translator", device="cpu")
    path = next(phantom_scans.glob("sub-*/anat/*_FLAIR.nii.gz"))
    twin = translator(Inputs(read_nifti(path)))
    assert twin.main.voxels.shape == nib.load(path).shape
    assert provenance["WeightsSha256"] == sha256(laptop_run / "models" / "model.pt")
    assert math.isfinite(float(abs(twin.first("difference").voxels).max()))


@pytest.fixture
def stranger(tmp_path: Path) -> Bundle:
    """A copy of the GVS bundle from elsewhere."""
    shutil.copytree(find_bundle("gvs").root, tmp_path / "stranger")
    return find_bundle(str(tmp_path / "stranger"))


def alter(bundle: Bundle, name: str, **changes: Any) -> None:
    """Set ids of a config, `train::seed` as train__seed."""
    config = read_config(bundle.config(name))
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = config
        for parent in parents:
            part = part[parent]
        part[last] = value
    write_json(bundle.config(name), config)


@pytest.fixture
def begin(phantom_cohort: Path, tiny: dict[str, Any], tmp_path: Path) -> Any:
    """Train a bundle into tmp_path / run for one epoch."""

    def start(bundle: Bundle, presets: Any = (), **options: Any) -> None:
        settings = {} if options.get("resume") else {**tiny, "epochs": 1}
        train(bundle, phantom_cohort, tmp_path / "run", presets, {**settings, "device_name": "cpu"}, **options)

    return start


@pytest.mark.slow
def test_a_copy_of_a_bundle_of_ours_with_other_plain_settings_needs_no_trust(stranger, begin, tmp_path):
    alter(stranger, "train", seed=3, train__dataloader__batch_size=4, optimizers__generator__betas=[0.5, 0.9])
    begin(stranger)
    begin(find_bundle(str(tmp_path / "run")), resume=True)


# Where a config is obeyed, in forms that MONAI's parser takes; `touch` makes the code.
HIDING_PLACES: dict[str, Any] = {
    "initialize": lambda touch: {"train": {"initialize": [f"${touch}"]}},
    "imports": lambda touch: {"train": {"imports": [f"${touch}"]}},
    "a setting": lambda touch: {"train": {"seed": f"${touch}"}},
    "a new id": lambda touch: {"train": {"seed": "@extra", "extra": f"${touch}"}},
    "a target": lambda touch: {"train": {"seed": {"_target_": "builtins.exec", "_args_": [touch], "source": touch}}},
    "a target in a list": lambda touch: {"train": {"finalize": [{"_target_": "builtins.eval", "source": touch}]}},
    "a mode": lambda _: {"train": {"network_def___mode_": "debug"}},
    "metadata": lambda touch: {"train": {"seed": "@_meta_::extra"}, "metadata": {"extra": f"${touch}"}},
    "a macro": lambda _: {"train": {"seed": "%inference.json::seed"}},
    "a preset": lambda touch: {"laptop": {"seed": f"${touch}"}},
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_a_stranger_s_code_runs_only_when_the_user_trusts_it(stranger, begin, tmp_path, place):
    touched = tmp_path / "touched"
    changes = HIDING_PLACES[place](f"__import__('pathlib').Path({str(touched)!r}).touch()")
    for name, changed in changes.items():
        alter(stranger, name, **changed)
    with pytest.raises(
        UsageError, match=r"stranger: its configs hold code that no bundle of phs-pipeline has"
    ) as caught:
        begin(stranger, ["laptop"] if "laptop" in changes else [])
    said = str(caught.value)
    assert "training would execute it with your rights" in said
    assert "give --trust-bundle if you trust who wrote them" in said
    assert "\n" not in said
    assert not touched.exists()
    assert not (tmp_path / "run").exists(), "the corrected command may use the folder"


@pytest.mark.slow
def test_trusted_code_runs(stranger, begin, tmp_path):
    touched = tmp_path / "touched"
    alter(stranger, "train", initialize=[f"$__import__('pathlib').Path({str(touched)!r}).touch()"])
    begin(stranger, trust=True)
    assert touched.exists()


def test_the_refusal_shows_the_first_three_pieces_of_code(stranger, begin):
    alter(stranger, "train", initialize=["$print('one')", "$print('two')", "$print('three')", "$print('four')"])
    with pytest.raises(UsageError) as caught:
        begin(stranger)
    for place, word in enumerate(("one", "two", "three")):
        assert f"initialize::{place}: $print('{word}')" in str(caught.value)
    assert "four" not in str(caught.value)
    assert "and 1 more" in str(caught.value)


@pytest.mark.slow
def test_a_run_that_was_tampered_with_is_not_resumed_whatever_its_record_says(begin, tmp_path):
    begin(find_bundle("gvs"))
    run, touched = tmp_path / "run", tmp_path / "touched"
    alter(Bundle(run, "gvs"), "train", initialize=[f"$__import__('pathlib').Path({str(touched)!r}).touch()"])
    record = read_config(run / "run.json")
    write_json(run / "run.json", {**record, "config_sha256": sha256(run / "configs" / "train.json")})
    with pytest.raises(UsageError, match="give --trust-bundle"):
        begin(find_bundle("gvs"), resume=True)
    assert not touched.exists()
    assert (run / "models" / "model.pt").is_file(), "what was trained stays"
    begin(find_bundle("gvs"), resume=True, trust=True)
    assert touched.exists()


@pytest.mark.parametrize("bundle", [b for b in list_bundles() if b.trainable], ids=lambda bundle: bundle.name)
def test_bundles_of_ours_hold_no_foreign_code(bundle):
    assert foreign_code(bundle) == {}


class TestSettingsOfTheCohort:
    """What a training takes from the cohort, so that its result is used as it was trained."""

    @pytest.fixture
    def altered(self, phantom_cohort, tmp_path):
        """The cohort with other subjects in its `cohort.json`."""

        def alter(change, **settings):
            shutil.copytree(phantom_cohort, tmp_path / "cohort")
            path = tmp_path / "cohort" / "cohort.json"
            content = json.loads(path.read_text())
            for number, subject in enumerate(content["subjects"]):
                subject.update(change(number, subject))
            content["settings"].update(settings)
            path.write_text(json.dumps(content))
            return tmp_path / "cohort"

        return alter

    @pytest.fixture
    def start(self, tmp_path):
        def begin(bundle, cohort, **overrides):
            small = {"spacing_mm": 4.0, "size": [64, 64], "filters": 4, "epochs": 1, "device_name": "cpu"}
            train(find_bundle(bundle), cohort, tmp_path / "run", [], {**small, **overrides})
            return [read_config(tmp_path / "run" / "configs" / f"{name}.json") for name in ("train", "inference")]

        return begin

    @pytest.mark.slow
    def test_a_scorer_s_target_its_mean_and_deviation_are_those_of_the_training_scans(self, start, phantom_cohort):
        content = json.loads((phantom_cohort / "cohort.json").read_text())
        ages = [subject["target"] for subject in content["subjects"] if subject["split"] == "training"]
        for config in start("age_regression", phantom_cohort, blocks=1):
            assert (config["target"], config["units"]) == ("age", "years")
            assert config["target_mean"] == pytest.approx(sum(ages) / len(ages))
            assert config["target_deviation"] == pytest.approx(pd.Series(ages).std(ddof=0))

    @pytest.mark.slow
    def test_of_another_target_nobody_said_the_units_unless_the_user_does(self, start, altered, tmp_path):
        cohort = altered(lambda number, _: {"target": 10.0 * number}, target="lesion_ml")
        for config in start("age_regression", cohort, blocks=1):
            assert (config["target"], config["units"]) == ("lesionml", "1")
        shutil.rmtree(tmp_path / "run")
        for config in start("age_regression", cohort, blocks=1, units="ml", target_mean=7.0):
            assert (config["target"], config["units"], config["target_mean"]) == ("lesionml", "ml", 7.0)

    @pytest.mark.parametrize(
        ("target", "sentence"),
        [
            (lambda number: None, "found 0 values of a target among 4 training scans, expected at least two"),
            (lambda number: 40.0, "found 1 values of a target"),
            (lambda number: "old", "has classes as target, expected numbers"),
        ],
        ids=["none", "all alike", "classes"],
    )
    def test_a_cohort_without_a_number_to_learn_is_refused(self, start, altered, tmp_path, target, sentence):
        cohort = altered(lambda number, _: {"target": target(number)})
        with pytest.raises(UsageError, match=sentence):
            start("age_regression", cohort)
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_a_segmenter_takes_the_sequences_of_the_cohort_in_its_order(self, start, altered, tmp_path):
        cohort = altered(lambda _, subject: {"channels": {"FLAIR": subject["images"], "T1w": subject["images"]}})
        training, inference = start("unet_segmentation", cohort)
        assert training["in_channels"] == inference["in_channels"] == 2
        assert inference["channels"] == ["FLAIR", "T1w"]
        predictor, _ = load_predictor(find_bundle(str(tmp_path / "run")), "segmenter", "cpu")
        assert predictor.channels == ("FLAIR", "T1w")

    def test_what_is_learned_of_several_modalities_comes_from_the_scans_of_the_target_modality(
        self, start, altered, tmp_path
    ):
        cohort = altered(
            lambda number, subject: {
                "channels": {"T1w" if subject["split"] == "training" and number % 2 else "FLAIR": subject["images"]},
                "target": 10.0 * number,
            }
        )
        content = json.loads((cohort / "cohort.json").read_text())["subjects"]
        mine = [each for each in content if each["split"] == "training" and "FLAIR" in each["channels"]]
        small = {"predictor_blocks": 1, "translator_filters": 2, "residual_blocks": 1, "discriminator_filters": 2}
        for config in start("duiit", cohort, target_modality="FLAIR", sources=["T1w"], **small):
            assert config["target_mean"] == pytest.approx(sum(each["target"] for each in mine) / len(mine))
            assert config["sources"] == ["T1w"]
        metadata = read_config(tmp_path / "run" / "configs" / "metadata.json")
        assert metadata["training_domain"]["scans"] == len(mine)
        assert [domain["scans"] for domain in metadata["source_domains"].values()] == [4 - len(mine)]
        predictor, _ = load_predictor(find_bundle(str(tmp_path / "run")), "scorer", "cpu")
        assert predictor.channels == ("FLAIR",)

    def test_modalities_that_the_cohort_lacks_are_named(self, start, altered, tmp_path):
        cohort = altered(lambda _, subject: {"channels": {"FLAIR": subject["images"]}})
        with pytest.raises(UsageError, match="has scans of FLAIR, expected CT and MR too; say which modalities"):
            start("duiit", cohort)
        assert not (tmp_path / "run").exists()

    def test_a_bundle_of_one_sequence_refuses_a_cohort_of_several(self, start, altered):
        cohort = altered(lambda _, subject: {"channels": {"FLAIR": subject["images"], "T1w": subject["images"]}})
        with pytest.raises(UsageError, match="has the sequences FLAIR, T1w, expected one, which is what gvs takes"):
            start("gvs", cohort)


def test_batches_prepared_by_other_processes_are_the_same_each_time(phantom_cohort: Path, tmp_path: Path) -> None:
    """What a filler's data draws at random comes from the seed, also in the processes that prepare it."""
    settings = {"spacing_mm": 4.0, "size": [64, 64], "crop": [32, 32], "filters": 2, "device_name": "cpu", "epochs": 2}
    for name in ("once", "again"):
        train(find_bundle("fill"), phantom_cohort, tmp_path / name, [], {**settings, "workers": 2})
    once, again = (torch.load(tmp_path / name / "models" / "model.pt") for name in ("once", "again"))
    assert once.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in once.items())
