"""A network on its own grid: the slices and sequences that it sees, batches, the inferer, and the way back."""

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference.network import GridNetwork
from pipeline.preprocessing.grid import Grid, VolumeGrid

MM = (3.0, 1.0, 1.0)


class Pick(nn.Module):
    """Answers with one of its input's channels."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, image: Tensor) -> Tensor:
        return image[:, self.channel : self.channel + 1]


class Window(nn.Module):
    """Remembers the sizes that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return image[:, :1]


def sequences(slices: int = 5, channels: int = 2) -> np.ndarray:
    """Each slice of each sequence has a value of its own: sequence + slice / 100."""
    values = np.arange(channels)[None] / 2 + np.arange(slices)[:, None] / 100
    return np.broadcast_to(values[..., None, None], (slices, channels, 32, 32)).astype(np.float32).copy()


def run(network: nn.Module, windowed: np.ndarray, grid: Grid | VolumeGrid | None = None, **options) -> np.ndarray:
    runner = GridNetwork(network, grid or Grid(1.0, (32, 32)), **options)
    made = [pixels for _, pixels in runner.on_pixels(windowed, MM)]
    return np.concatenate(made)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_every_slice_comes_once_and_in_order_whatever_the_batch(batch_size):
    windowed = sequences()
    runner = GridNetwork(Pick(0), Grid(1.0, (32, 32)), batch_size=batch_size)
    batches = [batch for batch, _ in runner.outputs(windowed, MM)]
    assert [index for batch in batches for index in batch] == list(range(5))
    assert max(map(len, batches)) <= batch_size
    np.testing.assert_allclose(run(Pick(1), windowed, batch_size=batch_size)[:, 0], windowed[:, 1])


def test_slices_that_are_asked_for_come_alone_with_their_own_neighbours():
    windowed, chosen = sequences(), np.array([True, False, False, True, False])
    runner = GridNetwork(Pick(2), Grid(1.0, (32, 32)), neighbours=1)
    ((batch, made),) = runner.on_pixels(windowed, MM, chosen=chosen)
    np.testing.assert_array_equal(batch, [0, 3])
    np.testing.assert_allclose(made[:, 0], windowed[[1, 4], 0])


@pytest.mark.parametrize("sequence", [0, 1])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_with_neighbours_a_network_that_picks_one_gets_that_slice_of_that_sequence(sequence, offset):
    windowed = sequences()
    made = run(Pick(5 * sequence + 2 + offset), windowed, neighbours=2, batch_size=2)
    expected = windowed[np.clip(np.arange(5) + offset, 0, 4), sequence]
    np.testing.assert_allclose(made[:, 0], expected)


@pytest.mark.parametrize("neighbours", [0, 1, 3])
def test_the_main_channel_is_the_slice_itself_of_the_first_sequence(neighbours):
    windowed = sequences()
    runner = GridNetwork(Pick(0), Grid(1.0, (32, 32)), neighbours=neighbours)
    shown = []
    for batch, main in runner.on_pixels(
        windowed, MM, lambda images, output: (shown.append(images.shape[1]), runner.main_channel(images))[1]
    ):
        np.testing.assert_allclose(main[:, 0], windowed[batch, 0])
    assert set(shown) == {2 * (2 * neighbours + 1)}


@pytest.mark.parametrize("spacing_mm", [1.0, 2.0, 0.7])
def test_what_a_network_leaves_as_it_is_comes_back_on_the_scan_s_pixels(spacing_mm):
    smooth = np.broadcast_to(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (3, 1, 40, 36)).copy()
    back = run(Pick(0), smooth, Grid(spacing_mm, (64, 64)))
    assert back.shape == smooth.shape
    np.testing.assert_allclose(back, smooth, atol=0.03)


def head(size: tuple[int, int], box: tuple[slice, slice], value: float = 0.5) -> np.ndarray:
    """Two slices of a field of view with a head in a box of it."""
    windowed = np.zeros((2, 1, *size), np.float32)
    windowed[(slice(None), slice(None), *box)] = value
    return windowed


HEADS = {
    "smaller than the canvas": head((20, 24), (slice(2, 18), slice(3, 20))),
    "in the middle of a larger field of view": head((80, 48), (slice(30, 50), slice(12, 36))),
    "at the edge of a larger field of view": head((80, 48), (slice(0, 24), slice(20, 48))),
    "larger than the canvas along one axis": head((80, 30), (slice(3, 77), slice(2, 28))),
    "larger than the canvas": head((90, 100), (slice(0, 90), slice(10, 97))),
    "nothing": head((80, 48), (slice(0, 0), slice(0, 0))),
}


@pytest.mark.parametrize("windowed", HEADS.values(), ids=HEADS)
def test_a_network_is_shown_its_own_canvas_whatever_the_field_of_view_and_all_of_the_head(windowed):
    network = Window()
    made = run(network, windowed)
    assert {size[2:] for size in network.seen} == {(32, 32)}
    np.testing.assert_allclose(made[windowed > 0], windowed[windowed > 0], atol=1e-6)


@pytest.mark.parametrize(
    ("case", "canvases"),
    [
        ("smaller than the canvas", 1),
        ("in the middle of a larger field of view", 1),
        ("at the edge of a larger field of view", 1),
        ("larger than the canvas along one axis", 4),
    ],
)
def test_more_canvases_than_one_are_computed_only_where_one_does_not_hold_the_head(case, canvases):
    network = Window()
    run(network, HEADS[case], batch_size=2)
    assert len(network.seen) == canvases


def test_canvases_that_overlap_fade_into_each_other_without_a_seam():
    class Number(nn.Module):
        """Answers with another number for each canvas."""

        calls = 0

        def forward(self, image: Tensor) -> Tensor:
            self.calls += 1
            return torch.full_like(image[:, :1], self.calls)

    made = run(Number(), HEADS["larger than the canvas along one axis"], batch_size=2)[0, 0, 3:77, 15]
    assert made[0] == 1
    assert made[-1] == 4
    assert np.diff(made).max() < 0.15  # 1 at a seam


def test_what_lies_beyond_every_canvas_has_the_value_that_is_asked_for():
    windowed = HEADS["in the middle of a larger field of view"]
    runner = GridNetwork(Pick(0), Grid(1.0, (32, 32)))
    ((_, made),) = runner.on_pixels(windowed, MM, beyond=-20.0)
    assert (made[:, :, :24] == -20).all()
    assert (made[:, :, 24:56, 8:40] >= 0).all()


@pytest.mark.parametrize(("spacing_mm", "tolerance"), [(None, 0.0), (2.0, 0.06), (1.0, 0.06)])
def test_a_volume_goes_to_its_grid_and_back(spacing_mm, tolerance):
    volume = np.broadcast_to(np.linspace(0, 1, 12, dtype=np.float32)[:, None, None, None], (12, 2, 20, 24)).copy()
    volume[:, 1] = 0.5
    network = Window()
    back = run(network, volume, VolumeGrid(spacing_mm))
    assert back.shape == (12, 1, 20, 24)
    np.testing.assert_allclose(back[:, 0], volume[:, 0], atol=tolerance)
    depth = {None: (12, 20, 24), 2.0: (18, 10, 12), 1.0: (36, 20, 24)}[spacing_mm]
    assert network.seen == [(1, 2, *depth)]


def test_the_inferer_that_is_given_runs_the_network():
    whole, windows = Window(), Window()
    volume = np.random.default_rng(0).random((16, 1, 24, 24), dtype=np.float32)
    run(whole, volume, VolumeGrid(), inferer=SimpleInferer())
    made = run(windows, volume, VolumeGrid(), inferer=SlidingWindowInferer(roi_size=(8, 16, 16), overlap=0.5))
    assert whole.seen == [(1, 1, 16, 24, 24)]
    assert {size[2:] for size in windows.seen} == {(8, 16, 16)}
    np.testing.assert_allclose(made, volume, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(value):
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full_like(image[:, :1], value)

    with pytest.raises(ScanError, match="NaN or infinite values, expected numbers"):
        run(Broken(), sequences())


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2.0}, {"batch_size": True}, {"neighbours": -1},
    {"neighbours": 17}, {"batch_size": 10**6}])  # fmt: skip
def test_counts_out_of_range_are_refused_by_name(options):
    (name,) = options
    with pytest.raises(UsageError, match=f"{name}: found"):
        GridNetwork(Pick(0), Grid(1.0, (32, 32)), **options)


@pytest.mark.parametrize("spacing_mm", [0.0, -1.0, 21.0, 0.05])
def test_a_volume_grid_has_a_spacing_that_a_scan_can_have(spacing_mm):
    with pytest.raises(ValueError, match=r"0\.1 to 20 mm"):
        VolumeGrid(spacing_mm)


class TestPrecision:
    """In bfloat16 a network multiplies in it; what it is given and gives stays float32."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.times = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.constant_(self.times.weight, 1 / 3)
            self.seen: list[tuple[torch.dtype, torch.dtype]] = []

        def forward(self, image: Tensor) -> Tensor:
            product: Tensor = self.times(image)
            self.seen.append((image.dtype, product.dtype))
            return product

    @pytest.mark.parametrize(("precision", "computed"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
    def test_what_it_computes_in_and_what_it_gives(self, precision, computed):
        network = self.Product()
        runner = GridNetwork(network, Grid(2.0, (32, 32)))
        assert runner.precision == "float32"
        runner.precision = precision
        made = np.concatenate([pixels for _, pixels in runner.on(Grid(1.0, (32, 32))).on_pixels(sequences(5, 1), MM)])
        assert network.seen == [(torch.float32, computed)] * 2
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, sequences(5, 1) / 3, rtol=1e-6 if precision == "float32" else 2**-7)
