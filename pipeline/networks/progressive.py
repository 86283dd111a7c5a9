"""Generator and discriminator that grow from a few pixels to the whole image (Karras et al. 2018; survey, Section 2.4).

Both hold all resolutions from the start, and a number that says how far they have grown: g = 0 is the coarsest, 1 the
next, and between two of them the finer one is faded in (Fig. 2 of the paper). Images keep the size of the finest: a
coarser generator's are enlarged, and a coarser discriminator reduces them again; what trains them need not know.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.blocks import LEAK
from pipeline.networks.dcgan import Condition, code_channels, seen_channels


class EqualisedConv2d(nn.Conv2d):
    """A convolution whose weights ~ N(0, 1) are scaled as they are used, not as they start (Section 4.1).

    So Adam, which moves each weight by as much whatever its scale, gives all layers the same speed of learning.

    Args:
        channels: in.
        out_channels: out.
        kernel: side of the kernel.
        padding: as of `torch.nn.Conv2d`.
        gain: √2 is He's, for what a rectifier follows.
    """

    def __init__(
        self, channels: int, out_channels: int, kernel: int, padding: int = 0, gain: float = math.sqrt(2)
    ) -> None:
        super().__init__(channels, out_channels, kernel, padding=padding)
        self.scale = gain / math.sqrt(channels * kernel**2)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]  # there is one

    def forward(self, features: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """Shape (B, channels, H, W) to (B, out_channels, …)."""
        # type: (Tensor) -> Tensor
        made: Tensor = self._conv_forward(features, self.weight * self.scale, self.bias)
        return made


class PixelNorm(nn.Module):
    """Each pixel's feature vector, brought to a mean square of 1 (Section 4.2): it learns nothing."""

    def forward(self, features: Float[Tensor, "batch channel _ _"]) -> Float[Tensor, "batch channel _ _"]:
        """Shape (B, C, H, W) to the same."""
        # type: (Tensor) -> Tensor
        return features * (features.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MinibatchDeviation(nn.Module):
    """One more channel, which says how much the samples of a batch differ (Section 3).

    The standard deviation over the batch, averaged over channels and pixels: a batch of one kind gives itself away.
    """

    def forward(self, features: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch _ h w"]:
        """Shape (B, C, H, W) to (B, C + 1, H, W)."""
        deviation = (features.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        return torch.cat((features, deviation.expand(len(features), 1, *features.shape[2:])), dim=1)


class Growing(nn.Module):
    """What both networks share: resolutions, and how far they have grown.

    Args:
        size: of the finest images.
        filters: channels at each resolution from coarse to fine; each next one has twice as many pixels a side.

    Raises:
        ValueError: if a side cannot be halved so often.
    """

    grown: Tensor

    def __init__(self, size: Sequence[int], filters: Sequence[int]) -> None:
        super().__init__()
        self.finest = len(filters) - 1
        if len(filters) < 2 or any(side % 2**self.finest or side < 2 ** (self.finest + 1) for side in size):
            raise ValueError(
                f"size {'×'.join(map(str, size))} and {len(filters)} filters: expected at least 2 resolutions, and "
                f"sides that can be halved {self.finest} times to at least 2 pixels"
            )
        self.coarsest = (size[0] >> self.finest, size[1] >> self.finest)
        # As they are used: what is trained to its end has grown.
        self.register_buffer("grown", torch.tensor(float(self.finest)))

    def grow(self, to: float) -> None:
        """Grow to g, from 0 to the index of the finest resolution."""
        self.grown.fill_(to)

    def _at(self) -> tuple[int, float]:
        """The finest resolution in use, and how far it is faded in, above 0 and at most 1."""
        grown = float(self.grown)
        stage = math.ceil(grown)
        return stage, 1.0 if stage == grown else grown - (stage - 1)

    def shown(self, images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Real images as detailed as the generator's are now, of the same size (Fig. 2 of the paper)."""
        stage, fade = self._at()
        coarse = self._reduced(images, stage)
        if fade < 1:
            coarse = torch.lerp(functional.interpolate(_halved(coarse), scale_factor=2.0), coarse, fade)
        return functional.interpolate(coarse, scale_factor=2.0 ** (self.finest - stage))

    def _reduced(self, images: Tensor, stage: int) -> Tensor:
        return functional.avg_pool2d(images, 2 ** (self.finest - stage))


class ProgressiveGenerator(Growing):
    """Latent to image, from the coarsest resolution up.

    | layer | output, with `filters` (F₀, F₁, …) and a coarsest side of 4 |
    |---|---|
    | normed latent, linear | F₀ × 4 × 4 |
    | convolution | F₀ × 4 × 4 |
    | nearest enlargement, 2 convolutions | F₁ × 8 × 8 |
    | … | … |
    | 1×1 convolution, sigmoid | 1 × 64 × 64 |

    Convolutions are 3×3 and equalised, each with leaky ReLU and pixel norm. In the paper images are linear; here they
    lie in [0, 1] as those of the other generators do.

    Args:
        latent: length of the latent.
        size: of the images.
        filters: channels at each resolution, from coarse to fine.
        condition: `none` or `class`.
        joint: make two channels, image and lesion mask.
    """

    output_type = "image"

    def __init__(
        self,
        latent: int = 100,
        size: Sequence[int] = (64, 64),
        filters: Sequence[int] = (128, 64, 32, 16, 8),
        condition: Condition = "none",
        joint: bool = False,
    ) -> None:
        super().__init__(size, filters)
        if condition == "mask":
            raise ValueError("a growing generator takes no mask, found the condition 'mask'; take DCGANGenerator")
        self.latent = latent + code_channels(condition)
        first = EqualisedConv2d(self.latent, filters[0] * math.prod(self.coarsest), 1)
        self.start = nn.Sequential(
            PixelNorm(), first, nn.Flatten(), nn.Unflatten(1, (filters[0], *self.coarsest)),
            nn.LeakyReLU(LEAK), PixelNorm(), *_generating(filters[0], filters[0]),
        )  # fmt: skip
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), *_generating(before, after), *_generating(after, after))
            for before, after in pairwise(filters)
        )
        # From fine to coarse, so that the layer which puts out the images is the last one.
        self.images = nn.ModuleList(EqualisedConv2d(F, 1 + joint, 1, gain=1) for F in reversed(filters))

    def forward(self, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channel height width"]:
        """Images (B, channels, H, W) in [0, 1] of latents (B, latent) ~ N(0, I)."""
        # type: (Tensor) -> Tensor
        stage, fade = self._at()
        features = self.start(latent[:, :, None, None])
        before = features
        for number, each in enumerate(self.stages):
            if number < stage:
                before, features = features, each(features)
        image = self._image(features, stage)
        if fade < 1:
            coarser = functional.interpolate(self._image(before, stage - 1), scale_factor=2.0)
            image = torch.lerp(coarser, image, fade)
        return functional.interpolate(image, scale_factor=2.0 ** (self.finest - stage))

    def _image(self, features: Tensor, stage: int) -> Tensor:
        image = features
        for number, each in enumerate(self.images):  # TorchScript knows no index that is found on the way
            if number == self.finest - stage:
                image = torch.sigmoid(each(features))
        return image


class ProgressiveDiscriminator(Growing):
    """The generator's mirror image: image to score, from the finest resolution in use down.

    Average pooling halves; before the last convolution a channel says how much the batch differs within itself.

    Args:
        size: of the images.
        filters: channels at each resolution, from coarse to fine.
        condition: that it sees beside the images: `none` or `class`.
        joint: sees image and lesion mask.
        minibatch_deviation: with that channel; a gradient penalty is defined without it.
    """

    def __init__(
        self,
        size: Sequence[int] = (64, 64),
        filters: Sequence[int] = (128, 64, 32, 16, 8),
        condition: Condition = "none",
        joint: bool = False,
        minibatch_deviation: bool = True,
    ) -> None:
        super().__init__(size, filters)
        self.ties_samples = minibatch_deviation
        seen = seen_channels(condition, joint)
        self.images = nn.ModuleList(nn.Sequential(EqualisedConv2d(seen, F, 1), nn.LeakyReLU(LEAK)) for F in filters)
        self.stages = nn.ModuleList(
            nn.Sequential(*_judging(after, after), *_judging(after, before), nn.AvgPool2d(2))
            for before, after in pairwise(filters)
        )
        deviation = [MinibatchDeviation()] if minibatch_deviation else []
        self.top = nn.Sequential(*deviation, *_judging(filters[0] + len(deviation), filters[0]), nn.Flatten())
        self.feature_size = filters[0] * math.prod(self.coarsest)
        self.last = EqualisedConv2d(self.feature_size, 1, 1, gain=1)

    def features(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch {self.feature_size}"]:
        """What the score is a linear function of, shape (B, `feature_size`), of images (B, C, H, W) in [0, 1]."""
        stage, fade = self._at()
        seen = self._reduced(2 * image - 1, stage)
        features: Tensor = self.images[stage](seen)
        for number in range(stage, 0, -1):
            features = self.stages[number - 1](features)
            if number == stage and fade < 1:
                features = torch.lerp(self.images[stage - 1](_halved(seen)), features, fade)
        flat: Tensor = self.top(features)
        return flat

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1"]:
        """One score a sample, shape (B, 1)."""
        scores: Tensor = self.last(self.features(image)[:, :, None, None])
        return scores.flatten(1)


def _halved(images: Tensor) -> Tensor:
    return functional.avg_pool2d(images, 2)


def _generating(before: int, after: int) -> tuple[nn.Module, ...]:
    return EqualisedConv2d(before, after, 3, padding=1), nn.LeakyReLU(LEAK), PixelNorm()


def _judging(before: int, after: int) -> tuple[nn.Module, ...]:
    return EqualisedConv2d(before, after, 3, padding=1), nn.LeakyReLU(LEAK)
