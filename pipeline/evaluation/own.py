"""What a translator's other networks make of a volume: its way back, and the segmentor that it was trained against."""

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.bundles import Bundle
from pipeline.evaluation.judge import Judge
from pipeline.evaluation.predictions import Fields
from pipeline.evaluation.probes import Steganography
from pipeline.evaluation.volumes import Volume
from pipeline.inference import Translator, load_export
from pipeline.inference.network import GridNetwork
from pipeline.inference.segmenter import NEVER

CYCLE, SEGMENTOR = "cycle", "segmentor"  # as methods call their exports


def own_networks(bundle: Bundle, trust: bool = False) -> dict[str, nn.Module]:
    """The exports of a run that an evaluation looks at beside the main one, by name, those that it has.

    Args:
        bundle: the run.
        trust: as for `pipeline.inference.load_predictor`.
    """
    found = {name: load_export(bundle, name, trust) for name in (CYCLE, SEGMENTOR)}
    return {name: network for name, network in found.items() if network is not None}


class OwnNetworks:
    """Shows a translator's other networks the slices of volumes.

    Args:
        translator: whose grid they work on.
        networks: of `own_networks`.
        judge: the evaluation segmentor, which looks for the lesion in the reconstructed scan; None to go without.
    """

    def __init__(self, translator: Translator, networks: Mapping[str, nn.Module], judge: Judge | None) -> None:
        self.steganography = Steganography(translator, networks[CYCLE]) if CYCLE in networks else None
        self.judge = judge
        self.device = translator.device
        self.segmentor: GridNetwork | None = None
        if SEGMENTOR in networks:
            its = translator.runner
            self.segmentor = GridNetwork(networks[SEGMENTOR], its.grid, its.device, its.inferer, its.batch_size)

    def fields(self, volume: Volume) -> Fields:
        """`reconstruction`, `found_again` and `own_found`, where there is a network for them."""
        made: Fields = {}
        if self.steganography is not None:
            made["reconstruction"] = self.steganography.reconstruction(volume).to(self.device)
            if self.judge is not None:
                made["found_again"] = self.judge.predict(made["reconstruction"], volume.spacing_mm)
        if self.segmentor is not None:
            logits = self.segmentor.on_pixels(volume.image.numpy(), volume.voxel_mm, beyond=NEVER)
            made["own_found"] = torch.cat([torch.from_numpy(part) > 0 for _, part in logits]).to(self.device)
        return made
