"""What margins around a found lesion do to the figures of validation patients."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.bundles import bundles_folder
from pipeline.networks import UNetSegmentor


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A segmenter that finds something: an untrained one whose logits lie around 0."""
    shutil.copytree(bundles_folder() / "unet_segmentation" / "configs", tmp_path / "run" / "configs")
    path = tmp_path / "run" / "configs" / "inference.json"
    settings = {"filters": 4, "spacing_mm": 4.0, "size": [64, 64], "slab_mm": None}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    torch.manual_seed(0)
    network = UNetSegmentor(filters=4)
    torch.nn.init.zeros_(network.unet.final_conv.bias)
    (tmp_path / "run" / "models").mkdir()
    torch.save(network.state_dict(), tmp_path / "run" / "models" / "model.pt")
    return tmp_path / "run"


@pytest.mark.slow
def test_a_wider_margin_leaves_less_tissue_as_it_was(
    phantom_cohort: Path, run: Path, script: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(phantom_cohort, tmp_path / "cohort")  # the judge is kept in it
    given = ("--grow", "0", "8", "--judge-iterations", "3")
    script("choose_grow.py", tmp_path / "cohort", "-b", f"{run}+harmonic", *given, "-o", tmp_path / "grow.md")
    header, _, *lines = (tmp_path / "grow.md").read_text().splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines}
    assert list(cells) == ["untouched", "from 0.1, 0 mm", "from 0.1, 8 mm"]
    assert header.count("|") == len(cells["from 0.1, 0 mm"]) + 2
    identical = [float(cells[label][-1]) for label in ("untouched", "from 0.1, 0 mm", "from 0.1, 8 mm")]
    assert identical[0] == 100
    assert identical[0] >= identical[1] >= identical[2]
