"""A method's own networks, shown the slices of a volume: the way back, and the segmentor it was trained against."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.evaluation import Judge, Settings
from pipeline.evaluation.own import OwnNetworks
from pipeline.evaluation.volumes import Volume
from pipeline.inference import Translator
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.window import WindowRule
from pipeline.reports.cohort_evaluation import evaluate_and_report

GRID = Grid(2.0, (64, 64))


class Darker(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image - 0.1


class Brighter(nn.Module):
    """Finds lesion where it is brighter than a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, image: Tensor) -> Tensor:
        return image - self.limit


class TakesBack(nn.Module):
    """The way back of `Darker`, with a lesion at another place."""

    def forward(self, pseudo_healthy: Tensor, image: Tensor) -> Tensor:
        del image
        made = pseudo_healthy + 0.1
        made[..., 40:50, 40:50] = 0.95
        return made


@pytest.fixture
def volume() -> Volume:
    image = torch.full((3, 1, 64, 64), 0.5)
    lesion = torch.zeros_like(image, dtype=torch.bool)
    lesion[..., 10:20, 10:20] = True
    image[lesion] = 0.8
    inside = torch.ones_like(lesion)
    inside[..., :5] = False
    image[~inside] = 0
    return Volume("s", "s", (2.0, 2.0), [0, 1, 2], image, lesion, inside, None)


def own(**networks: nn.Module) -> OwnNetworks:
    judge = Judge(Brighter(0.9), GRID, torch.device("cpu"), {})
    return OwnNetworks(Translator(Darker(), GRID, WindowRule(), batch_size=2), networks, judge)


def test_the_reconstruction_is_what_comes_back_and_the_judge_looks_for_its_lesion(volume: Volume) -> None:
    fields = own(cycle=TakesBack()).fields(volume)
    expected = volume.image.clone()
    expected[..., 40:50, 40:50] = 0.95
    assert torch.allclose(fields["reconstruction"], expected, atol=1e-6)
    assert torch.equal(fields["found_again"], expected > 0.9)
    assert set(fields) == {"reconstruction", "found_again"}


def test_its_own_segmentor_looks_at_the_scan_itself(volume: Volume) -> None:
    fields = own(segmentor=Brighter(0.75)).fields(volume)
    assert set(fields) == {"own_found"}
    assert torch.equal(fields["own_found"], volume.lesion)  # in the darker twin there would be none


def test_a_method_without_them_adds_nothing(volume: Volume) -> None:
    assert own().fields(volume) == {}


@pytest.mark.slow
def test_the_report_gives_them_to_the_method_alone_and_shows_the_reconstruction(cohort: Path, tmp_path: Path) -> None:
    translator = Translator(nn.Identity(), Grid(4.0, (48, 64)), WindowRule())

    class Back(nn.Module):
        def forward(self, pseudo_healthy: Tensor, image: Tensor) -> Tensor:
            del image
            return pseudo_healthy

    networks = {"cycle": Back(), "segmentor": Brighter(2.0)}
    settings = Settings("nothing", judge_iterations=2)
    evaluation = evaluate_and_report(translator, cohort, tmp_path, settings, own_networks=networks)
    methods = json.loads((tmp_path / "summary.json").read_text())["methods"]
    names = ("own_dice", "psnr_reconstruction", "dice_reconstruction")
    assert [methods["untouched input"]["metrics"][name]["n"] for name in names] == [0, 0, 0]
    found = methods["nothing"]["metrics"]
    assert (found["own_dice"]["mean"], found["own_dice"]["n"]) == (0, 3)  # it finds nothing
    assert found["psnr_reconstruction"]["identical"] == 3
    page = (tmp_path / "report.md").read_text()
    assert "| Dice of its own segmentor ↑ | 0.000 ± 0.000 (3) | – |" in page
    assert "PHS-GAN, Fig. 2" in page
    assert all(case.reconstruction is not None for case in evaluation.cases)
    (ranked,) = {m["ranked"] for m in evaluation.summary["metrics"] if m["name"] in names}
    assert not ranked  # they stand beside the methods' figures and rank none
