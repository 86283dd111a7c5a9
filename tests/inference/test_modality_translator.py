"""A modality translator: the network's image on the scan's own grid, in the scan's window, and nothing of the scan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ScanError, UsageError
from pipeline.inference import Inputs, ModalityTranslator
from pipeline.networks import JohnsonGenerator, SourceTranslators
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.slab import Slab
from pipeline.preprocessing.window import WindowRule
from pipeline.scans import Scan

HIGH = 1000.0


class Inverted(nn.Module):
    """1 − x inside head or body, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        return self.factor * torch.where(image > 0.05, 1 - image, 0.0)


def networks(*sources: str, **generators: nn.Module) -> SourceTranslators:
    made = SourceTranslators(sources or ("MR",), filters=2, residual_blocks=1)
    for number, name in enumerate(made):
        made[name] = generators.get(name, Inverted(1.0 if number == 0 else 0.5))
    return made


def translator(network: nn.Module | None = None, **options) -> ModalityTranslator:
    options.setdefault("grid", Grid(1.0, (32, 32)))
    return ModalityTranslator(
        network or networks(), window=WindowRule(fixed=(0, HIGH)), target_modality="CT", **options
    )


def inverted(scan: Scan, factor: float = 1.0) -> np.ndarray:
    windowed = np.clip(scan.intensities() / HIGH, 0, 1)
    return HIGH * factor * np.where(windowed > 0.05, 1 - windowed, 0)


def test_the_image_lies_on_the_scan_s_grid_in_its_type_and_window(scan: Scan) -> None:
    result = translator()(Inputs(scan))
    (product,) = result.products
    assert (product.name, product.kind, product.heading) == ("translated", "image", "translated CT image")
    assert product.voxels.shape == scan.shape
    assert product.voxels.dtype == scan.stored.dtype
    made = product.voxels * scan.slope + scan.intercept
    # On slices without tissue it is not asked, and they are empty.
    asked = scan.axial(result.region).any(axis=(1, 2))
    np.testing.assert_allclose(scan.axial(made)[asked], scan.axial(inverted(scan))[asked], atol=1)
    assert not scan.axial(made)[~asked].any()


def test_nothing_of_the_scan_shines_through(scan: Scan) -> None:
    class Nothing(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.zeros_like(image)

    assert not translator(networks(MR=Nothing()))(Inputs(scan)).main.voxels.any()


def test_slices_that_the_network_has_not_seen_are_left_empty_and_told(scan: Scan) -> None:
    result = translator(slab=Slab(slices=2, thickness_mm=None))(Inputs(scan))
    filled = scan.axial(result.main.voxels).any(axis=(1, 2))
    assert np.flatnonzero(filled).tolist() == [4, 5]
    assert any("were left empty" in note for note in result.notes)


def test_values_beyond_the_window_are_clipped(scan: Scan) -> None:
    assert translator(networks(MR=Inverted(100.0)))(Inputs(scan)).main.voxels.max() * scan.slope <= HIGH


def test_the_generator_of_the_named_modality_is_run(scan: Scan) -> None:
    made = translator(networks("MR", "PET"))
    made.choose("PET")
    result = made(Inputs(scan))
    assert made.channels == ("PET",)
    assert made.settings["SourceModality"] == result.facts["SourceModality"] == "PET"
    asked = scan.axial(result.region).any(axis=(1, 2))
    np.testing.assert_allclose(
        scan.axial(result.main.voxels * scan.slope)[asked], scan.axial(inverted(scan, 0.5))[asked], atol=1
    )
    assert result.made == "The scan was translated from PET into CT"


def test_of_one_modality_none_need_be_named_and_of_several_one_must() -> None:
    translator().choose(None)
    with pytest.raises(UsageError, match=r"--source \(not given\): the bundle translates MR and PET into CT"):
        translator(networks("MR", "PET")).choose(None)
    with pytest.raises(UsageError, match="--source US: the bundle translates MR into CT, expected one of these"):
        translator().choose("US")


def test_scans_are_compared_with_those_of_their_own_modality() -> None:
    metadata = {
        "training_domain": {"of": "CT"},
        "source_domains": {"MR": {"of": "MR"}, "PET": {"of": "PET"}},
        "network_data_format": {"inputs": {"image": {"modality": "CT"}}},
        "translators_def_data_format": {"inputs": {"image": {}}},
        "references": ["a"],
    }
    made = translator(networks("MR", "PET"))
    made.choose("PET")
    about = made.trained_on(metadata)
    assert about["training_domain"] == {"of": "PET"}
    assert about["network_data_format"] == {"inputs": {"image": {}}}
    assert about["references"] == ["a"]
    assert made.trained_on({})["training_domain"] is None


def test_a_network_that_gives_no_numbers_is_told(scan: Scan) -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full_like(image, torch.nan)

    with pytest.raises(ScanError, match="NaN"):
        translator(networks(MR=Broken()))(Inputs(scan))


def test_a_scan_without_tissue_is_refused(scan: Scan) -> None:
    with pytest.raises(ScanError, match="nothing brighter than air"):
        translator()(Inputs(replace(scan, stored=np.zeros_like(scan.stored))))


@pytest.mark.parametrize("name", ["", "C T", "../CT", "<b>CT"])
def test_modalities_have_plain_names(name: str) -> None:
    with pytest.raises(UsageError, match="target_modality: found"):
        ModalityTranslator(networks(), Grid(1.0, (32, 32)), WindowRule(), target_modality=name)


def test_a_generator_without_its_channels_is_refused_and_one_for_each_source_with_them() -> None:
    with pytest.raises(UsageError, match="found a JohnsonGenerator, expected SourceTranslators without channels"):
        translator(JohnsonGenerator(filters=2, residual_blocks=1))
    with pytest.raises(UsageError, match="found a SourceTranslators, expected another generator with channels"):
        translator(channels=("MR",))


def test_one_generator_takes_several_sequences_together(scan: Scan) -> None:
    class Half(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=1, keepdim=True)

    made = translator(Half(), channels=("T1w", "T2w"))
    made.choose(None)
    dark = replace(scan, stored=np.zeros_like(scan.stored))
    result = made(Inputs(scan, channels={"T2w": dark}))
    assert result.facts == {"SourceModality": "T1w", "TargetModality": "CT"}
    assert set(made.networks) == {"network_def"}
    asked = scan.axial(result.region).any(axis=(1, 2))
    half = HIGH * np.clip(scan.intensities() / HIGH, 0, 1) / 2
    np.testing.assert_allclose(scan.axial(result.main.voxels * scan.slope)[asked], scan.axial(half)[asked], atol=1)
    with pytest.raises(ScanError, match="expected T2w"):
        made(Inputs(scan))


def test_scans_are_compared_with_those_of_the_first_sequence() -> None:
    metadata = {"source_domains": {"T1w": {"of": "T1w"}}, "network_data_format": {"inputs": {}}}
    about = translator(Inverted(), channels=("T1w", "mask")).trained_on(metadata)
    assert about["training_domain"] == {"of": "T1w"}
    assert about["network_data_format"] == {"inputs": {}}
