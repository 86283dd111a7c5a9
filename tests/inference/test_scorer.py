"""A scorer's number is the mean over a scan's slices; a classifier's, the mean of their probabilities."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Inputs, Scorer
from pipeline.preprocessing.foreground import foreground
from pipeline.preprocessing.grid import Grid, VolumeGrid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan
from pipeline.training.held_out import HeldOut

HIGH = 1000.0


class Mean(nn.Module):
    """100 times the mean of a channel."""

    def __init__(self, channel: int = 0) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, image: Tensor) -> Tensor:
        return 100 * image[:, self.channel].flatten(1).mean(dim=1, keepdim=True)


class Logits(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        mean = image.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(mean), 10 * mean, -mean], dim=1)


def scorer(network: nn.Module | None = None, **options) -> Scorer:
    grid = options.pop("grid", Grid(1.0, (32, 32)))
    return Scorer(
        network or Mean(), grid, WindowRule(fixed=(0, HIGH)), **{"target": "age", "units": "years", **options}
    )


def by_slice(scan: Scan) -> np.ndarray:
    """What `Mean` answers for each slice with tissue, on a canvas of 32×32."""
    windowed = np.clip(scan.axial(scan.intensities()) / HIGH, 0, 1).astype(np.float32)
    tissue = foreground(windowed).any(axis=(1, 2))
    return 100 * windowed[tissue].sum(axis=(1, 2)) / 32**2


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_number_is_the_mean_over_the_slices_with_tissue_whatever_the_batch(scan: Scan, batch_size: int) -> None:
    result = scorer(batch_size=batch_size)(Inputs(scan))
    (product,) = result.products
    assert (product.name, product.kind, product.units) == ("age", "number", "years")
    assert product.value == pytest.approx(by_slice(scan).mean(), rel=1e-4)
    assert result.facts["Slices"] == len(by_slice(scan))
    assert f"deviate by {by_slice(scan).std():.3g}" in product.meaning


def test_the_figure_of_the_page_and_the_index_is_the_product_itself(scan: Scan) -> None:
    result = scorer()(Inputs(scan))
    (figure,) = result.figures
    assert (figure.name, figure.value, figure.units) == ("age", result.main.value, "years")
    assert figure.leading


def test_the_slab_of_the_training_alone_is_scored(scan: Scan) -> None:
    result = scorer(slab=Slab(slices=2, thickness_mm=None))(Inputs(scan))
    windowed = np.clip(scan.axial(scan.intensities()) / HIGH, 0, 1)
    assert result.main.value == pytest.approx(100 * windowed[4:6].sum() / 2 / 32**2, rel=1e-4)
    assert result.facts["Slices"] == 2
    assert scan.axial(result.region).any(axis=(1, 2)).sum() == 2
    assert any("were left alone" in note for note in result.notes)


def test_classes_get_the_mean_of_their_probabilities_which_add_up_to_one(scan: Scan) -> None:
    classes = ("healthy", "glioma", "stroke")
    result = scorer(Logits(), classes=classes)(Inputs(scan))
    assert [product.name for product in result.products] == list(classes)
    assert all(product.units == "1" and product.title.startswith("probability of") for product in result.products)
    means = by_slice(scan) / 100
    logits = np.stack([np.zeros_like(means), 10 * means, -means], axis=1)
    expected = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose([product.value for product in result.products], expected, rtol=1e-3)
    assert sum(product.value for product in result.products) == pytest.approx(1)


def test_several_sequences_are_seen_in_the_config_s_order(scan: Scan) -> None:
    other = replace(scan, stored=(scan.stored // 2).astype(np.int16))
    two = scorer(Mean(channel=1), channels=("FLAIR", "T1w"))
    alone = scorer()(Inputs(other)).main.value
    assert two(Inputs(scan, channels={"T1w": other})).main.value == pytest.approx(alone, rel=1e-3)
    with pytest.raises(ScanError, match="--channel T1w=FILE"):
        two(Inputs(scan))


def test_a_network_of_volumes_gives_one_answer_without_a_spread(scan: Scan) -> None:
    result = scorer(grid=VolumeGrid())(Inputs(scan))
    windowed = np.clip(scan.axial(scan.intensities()) / HIGH, 0, 1)
    tissue = foreground(windowed.astype(np.float32)).any(axis=(1, 2))
    assert result.main.value == pytest.approx(100 * windowed[tissue].mean(), rel=1e-3)
    assert "deviate" not in result.main.meaning


def test_the_inferer_that_is_given_runs_the_network(scan: Scan) -> None:
    class Counts(SlidingWindowInferer):
        calls = 0

        def __call__(self, inputs, network, *args, **kwargs):
            Counts.calls += 1
            return network(inputs)

    scorer(inferer=Counts(roi_size=(16, 16)), batch_size=3)(Inputs(scan))
    assert Counts.calls == -(-len(by_slice(scan)) // 3)


@pytest.mark.parametrize("target", ["", "age (years)", "../age", "2nd"])
def test_a_target_s_name_that_cannot_be_a_file_s_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="expected a name of letters, digits and _"):
        scorer(target=target)


def test_a_network_that_gives_no_numbers_is_refused(scan: Scan) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full((len(image), 1), float("nan"))

    with pytest.raises(ScanError, match="NaN or infinite"):
        scorer(Broken())(Inputs(scan))


def test_the_error_on_held_out_patients_stands_beside_the_answer(scan: Scan) -> None:
    numbers, classes = scorer(), scorer(Logits(), classes=("healthy", "glioma", "stroke"))
    numbers.held_out = HeldOut(split="validation", patients=1, scans=2, mean_absolute_error=3.25)
    classes.held_out = HeldOut(split="test", patients=7, scans=9, accuracy=0.5)
    _, error = numbers(Inputs(scan)).figures
    assert (error.name, error.value, error.units) == ("HeldOutError", 3.25, "years")
    assert error.detail == "on 1 held-out patient (validation)"
    *_, right = classes(Inputs(scan)).figures
    assert (right.name, right.value, right.units) == ("HeldOutAccuracy", 50, "%")
    assert right.detail == "of scans of 7 held-out patients (test)"


def test_that_it_is_not_known_is_a_note(scan: Scan) -> None:
    made = scorer()
    assert sum("patients that it was not trained on" in note for note in made(Inputs(scan)).notes) == 1
    made.held_out = HeldOut(split="validation", patients=1, scans=1, mean_absolute_error=3.25)
    assert not any("patients that it was not trained on" in note for note in made(Inputs(scan)).notes)
