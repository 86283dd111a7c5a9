"""A pyramid of generators, each of which adds to an enlarged image what the enlargement lacks (Denton et al. 2015).

I_k: image at level k, I_0 the finest; d(·) halves the side, u(·) doubles it; l_k = u(I_{k+1}); h_k = I_k − l_k, the
difference image of the Laplacian pyramid. Survey, Section 2.4.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.blocks import LEAK
from pipeline.networks.dcgan import MLPDiscriminator, MLPGenerator


def halved(images: Float[Tensor, "batch channel _ _"]) -> Float[Tensor, "batch channel _ _"]:
    """d(I): means of 2×2 pixels."""
    return functional.avg_pool2d(images, 2)


def doubled(images: Float[Tensor, "batch channel _ _"]) -> Float[Tensor, "batch channel _ _"]:
    """u(I): bilinear."""
    # type: (Tensor) -> Tensor
    return functional.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)


class DifferenceGenerator(nn.Module):
    """G_k: the difference image h_k for an enlarged image l_k and noise: three 5×5 convolutions, ReLU between.

    The noise is a further channel beside l_k. In the paper each of its pixels is drawn; here a linear layer lays a few
    numbers out over the image, so that all levels together take a latent as short as any generator's.

    Args:
        latent: numbers of noise.
        size: of the level's images.
        filters: of the two inner layers.
    """

    def __init__(self, latent: int, size: Sequence[int], filters: int = 32) -> None:
        super().__init__()
        half = (size[0] // 2, size[1] // 2)
        self.plane = nn.Sequential(
            nn.Linear(latent, math.prod(half)), nn.Unflatten(1, (1, *half)), nn.Upsample(scale_factor=2)
        )
        self.layers = nn.Sequential(
            nn.Conv2d(2, filters, 5, padding=2), nn.ReLU(inplace=True),
            nn.Conv2d(filters, filters, 5, padding=2), nn.ReLU(inplace=True),
            nn.Conv2d(filters, 1, 5, padding=2),
        )  # fmt: skip

    def forward(
        self, enlarged: Float[Tensor, "batch 1 height width"], noise: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """h_k, unbounded, for l_k (B, 1, H, W) in [0, 1] and noise (B, latent) ~ N(0, I)."""
        # type: (Tensor, Tensor) -> Tensor
        difference: Tensor = self.layers(torch.cat((2 * enlarged - 1, self.plane(noise)), dim=1))
        return difference


class DifferenceDiscriminator(nn.Module):
    """D_k: whether h_k belongs to l_k. It looks at their sum, as in the paper (Section 3.2), and at l_k beside it.

    Args:
        size: of the level's images.
        filters: of the first layer; the second has twice as many.
    """

    def __init__(self, size: Sequence[int], filters: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, filters, 5, stride=2, padding=2), nn.LeakyReLU(LEAK, inplace=True),
            nn.Conv2d(filters, 2 * filters, 5, stride=2, padding=2), nn.LeakyReLU(LEAK, inplace=True),
            nn.Flatten(), nn.Linear(2 * filters * math.prod(-(-side // 4) for side in size), 1),
        )  # fmt: skip

    def forward(
        self, difference: Float[Tensor, "batch 1 height width"], enlarged: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1"]:
        """One score a sample, shape (B, 1)."""
        scores: Tensor = self.layers(2 * torch.cat((enlarged + difference, enlarged), dim=1) - 1)
        return scores


class LaplacianGenerator(nn.Module):
    """The whole pyramid: an image of few pixels from a perceptron, as in the paper, then level after level its details.

    Args:
        latent: numbers of noise, of which each level has as many.
        size: of the finest images (H, W).
        levels: K, how often the image is doubled.
        filters: of each G_k.
        coarsest_filters: of the perceptron G_K.

    Attributes:
        parts: numbers of noise for G_K, G_{K−1}, …, G_0.

    Raises:
        ValueError: if a level is left without noise, or a side cannot be halved so often.
    """

    output_type = "image"

    def __init__(
        self,
        latent: int = 100,
        size: Sequence[int] = (64, 64),
        levels: int = 3,
        filters: int = 32,
        coarsest_filters: int = 512,
    ) -> None:
        super().__init__()
        sizes = pyramid_sizes(size, levels)
        if latent <= levels:
            raise ValueError(f"latent is {latent}, expected at least one number for each of {levels + 1} images")
        self.parts = [len(part) for part in torch.arange(latent).tensor_split(levels + 1)]
        self.coarsest = MLPGenerator(self.parts[0], sizes[0], coarsest_filters)
        self.levels = nn.ModuleList(
            DifferenceGenerator(part, each, filters) for part, each in zip(self.parts[1:], sizes[1:], strict=True)
        )

    def forward(self, noise: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch 1 height width"]:
        """Noise (B, latent) of N(0, I) to images (B, 1, H, W), clipped to [0, 1]."""
        # type: (Tensor) -> Tensor
        parts = noise.split(self.parts, dim=1)
        image: Tensor = self.coarsest(parts[0])
        for number, level in enumerate(self.levels, 1):
            enlarged = doubled(image)
            image = enlarged + level(enlarged, parts[number])
        # No player sees this sum, so clipping takes no gradient away.
        return image.clamp(0, 1)


class LaplacianDiscriminator(nn.Module):
    """D_K for the coarsest images, a perceptron too, and a D_k for each level above.

    Args:
        size: of the finest images.
        levels: K.
        filters: of each D_k.
        coarsest_filters: of D_K.
    """

    def __init__(
        self, size: Sequence[int] = (64, 64), levels: int = 3, filters: int = 32, coarsest_filters: int = 512
    ) -> None:
        super().__init__()
        sizes = pyramid_sizes(size, levels)
        self.coarsest = MLPDiscriminator(sizes[0], coarsest_filters)
        self.levels = nn.ModuleList(DifferenceDiscriminator(each, filters) for each in sizes[1:])

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1"]:
        """The mean of what all levels make of images (B, 1, H, W), shape (B, 1)."""
        coarse, pairs = taken_apart(image, len(self.levels))
        scores = [self.coarsest(coarse), *(D(*pair) for D, pair in zip(self.levels, pairs, strict=True))]
        return torch.stack(scores).mean(dim=0)


def pyramid_sizes(size: Sequence[int], levels: int) -> list[tuple[int, int]]:
    """Sizes of the levels, from the coarsest on.

    Raises:
        ValueError: if a side cannot be halved so often.
    """
    if levels < 1 or any(side % 2**levels or side >> levels < 2 for side in size):
        raise ValueError(
            f"size {'×'.join(map(str, size))}, levels {levels}: expected at least 1 level, and sides that can be "
            "halved once for each to at least 2 pixels"
        )
    return [(size[0] >> level, size[1] >> level) for level in range(levels, -1, -1)]


def taken_apart(
    images: Float[Tensor, "batch 1 height width"], levels: int
) -> tuple[Float[Tensor, "batch 1 _ _"], list[tuple[Tensor, Tensor]]]:
    """Real images as a pyramid of so many levels: I_K, and (h_k, l_k) from the coarsest of them on."""
    pyramid = [images]
    for _ in range(levels):
        pyramid.append(halved(pyramid[-1]))
    enlarged = [doubled(coarse) for coarse in pyramid[:0:-1]]
    return pyramid[-1], [(I - l, l) for I, l in zip(pyramid[-2::-1], enlarged, strict=True)]  # noqa: E741
