"""Generators from noise and their discriminators: DCGAN (Radford et al. 2016) and multi-layer perceptrons (survey 2.2).

Both may be conditioned (survey Section 2.3, Eq. 5): on a class, which G takes beside its noise and D as constant
channels (Mirza and Osindero 2014), or on a lesion mask. Joint synthesis makes a lesion mask as a second channel.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm as normed_by_its_spectrum

from pipeline.networks.blocks import LEAK, as_output, rectifier

Condition = Literal["none", "class", "mask"]
CLASSES = ("healthy", "pathological")
CONDITIONS: tuple[Condition, ...] = ("none", "class", "mask")
SMALLEST_START = 4  # pixels of the first feature map of DCGAN
WIDEST = 8  # times the filters at full size


def class_of(mask: Float[Tensor, "batch 1 height width"]) -> Int[Tensor, " batch"]:
    """The index in `CLASSES` of slices with these lesion masks: 1 where there is a pixel; shape (B,)."""
    return mask.flatten(1).any(dim=1).long()


def with_class(noise: Float[Tensor, "batch latent"], label: Int[Tensor, " batch"]) -> Float[Tensor, "batch _"]:
    """What a generator that is conditioned on a class takes: its noise, and which of `CLASSES` as one-hot numbers."""
    return torch.cat((noise, functional.one_hot(label, len(CLASSES)).to(noise)), dim=1)


def with_maps(image: Tensor, label: Int[Tensor, " batch"]) -> Tensor:
    """What its discriminator takes: images (B, C, H, W), and a constant map for each of `CLASSES`."""
    maps = functional.one_hot(label, len(CLASSES)).to(image)
    return torch.cat((image, maps[:, :, None, None].expand(-1, -1, *image.shape[2:])), dim=1)


class DCGANGenerator(nn.Module):
    """Radford's generator: strided transposed convolutions, batch norm and ReLU, no other fully connected layer.

    With `filters` F = 128 and images of 64×64, the sizes of Radford's Fig. 1:

    | layer | output |
    |---|---|
    | transposed convolution of the noise, batch norm, ReLU | 8F × 4 × 4 |
    | 4×4 transposed convolution of stride 2, batch norm, ReLU | 4F × 8 × 8 |
    | the same | 2F × 16 × 16 |
    | the same | F × 32 × 32 |
    | 4×4 transposed convolution of stride 2, tanh | C × 64 × 64 |

    The output is scaled to [0, 1]. Other sizes begin with the smallest map of at least 4 pixels a side that doubles to
    them, and have at most 8F channels.

    Args:
        latent: numbers of noise.
        size: of the images (H, W); 32, 64 or 128, or any other whose sides halve at least once to 4 or more.
        filters: F.
        condition: `none`; `class`: takes `with_class`; `mask`: takes a mask too, averaged to the size of each layer.
        joint: make two channels, image and lesion mask.

    Example:
        >>> DCGANGenerator(latent=5, size=(32, 48), filters=2)(torch.zeros(3, 5)).shape
        torch.Size([3, 1, 32, 48])
    """

    output_type = "image"

    def __init__(
        self,
        latent: int = 100,
        size: Sequence[int] = (64, 64),
        filters: int = 128,
        condition: Condition = "none",
        joint: bool = False,
    ) -> None:
        super().__init__()
        _check_condition(condition, joint)
        steps, start = halvings(size)
        channels = [filters * min(WIDEST, 2**step) for step in reversed(range(steps))]
        self.latent = latent + code_channels(condition)
        self.masked = condition == "mask"
        self.height, self.width = size
        extra = int(self.masked)
        self.first = nn.Sequential(
            nn.ConvTranspose2d(self.latent, channels[0], start, bias=False),
            nn.BatchNorm2d(channels[0]),
            rectifier(0),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(_doubling(before + extra, after, bias=False), nn.BatchNorm2d(after), rectifier(0))
            for before, after in itertools.pairwise(channels)
        )
        # The last one sees each pixel of the mask: its four quarters beside the features of half the size.
        self.last = _doubling(channels[-1] + 4 * extra, 1 + joint, bias=True)
        _radford(self)

    def forward(
        self, noise: Float[Tensor, "batch latent"], mask: Float[Tensor, "batch 1 height width"] | None = None
    ) -> Float[Tensor, "batch channel _ _"]:
        """Noise (B, latent) of N(0, I), and for the condition `mask` a mask (B, 1, H, W), to images in [0, 1].

        No mask is an empty one.
        """
        # type: (Tensor, Optional[Tensor]) -> Tensor
        features = self.first(noise[:, :, None, None])
        lesion = noise.new_zeros(len(noise), 1, self.height, self.width) if mask is None else mask
        for stage in self.stages:
            if self.masked:
                pooled = functional.adaptive_avg_pool2d(lesion, features.shape[2:])
                features = torch.cat((features, pooled), dim=1)
            features = stage(features)
        if self.masked:
            features = torch.cat((features, functional.pixel_unshuffle(lesion, 2)), dim=1)
        return as_output("image", self.last(features), features)


class MLPGenerator(nn.Module):
    """A perceptron of two hidden layers, as in Goodfellow et al. (2014); its image is scaled to [0, 1].

    Args:
        latent: numbers of noise.
        size: of the images (H, W).
        filters: of each hidden layer.
        condition: `none` or `class`.
        joint: make two channels, image and lesion mask.
    """

    output_type = "image"

    def __init__(
        self,
        latent: int = 100,
        size: Sequence[int] = (64, 64),
        filters: int = 512,
        condition: Condition = "none",
        joint: bool = False,
    ) -> None:
        super().__init__()
        _check_condition(condition, joint)
        if condition == "mask":
            raise ValueError("a perceptron takes no mask, found the condition 'mask'; take DCGANGenerator")
        self.latent = latent + code_channels(condition)
        self.channels, (self.height, self.width) = 1 + joint, size
        self.layers = nn.Sequential(
            nn.Linear(self.latent, filters),
            rectifier(0),
            nn.Linear(filters, filters),
            rectifier(0),
            nn.Linear(filters, self.channels * self.height * self.width),
        )

    def forward(self, noise: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channel _ _"]:
        """Noise (B, latent) of N(0, I) to images in [0, 1]."""
        # type: (Tensor) -> Tensor
        raw = self.layers(noise).view(-1, self.channels, self.height, self.width)
        return as_output("image", raw, raw)


class MinibatchDiscrimination(nn.Module):
    """How close each sample is to the others of its batch, beside its features (Salimans et al. 2016, Section 3.2).

        M_i = f(x_i) T,   o(x_i)_b = Σ_j≠i exp(−‖M_i,b − M_j,b‖₁)

    A discriminator that sees it knows a batch of images that are all alike, which no single one of them betrays. The
    mean over j is taken instead of the sum, so that a score does not depend on the size of the batch.

    Args:
        features: A, numbers in f(x).
        kernels: B.
        dimensions: C, of each kernel; T has A × B × C numbers.
    """

    def __init__(self, features: int, kernels: int, dimensions: int = 5) -> None:
        super().__init__()
        self.kernels, self.dimensions = kernels, dimensions
        self.project = nn.Linear(features, kernels * dimensions, bias=False)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch _"]:
        """f(x) of shape (B, A), with o(x) behind it: (B, A + kernels)."""
        M = self.project(features).unflatten(1, (self.kernels, self.dimensions))
        distances = (M[:, None] - M[None]).abs().sum(dim=3)
        others = len(M) - 1
        # Its closeness to itself, which is 1, says nothing.
        closeness = ((-distances).exp().sum(dim=1) - 1) / max(1, others)
        return torch.cat((features, closeness), dim=1)


class NoiseDiscriminator(nn.Module):
    """What the discriminators here share: layers that end in features, and a linear score of these.

    Attributes:
        feature_size: numbers in `features`.
        ties_samples: whether a sample's score depends on the others of its batch, by batch norm or minibatch
            discrimination; real and fake images are then scored apart, and no gradient penalty is defined.
    """

    ties_samples: bool

    def __init__(
        self, layers: nn.Sequential, feature_size: int, spectral_norm: bool, minibatch_kernels: int, batch_norm: bool
    ) -> None:
        super().__init__()
        self.ties_samples = batch_norm or minibatch_kernels > 0
        self.feature_size = feature_size
        self.layers = layers
        self.minibatch = MinibatchDiscrimination(feature_size, minibatch_kernels) if minibatch_kernels else None
        self.last = nn.Linear(feature_size + minibatch_kernels, 1)
        if spectral_norm:
            for layer in (*layers, self.last):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    normed_by_its_spectrum(layer)

    def features(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch {self.feature_size}"]:
        """What the last layer sees of images (B, C, H, W) in [0, 1]."""
        features: Tensor = self.layers(2 * image - 1).flatten(1)
        return features

    def score(self, features: Float[Tensor, "batch {self.feature_size}"]) -> Float[Tensor, "batch 1"]:
        """Linear scores (B, 1) of `features`."""
        scores: Tensor = self.last(features if self.minibatch is None else self.minibatch(features))
        return scores

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1"]:
        """Linear scores (B, 1) for images (B, C, H, W) in [0, 1], with the condition's maps as further channels."""
        return self.score(self.features(image))


class DCGANDiscriminator(NoiseDiscriminator):
    """Radford's discriminator: `DCGANGenerator` mirrored, of strided convolutions, batch norm and leaky ReLU.

    Args:
        size: of the images (H, W).
        filters: of the first layer; each further one has twice as many, 8 times at most.
        condition: that it sees beside the images: `none`, `class` or `mask`.
        joint: sees image and lesion mask.
        norm: of all layers but the first: `batch` as Radford, `instance`, or `none` for a gradient penalty.
        spectral_norm: bound each layer's gain (Miyato et al. 2018).
        minibatch_kernels: of minibatch discrimination; 0 has none.
    """

    def __init__(
        self,
        size: Sequence[int] = (64, 64),
        filters: int = 128,
        condition: Condition = "none",
        joint: bool = False,
        norm: Literal["batch", "instance", "none"] = "batch",
        spectral_norm: bool = False,
        minibatch_kernels: int = 0,
    ) -> None:
        if norm not in ("batch", "instance", "none"):
            raise ValueError(f"norm is 'batch', 'instance' or 'none', found {norm!r}")
        steps, start = halvings(size)
        channels = [seen_channels(condition, joint), *(filters * min(WIDEST, 2**step) for step in range(steps))]
        layers: list[nn.Module] = []
        for step, (before, after) in enumerate(itertools.pairwise(channels)):
            kind = norm if step else "none"
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=kind == "none"))
            if kind != "none":
                layers.append(nn.BatchNorm2d(after) if kind == "batch" else nn.InstanceNorm2d(after, affine=True))
            layers.append(rectifier(LEAK))
        super().__init__(
            nn.Sequential(*layers), channels[-1] * math.prod(start), spectral_norm, minibatch_kernels, norm == "batch"
        )
        if not spectral_norm:
            _radford(self)


class MLPDiscriminator(NoiseDiscriminator):
    """A perceptron of two hidden layers that looks at all pixels at once; arguments as of `DCGANDiscriminator`."""

    def __init__(
        self,
        size: Sequence[int] = (64, 64),
        filters: int = 512,
        condition: Condition = "none",
        joint: bool = False,
        spectral_norm: bool = False,
        minibatch_kernels: int = 0,
    ) -> None:
        layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(seen_channels(condition, joint) * math.prod(size), filters),
            rectifier(LEAK),
            nn.Linear(filters, filters),
            rectifier(LEAK),
        )
        super().__init__(layers, filters, spectral_norm, minibatch_kernels, batch_norm=False)


def _check_condition(condition: str, joint: bool) -> None:
    if condition not in CONDITIONS:
        raise ValueError(f"condition is one of {', '.join(CONDITIONS)}, found {condition!r}")
    if joint and condition == "mask":
        raise ValueError("a mask is given or made, found the condition 'mask' with joint; take one of the two")


def code_channels(condition: Condition) -> int:
    """Numbers behind the noise that a generator takes."""
    return len(CLASSES) if condition == "class" else 0


def seen_channels(condition: Condition, joint: bool) -> int:
    """Channels that a discriminator sees: the image, a mask that is made, and what both are conditioned on."""
    _check_condition(condition, joint)
    return 1 + joint + code_channels(condition) + (condition == "mask")


def halvings(size: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """How often the sides can be halved to no less than `SMALLEST_START`, and what is left of them."""
    height, width = size
    steps = 0
    while height % 2 == width % 2 == 0 and min(height, width) // 2 >= SMALLEST_START:
        height, width, steps = height // 2, width // 2, steps + 1
    if not steps:
        raise ValueError(f"size: found {tuple(size)}, expected sides that halve to {SMALLEST_START} or more")
    return steps, (height, width)


def _doubling(before: int, after: int, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)


def _radford(network: nn.Module) -> None:
    """Weights of N(0, 0.02²), as in Radford et al., Section 4; of norms around 1."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
