"""What the probes count: structures that appear or vanish, and a way back that reads hidden codes."""

import json

import pytest
import torch
from torch import Tensor, nn

from pipeline.evaluation.probes import BITS, Hallucination, Steganography
from pipeline.evaluation.volumes import Volume
from pipeline.inference import Translator
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule


def volume(lesion: tuple[slice, slice] | None = None, slices: int = 1, spacing_mm: float = 2.0) -> Volume:
    """Grey tissue of 0.5 that fills a square of 48 pixels in 64."""
    image = torch.zeros(slices, 1, 64, 64)
    image[:, :, 8:56, 8:56] = 0.5
    mask = torch.zeros(slices, 1, 64, 64, dtype=torch.bool)
    if lesion:
        mask[:, :, lesion[0], lesion[1]] = True
    return Volume("s", "s", (spacing_mm, spacing_mm), list(range(slices)), image, mask, image > 0, None)


def test_regions_that_became_brighter_appeared_and_darker_ones_vanished() -> None:
    healthy = volume()
    image = healthy.image.clone()
    image[:, :, 10:14, 10:14] += 0.2  # 16 pixels of 4 mm²
    image[:, :, 20:24, 20:24] -= 0.2
    image[:, :, 30:34, 30:34] -= 0.3
    probe = Hallucination()
    probe.add("healthy_slices", healthy, image)
    found = probe.summary()["healthy_slices"]
    assert (found["appeared_per_slice"], found["vanished_per_slice"]) == (1, 2)
    assert found["changed_share"] == pytest.approx(3 * 16 / 48**2)


@pytest.mark.parametrize(
    ("change", "side", "counted"),
    [(0.2, 3, True), (0.2, 2, False), (0.05, 10, False)],
    ids=["36 mm²", "a speck of 16 mm²", "too faint"],
)
def test_faint_changes_and_specks_are_no_structures(change: float, side: int, counted: bool) -> None:
    healthy = volume()
    image = healthy.image.clone()
    image[:, :, 20 : 20 + side, 20 : 20 + side] += change
    probe = Hallucination()
    probe.add("healthy_slices", healthy, image)
    assert probe.summary()["healthy_slices"]["appeared_per_slice"] == counted


def test_the_lesion_and_its_margin_may_change_and_air_does_not_count() -> None:
    pathological = volume((slice(20, 28), slice(20, 28)))
    image = pathological.image.clone()
    image[:, :, 18:30, 18:30] -= 0.4  # two pixels, 4 mm, beyond the lesion
    image[:, :, :6, :6] = 1.0
    probe = Hallucination()
    probe.add("outside_lesion", pathological, image)
    assert probe.summary()["outside_lesion"]["vanished_per_slice"] == 0
    assert probe.summary()["outside_lesion"]["appeared_per_slice"] == 0
    image[:, :, 40:44, 40:44] -= 0.4
    probe.add("outside_lesion", pathological, image)
    assert probe.summary()["outside_lesion"]["vanished_per_slice"] == 0.5


def test_a_domain_without_slices_has_no_numbers() -> None:
    assert Hallucination().summary()["healthy_slices"] is None


class Hides(nn.Module):
    """Shows grey, and hides the image in the last thousandth."""

    def forward(self, image: Tensor) -> Tensor:
        return 0.5 + image / 1000


class ReadsHidden(nn.Module):
    def forward(self, pseudo_healthy: Tensor, image: Tensor) -> Tensor:
        del image
        return (pseudo_healthy - 0.5) * 1000


class Copies(nn.Module):
    def forward(self, pseudo_healthy: Tensor, image: Tensor) -> Tensor:
        del image
        return pseudo_healthy


def ramp() -> Volume:
    grey = volume(slices=3)
    return Volume("s", "s", (2.0, 2.0), [0, 1, 2], torch.rand(3, 1, 64, 64), grey.lesion, grey.foreground, None)


def probe_of(network: nn.Module, cycle: nn.Module) -> Steganography:
    return Steganography(Translator(network, Grid(2.0, (64, 64)), WindowRule(), batch_size=2), cycle)


def probed(network: nn.Module, cycle: nn.Module) -> dict[str, object]:
    probe = probe_of(network, cycle)
    probe.add(ramp())
    return probe.summary()


def test_a_way_back_that_reads_a_hidden_code_breaks_under_quantisation() -> None:
    torch.manual_seed(0)
    found = probed(Hides(), ReadsHidden())
    assert found["cycle_error"] == pytest.approx(0, abs=1e-4)
    assert all(row["amplification"] > 100 for row in found["quantised"])


def test_a_way_back_from_what_is_seen_hands_the_noise_on_as_it_is() -> None:
    torch.manual_seed(0)
    found = probed(nn.Identity(), Copies())
    assert [row["bits"] for row in found["quantised"]] == list(BITS)
    for row in found["quantised"]:
        # Rounding to 2^b − 1 steps is off by a quarter of a step on average.
        assert row["noise"] == pytest.approx(0.25 / (2 ** row["bits"] - 1), rel=0.05)
        assert row["amplification"] == pytest.approx(1, abs=1e-3)


def test_what_two_shares_counted_joins_to_what_one_run_counts() -> None:
    torch.manual_seed(0)
    first, second, whole, joined = (probe_of(nn.Identity(), Copies()) for _ in range(4))
    for share in (first, second):
        slices = ramp()
        share.add(slices)
        whole.add(slices)
        joined.join(json.loads(json.dumps(share.sums())))
    assert joined.summary() == whole.summary()

    counters = [Hallucination() for _ in range(3)]
    for counter, change in ((counters[0], 0.2), (counters[1], -0.2)):
        changed = volume(slices=2)
        image = changed.image.clone()
        image[:, :, 10:14, 10:14] += change
        for each in (counter, counters[2]):
            each.add("healthy_slices", changed, image)
    counters[0].join(json.loads(json.dumps(counters[1].counts)))
    assert counters[0].summary() == counters[2].summary()
    assert counters[2].summary()["healthy_slices"]["vanished_per_slice"] == 0.5
