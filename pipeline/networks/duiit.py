"""The networks of DUIIT (Yang and Xie 2020, Section 4.2) that come once for each source modality: CycleGAN's."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pipeline.networks.cycle_gan import PatchGANDiscriminator
from pipeline.networks.johnson import JohnsonGenerator

# CycleGAN (Zhu et al. 2017, Section 7.1): 6 residual blocks for images of 128×128, 9 for 256×256 and larger.
LARGE, FEW_BLOCKS, MANY_BLOCKS = 256, 6, 9


def residual_blocks_for(size: Sequence[int]) -> int:
    """How many residual blocks CycleGAN's generator has for images of this height and width.

    >>> residual_blocks_for((128, 128)), residual_blocks_for((256, 256))
    (6, 9)
    """
    return MANY_BLOCKS if min(size) >= LARGE else FEW_BLOCKS


class SourceTranslators(nn.ModuleDict):
    """CycleGAN's generators between a target modality and several source modalities: one for each, by its name.

    Args:
        sources: names of the source modalities.
        size: height and width of the images.
        filters: F of each generator, see `JohnsonGenerator`.
        residual_blocks: of each generator; None: by the images' size, see `residual_blocks_for`.
        upsampling, output: as in `JohnsonGenerator`.

    Attributes:
        source: whose generator `forward` runs; the first one if nothing else is set.

    Raises:
        ValueError: if no source is named, or one twice.
    """

    output_type = "image"

    def __init__(
        self,
        sources: Sequence[str],
        size: Sequence[int] = (256, 256),
        filters: int = 64,
        residual_blocks: int | None = None,
        upsampling: str = "transposed",
        output: str = "image",
    ) -> None:
        blocks = residual_blocks_for(size) if residual_blocks is None else residual_blocks
        settings: dict[str, Any] = {"upsampling": upsampling, "output": output}
        _check(sources)
        super().__init__({name: JohnsonGenerator(1, 1, filters, blocks, **settings) for name in sources})
        self.source = sources[0]

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        """Translate images (B, 1, H, W) in [0, 1]; H and W divisible by 4, at least 8."""
        translated: Tensor = self[self.source](image)
        return translated


class SourceDiscriminators(nn.ModuleDict):
    """70×70 PatchGANs that tell real from translated images of several source modalities: one for each, by its name.

    Args:
        sources: names of the source modalities.
        filters: F of each, see `PatchGANDiscriminator`.

    Raises:
        ValueError: if no source is named, or one twice.
    """

    def __init__(self, sources: Sequence[str], filters: int = 64) -> None:
        _check(sources)
        super().__init__({name: PatchGANDiscriminator(filters) for name in sources})


def _check(sources: Sequence[str]) -> None:
    if isinstance(sources, str) or not sources or len(set(sources)) < len(sources):
        raise ValueError(f"sources are different names of modalities, at least one, found {sources!r}")
