"""Networks that show an image's nearest relative among healthy ones: what they cannot show is an anomaly.

x: image, z: its latent code; E: encoder, G: generator of healthy images, f: features of a discriminator.

    x̂ = G(E(x))            autoencoders, f-AnoGAN (Schlegl et al. 2019), BiGAN (Donahue et al. 2017)
    x̂ = G(z*)              AnoGAN (Schlegl et al. 2017): z* is searched for, image by image
"""

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.networks.blocks import LEAK, rectifier
from pipeline.networks.dcgan import WIDEST, halvings


class LatentEncoder(nn.Module):
    """Image to latent code: 4×4 convolutions of stride 2 as in `DCGANDiscriminator`, then a linear layer.

    No instance norm: an image's brightness is part of what its code has to tell.

    Args:
        latent: length of the code.
        size: of the images (H, W), as of `DCGANGenerator`.
        filters: channels of the first stage; each further one has twice as many, 8 times at most.
        variational: puts out a distribution N(μ, σ²) of codes; the code of an image is μ.
        batch_norm: in all stages but the first.
    """

    def __init__(
        self,
        latent: int = 128,
        size: Sequence[int] = (64, 64),
        filters: int = 64,
        variational: bool = False,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.latent, self.size, self.variational = latent, [int(side) for side in size], variational
        steps, end = halvings(size)
        channels = [1, *(filters * min(WIDEST, 2**step) for step in range(steps))]
        layers: list[nn.Module] = []
        for step, (before, after) in enumerate(itertools.pairwise(channels)):
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1))
            if step and batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(rectifier(LEAK))
        self.stages = nn.Sequential(*layers, nn.Flatten())
        self.last = nn.Linear(channels[-1] * math.prod(end), 2 * latent if variational else latent)

    def distribution(
        self, image: Float[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """μ and log σ² of a variational encoder, for images of `size`."""
        mean, log_variance = self.last(self.stages(image)).chunk(2, dim=1)
        return mean, log_variance

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch latent"]:
        """The code, shape (B, latent), of images of `size`."""
        # type: (Tensor) -> Tensor
        code: Tensor = self.last(self.stages(image))[:, : self.latent]
        return code


class JointDiscriminator(nn.Module):
    """BiGAN's discriminator of pairs: whether a code was drawn and its image made, or an image found and encoded.

    Image and code travel in one tensor, so that an objective's penalty sees both: see `pairs`. No norm ties samples.

    Args:
        latent: length of the code.
        size: of the images.
        filters: channels of the first stage of the encoder that looks at the image.
        width: of the layer that sees both.
    """

    def __init__(self, latent: int = 128, size: Sequence[int] = (64, 64), filters: int = 64, width: int = 256) -> None:
        super().__init__()
        self.latent, self.size = latent, [int(side) for side in size]
        self.image_features = LatentEncoder(width, size, filters, batch_norm=False)
        self.both = nn.Sequential(nn.LeakyReLU(LEAK), nn.Linear(width + latent, width), nn.LeakyReLU(LEAK))
        self.last = nn.Linear(width, 1)

    @staticmethod
    def pairs(
        image: Float[Tensor, "batch 1 height width"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch _"]:
        """Images and codes as rows of one tensor."""
        return torch.cat((image.flatten(1), code), dim=1)

    def features(self, pairs: Float[Tensor, "batch _"]) -> Float[Tensor, "batch _"]:
        """What the last layer sees of pairs."""
        height, width = self.size
        image, code = pairs.split([height * width, self.latent], dim=1)
        seen = self.image_features(image.reshape(-1, 1, height, width))
        features: Tensor = self.both(torch.cat((seen, code), dim=1))
        return features

    def forward(self, pairs: Float[Tensor, "batch _"]) -> Float[Tensor, "batch 1"]:
        """One score a pair."""
        scores: Tensor = self.last(self.features(pairs))
        return scores


class Reconstruction(nn.Module):
    """x̂ = G(E(x)), and how anomalous an image is as a whole.

    Images of another size than the encoder's are resampled to it, and their reconstructions back.

    Args:
        encoder: E.
        generator: G, codes (B, latent) to images (B, 1, H, W) in [0, 1].
        critic: whose features are compared too; None compares pixels alone.
        kappa: κ, weight of the features in the score.

    Attributes:
        threshold: of the anomaly map, chosen on validation patients and kept with the weights; 0 before that.
    """

    output_type = "image"
    threshold: Tensor
    __jit_ignored_attributes__ = ("critic",)  # which no reconstruction needs, and TorchScript cannot compile

    def __init__(
        self, encoder: LatentEncoder, generator: nn.Module, critic: nn.Module | None = None, kappa: float = 1.0
    ) -> None:
        super().__init__()
        self.critic = critic
        self.encoder = encoder
        self.generator = generator
        self.kappa = kappa
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The healthy reconstruction, shape (B, 1, H, W), of images (B, 1, H, W) in [0, 1]."""
        # type: (Tensor) -> Tensor
        fitted = resampled(image, self.encoder.size)
        made: Tensor = self.generator(self.encoder(fitted))
        return resampled(made, image.shape[2:])

    def features(
        self, image: Float[Tensor, "batch 1 height width"], code: Float[Tensor, "batch latent"]
    ) -> Float[Tensor, "batch _"] | None:
        """What the critic sees of images, or of images and codes; None without critic."""
        if self.critic is None:
            return None
        features: Tensor = self.critic.features(  # type: ignore[operator]
            self.critic.pairs(image, code) if isinstance(self.critic, JointDiscriminator) else image
        )
        return features

    def residuals(
        self, image: Float[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch _"], Float[Tensor, "batch _"] | None]:
        """X − x̂ in pixels, and f(x) − f(x̂) in features, each sample a row, for images of the encoder's size."""
        code = self.encoder(image)
        made = self.generator(code)
        seen, of_made = self.features(image, code), self.features(made, code)
        return (image - made).flatten(1), None if seen is None or of_made is None else seen - of_made

    def score(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1"]:
        """A(x) = ‖x − x̂‖² / n + κ ‖f(x) − f(x̂)‖² / n_f (Schlegl et al. 2019, Section 3.3), shape (B, 1).

        n, n_f: numbers of pixels and features.
        """
        pixels, features = self.residuals(resampled(image, self.encoder.size))
        score = pixels.square().mean(dim=1, keepdim=True)
        return score if features is None else score + self.kappa * features.square().mean(dim=1, keepdim=True)

    def explain(
        self, image: Float[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 1 height width"], Float[Tensor, "batch 1"]]:
        """Reconstructions and scores."""
        return self(image), self.score(image)


class SearchedReconstruction(nn.Module):
    """x̂ = G(z*), z* searched for by gradient descent, image by image (AnoGAN, Schlegl et al. 2017, Section 2.2).

        L(z) = (1 − λ) Σ |x − G(z)| + λ Σ |f(x) − f(G(z))|        residual and discrimination loss

    The search starts from z = 0, the mean of the prior, not from a draw of it: an image has one result. It also scores
    images, by L(z*).

    Args:
        generator: G, codes (B, latent) to images (B, 1, H, W) in [0, 1].
        critic: D, whose `features` are f.
        latent: length of a code.
        size: of G's images; others are resampled to it, and their reconstructions back.
        steps: of Adam, Γ.
        rate: of Adam.
        weight: λ.

    Attributes:
        threshold: as of `Reconstruction`.
    """

    output_type = "image"
    threshold: Tensor

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        latent: int = 128,
        size: Sequence[int] = (64, 64),
        steps: int = 500,
        rate: float = 0.05,
        weight: float = 0.1,
    ) -> None:
        super().__init__()
        if steps < 1 or not 0 <= weight <= 1:
            raise ValueError(f"expected at least 1 step and a weight λ from 0 to 1, found {steps} and {weight}")
        self.critic = critic
        self.generator = generator
        self.code_size, self.size = latent, [int(side) for side in size]
        self.steps, self.rate, self.weight = steps, rate, weight
        self.register_buffer("threshold", torch.zeros(()))

    def loss(
        self, image: Float[Tensor, "batch 1 height width"], made: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1"]:
        """L of each image and what was made for it, shape (B, 1)."""
        features = self.critic.features
        pixels = (image - made).abs().flatten(1).sum(dim=1, keepdim=True)
        seen = (features(image) - features(made)).abs().sum(dim=1, keepdim=True)  # type: ignore[operator]
        loss: Tensor = (1 - self.weight) * pixels + self.weight * seen
        return loss

    def search(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch latent"]:
        """z*, shape (B, latent), for images of `size`."""
        # Predictors run networks without gradients; the search needs those of the code.
        with torch.inference_mode(False), torch.enable_grad():
            target = image.detach().clone()
            code = target.new_zeros(len(target), self.code_size).requires_grad_()
            optimizer = torch.optim.Adam([code], lr=self.rate)
            for _ in range(self.steps):
                (code.grad,) = torch.autograd.grad(self.loss(target, self.generator(code)).sum(), code)
                optimizer.step()
        return code.detach()

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 height width"]:
        """The healthy reconstruction, shape (B, 1, H, W), of images (B, 1, H, W) in [0, 1]."""
        return self.explain(image)[0]

    def score(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1"]:
        """L(z*), the image's anomaly score, shape (B, 1)."""
        return self.explain(image)[1]

    def explain(
        self, image: Float[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 1 height width"], Float[Tensor, "batch 1"]]:
        """Reconstructions and scores by one search."""
        fitted = resampled(image, self.size)
        made = self.generator(self.search(fitted))
        return resampled(made, image.shape[2:]), self.loss(fitted, made)


class AnomalyScore(nn.Module):
    """The anomaly score of an image as a network of its own.

    Args:
        network: whose `score` it is.
    """

    output_type = "image"  # of the network that it asks

    def __init__(self, network: Reconstruction | SearchedReconstruction) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1"]:
        """One score an image."""
        score: Tensor = self.network.score(image)
        return score


def resampled(image: Float[Tensor, "batch 1 _ _"], size: Sequence[int]) -> Float[Tensor, "batch 1 _ _"]:
    """Images on another number of pixels; those that have it keep their values."""
    # type: (Tensor, List[int]) -> Tensor
    # No question of sizes, whose answer an exported network would keep for ever.
    return interpolate(image, size=[size[0], size[1]], mode="bilinear", align_corners=False)
