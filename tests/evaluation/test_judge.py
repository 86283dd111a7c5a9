"""f_pre: trained once per cohort, on its training patients, with a seed of its own."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UsageError
from pipeline.evaluation.judge import SCALES, SEED, load_judge
from pipeline.evaluation.volumes import pathological_subjects, read_volume
from pipeline.files import sha256
from pipeline.training import CheckpointSaver, PlayerTrainer

ITERATIONS = 4  # two epochs of three batches


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """A network that trains fast; it need not segment well here."""
    default = SCALES["default"]
    filters = default.filters
    object.__setattr__(default, "filters", 2)
    yield
    object.__setattr__(default, "filters", filters)


@pytest.fixture(scope="module")
def own(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the cohort without a judge."""
    folder = tmp_path_factory.mktemp("own") / "cohort"
    shutil.copytree(cohort, folder, ignore=shutil.ignore_patterns("judge"))
    return folder


@pytest.fixture(scope="module")
def one_step(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the cohort with a judge of one epoch."""
    folder = tmp_path_factory.mktemp("one_step") / "cohort"
    shutil.copytree(cohort, folder, ignore=shutil.ignore_patterns("judge"))
    load_judge(folder, iterations=1)
    return folder


def kept(cohort: Path) -> list[Path]:
    return sorted((cohort / "judge").iterdir())


def weights(cohort: Path, iterations: int) -> dict[str, torch.Tensor]:
    return load_judge(cohort, iterations=iterations).network.state_dict()


@pytest.mark.slow
def test_it_is_kept_with_the_cohort_and_trained_only_once(own: Path) -> None:
    first = load_judge(own, iterations=ITERATIONS)
    (folder,) = kept(own)
    assert sorted(path.name for path in folder.iterdir()) == ["judge.json", "model.pt"]
    written = (folder / "model.pt").stat().st_mtime_ns
    again = load_judge(own, iterations=ITERATIONS)
    assert kept(own) == [folder]
    assert (folder / "model.pt").stat().st_mtime_ns == written
    image = torch.rand(3, 1, 38, 48)
    assert torch.equal(first.predict(image, (4, 4)), again.predict(image, (4, 4)))


def test_its_record_says_what_it_is_and_how_well_it_segments_patients_it_never_saw(own: Path) -> None:
    judge = load_judge(own, iterations=ITERATIONS)
    (folder,) = kept(own)
    record = json.loads((folder / "judge.json").read_text())
    assert judge.about == record
    assert (record["seed"], record["iterations"]) == (SEED, ITERATIONS)
    assert (record["spacing_mm"], record["size"]) == (2.0, [80, 96])  # 76 × 96 pixels of 2 mm, rounded up to 16
    assert record["cohort_sha256"] == sha256(own / "cohort.json")
    assert record["weights_sha256"] == sha256(folder / "model.pt")
    assert record["dice"]["validation"]["patients"] == 1
    by_slice, overlap, areas = [], 0, 0
    for subject in pathological_subjects(own, "test"):
        volume = read_volume(own, subject)
        for found, lesion in zip(judge.predict(volume.image, volume.spacing_mm), volume.lesion, strict=True):
            by_slice.append(2 * int((found & lesion).sum()) / int(found.sum() + lesion.sum()))
            overlap += int((found & lesion).sum())
            areas += int(found.sum() + lesion.sum())
    assert record["dice"]["test"]["mean_per_slice"] == pytest.approx(np.mean(by_slice))
    assert record["dice"]["test"]["pooled"] == pytest.approx(2 * overlap / areas)
    assert (record["dice"]["test"]["slices"], record["dice"]["test"]["patients"]) == (len(by_slice), 3)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"seed": 5}, {"iterations": 1}])
def test_other_settings_give_another_judge(own: Path, change: dict[str, Any]) -> None:
    load_judge(own, iterations=ITERATIONS)
    before = kept(own)
    load_judge(own, **{"iterations": ITERATIONS, **change})
    (new,) = set(kept(own)) - set(before)
    assert sha256(new / "model.pt") not in {sha256(folder / "model.pt") for folder in before}
    shutil.rmtree(new)


@pytest.mark.slow
def test_a_changed_cohort_gets_another_judge(own: Path, tmp_path: Path) -> None:
    load_judge(own, iterations=ITERATIONS)
    other = tmp_path / "cohort"
    shutil.copytree(own, other)
    content = json.loads((other / "cohort.json").read_text())
    content["subjects"] = [subject for subject in content["subjects"] if subject["split"] != "validation"]
    content["counts"]["validation"] = {"patients": 0, "healthy": 0, "pathological": 0, "excluded": 0}
    (other / "cohort.json").write_text(json.dumps(content))
    judge = load_judge(other, iterations=ITERATIONS)
    assert len(kept(other)) == len(kept(own)) + 1
    assert judge.about["dice"]["validation"] is None


@pytest.mark.slow
def test_it_neither_uses_nor_changes_the_global_random_state(own: Path, tmp_path: Path) -> None:
    load_judge(own, iterations=ITERATIONS)
    for name, seed in (("a", 1), ("b", 2)):
        shutil.copytree(own, tmp_path / name, ignore=shutil.ignore_patterns("judge"))
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy(), random.getstate()  # noqa: NPY002
        load_judge(tmp_path / name, iterations=1)  # trains
        load_judge(tmp_path / name, iterations=1)  # loads
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state(legacy=False)["state"]["key"] == before[1]).all()  # noqa: NPY002
        assert random.getstate() == before[2]
    a, b = weights(tmp_path / "a", 1), weights(tmp_path / "b", 1)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    load_judge(own, iterations=ITERATIONS)
    killed = tmp_path / "cohort"
    shutil.copytree(own, killed, ignore=shutil.ignore_patterns("judge"))
    save = CheckpointSaver.save
    trained: list[int] = []

    def save_and_die(self: CheckpointSaver, engine: PlayerTrainer) -> None:
        save(self, engine)
        if engine.state.epoch == epoch:
            raise KeyboardInterrupt

    def save_and_count(self: CheckpointSaver, engine: PlayerTrainer) -> None:
        save(self, engine)
        trained.append(engine.state.epoch)

    monkeypatch.setattr(CheckpointSaver, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        load_judge(killed, iterations=ITERATIONS)
    (folder,) = kept(killed)
    assert not (folder / "judge.json").exists()
    monkeypatch.setattr(CheckpointSaver, "save", save_and_count)
    load_judge(killed, iterations=ITERATIONS)
    assert trained == list(range(epoch + 1, 3))
    expected, resumed = weights(own, ITERATIONS), weights(killed, ITERATIONS)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)
    assert sorted(path.name for path in folder.iterdir()) == ["judge.json", "model.pt"]


def without(*keys: str) -> Callable[[dict[str, Any]], str]:
    return lambda record: json.dumps({key: value for key, value in record.items() if key not in keys})


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: "",
        lambda record: json.dumps(record)[:-9],
        lambda record: "[]",
        without("dice"),
        without("network"),
        lambda record: json.dumps({**record, "dice": {}}),
        lambda record: json.dumps({**record, "dice": None}),
        lambda record: json.dumps({**record, "weights_sha256": "of others"}),
    ],
)
def test_with_a_damaged_record_it_is_trained_again(
    one_step: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], str]
) -> None:
    shutil.copytree(one_step, tmp_path / "cohort")
    (folder,) = kept(tmp_path / "cohort")
    record = json.loads((folder / "judge.json").read_text())
    (folder / "judge.json").write_text(spoil(record))
    assert load_judge(tmp_path / "cohort", iterations=1).about == record
    assert json.loads((folder / "judge.json").read_text()) == record


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_without_its_weights_it_is_trained_again(one_step: Path, tmp_path: Path, content: bytes | None) -> None:
    shutil.copytree(one_step, tmp_path / "cohort")
    (folder,) = kept(tmp_path / "cohort")
    (folder / "model.pt").unlink()
    if content is not None:
        (folder / "model.pt").write_bytes(content)
    expected = weights(one_step, 1)
    found = weights(tmp_path / "cohort", 1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("shape", "spacing_mm"), [((44, 52), (4.0, 4.0)), ((150, 101), (1.2, 2.0))])
def test_predictions_lie_on_the_slices_own_pixels(
    own: Path, shape: tuple[int, int], spacing_mm: tuple[float, float]
) -> None:
    judge = load_judge(own, iterations=ITERATIONS)
    found = judge.predict(torch.rand(2, 1, *shape), spacing_mm)
    assert (found.shape, found.dtype) == ((2, 1, *shape), torch.bool)


def test_many_slices_are_judged_as_each_by_itself(own: Path) -> None:
    judge = load_judge(own, iterations=ITERATIONS)
    volume = read_volume(own, pathological_subjects(own, "test")[0])
    many = volume.image[:1].repeat(17, 1, 1, 1) * torch.linspace(0.5, 1, 17)[:, None, None, None]
    alone = torch.cat([judge.predict(image[None], volume.spacing_mm) for image in many])
    assert (judge.predict(many, volume.spacing_mm) != alone).float().mean() < 1e-4


def test_a_cohort_without_a_lesion_in_training_is_refused(own: Path, tmp_path: Path) -> None:
    content = json.loads((own / "cohort.json").read_text())
    for subject in content["subjects"]:
        if subject["split"] == "training":
            subject["labels"] = ["healthy"] * len(subject["labels"])
    shutil.copytree(own / "images", tmp_path / "images")
    (tmp_path / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="no pathological slice in the training split"):
        load_judge(tmp_path, iterations=ITERATIONS)


def test_the_paper_s_judge_sees_the_finest_pixels_through_a_wider_network(own: Path) -> None:
    small = replace(SCALES["paper"], filters=4)
    judge = load_judge(own, iterations=1, scale=small)
    assert (judge.about["network"], judge.about["spacing_mm"]) == ("ResidualUNet(filters=4)", 4.0)
    assert judge.about["size"] == [48, 48]  # 38 × 48 pixels of 4 mm, rounded up to 16
    assert SCALES["paper"].name == "ResidualUNet(filters=64)"
    assert not SCALES["paper"].departure
    assert "full resolution" in SCALES["default"].departure
