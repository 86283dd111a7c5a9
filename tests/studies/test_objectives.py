"""Collapse on the mixture and on digits, and the gradient that a perfect discriminator leaves (survey, Section 2.1)."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.phantoms.cluttered import scikit_digits
from pipeline.studies import mixture
from pipeline.studies import objectives as study_of
from pipeline.studies.digits import digit_coverage, digit_sets
from pipeline.studies.feature_network import FeatureNetwork
from pipeline.studies.objectives import ARMS, REAL, saturation

# Not the study of the same name, which the package exports.
ROOM = importlib.import_module("pipeline.studies.objectives")


def test_points_of_the_mixture_cover_its_modes() -> None:
    found = mixture.coverage(mixture.MixtureDataset(4000, seed=3).points)
    assert found["modes"] == mixture.MODES
    # Of a Gaussian in two dimensions, exp(−9/2) lies beyond three deviations.
    assert found["on_modes"] == pytest.approx(1 - np.exp(-4.5), abs=0.006)


@pytest.mark.parametrize(
    ("points", "modes", "on_modes"),
    [
        (mixture.centres()[:1].expand(100, 2), 1, 1.0),
        (torch.zeros(100, 2), 0, 0.0),
        # A mode with 2 of 160 points has a tenth of its fair share of 20, one with 1 has less.
        (mixture.centres()[torch.tensor([0] * 157 + [1] * 2 + [2])], 2, 1.0),
    ],
)
def test_collapse_is_counted(points: torch.Tensor, modes: int, on_modes: float) -> None:
    assert mixture.coverage(points) == {"modes": modes, "on_modes": on_modes}


def test_digits_are_counted_where_the_network_is_sure() -> None:
    def read(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Surely the digit that a picture's first pixel says, but for 9, of which it knows nothing."""
        digit = (10 * images[:, 0, 0, 0]).round().long()
        logits = 20 * torch.nn.functional.one_hot(digit, 10).float()
        logits[digit == 9] = 0
        return images.flatten(1)[:, :4], logits

    network = FeatureNetwork("told", read, torch.device("cpu"))
    images = torch.zeros(40, 1, 8, 8)
    images[:, 0, 0, 0] = torch.tensor([0.3] * 20 + [0.5] * 10 + [0.9] * 10)
    found = digit_coverage(network, images, images)
    assert (found["digits"], found["sure"]) == (2, 0.75)
    assert found["fid"] == pytest.approx(0, abs=1e-4)


def test_digits_are_held_out_from_those_that_train(tmp_path: Path) -> None:
    training, held_out = digit_sets(None)
    assert len(training) + len(held_out) == 1797
    assert training[0]["image"].shape == (1, 32, 32)
    assert {float(training[index]["target"]) for index in range(200)} == set(range(10))
    seen = {image.numpy().tobytes() for image in training.images}
    assert np.mean([image.numpy().tobytes() in seen for image in held_out.images]) < 0.05


def test_eq_1_saturates_where_eq_2_and_the_penalised_critic_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey's Fig. 2, measured: the gradient of the generator against a discriminator that is nearly perfect."""
    monkeypatch.setattr(ROOM, "LOOKS", (0, 200))
    gan, alternative, penalised = (saturation(name, 0) for name in ("gan", "non_saturating", "wasserstein_gp"))
    assert all(found["auroc"] > 0.99 for found in (gan, alternative, penalised))
    assert gan["perfect"] < gan["start"] / 4
    assert alternative["perfect"] > 4 * alternative["start"]
    assert penalised["perfect"] == pytest.approx(1, abs=0.3)  # which is what the penalty is for
    assert [point["steps"] for point in gan["curve"]] == [0, 200]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three arms, of a few steps."""
    folder = tmp_path_factory.mktemp("objectives")
    digits = scikit_digits()
    np.savez(folder / "digits.npz", images=digits.images[:80], labels=digits.labels[:80])
    with pytest.MonkeyPatch.context() as patch:
        arms = {name: ARMS[name] for name in ("GAN", "WGAN-GP", "GAN-MA, unrolled")}
        patch.setattr(ROOM, "ARMS", arms)
        patch.setattr(ROOM, "PLAIN", {"GAN": ARMS["GAN"]})
        patch.setattr(ROOM, "LOOKS", (0, 1))
        patch.setattr(ROOM, "MIXTURE_POINTS", 128)
        patch.setattr(ROOM, "DRAWN", 20)
        patch.setattr("pipeline.studies.digits.CLASSIFIER_ITERATIONS", 1)
        for _ in range(2):  # the second finds all of it there
            study_of(folder / "study", 2, 1, 1, folder / "digits.npz", "cpu")
    return folder / "study"


def test_each_arm_has_a_row_beside_what_real_ones_reach(folder: Path) -> None:
    table = json.loads((folder / "summary.json").read_text())["table"]
    assert [row["arm"] for row in table] == ["GAN", "WGAN-GP", "GAN-MA, unrolled", REAL]
    for row in table:
        assert 0 <= row["modes"] <= 8
        assert 0 <= row["digits"] <= 10
        assert row["fid"] >= 0
    assert table[-1]["modes"] >= 5  # of 20 points
    assert [row["perfect"] is None for row in table] == [False, True, True, True]
    for name in ("table.md", "table.csv", "plot.png", "mixture.png", "digits.png"):
        assert (folder / name).is_file()


def test_a_critic_takes_five_steps_for_each_of_its_generator(folder: Path) -> None:
    steps = {
        name: json.loads((folder / "runs" / f"mixture_{name}_seed=0" / "trained.json").read_text())["epochs"]
        for name in ("GAN", "WGAN-GP")
    }
    assert steps == {"GAN": 2, "WGAN-GP": 10}
