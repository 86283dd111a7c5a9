"""InfoGAN's codes (Chen et al. 2016; survey, Section 2.2): numbers of the noise that an image must show."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class CodedGenerator(nn.Module):
    """G(z, c): a generator whose first numbers of noise are codes.

    All come from N(0, I), so that whoever draws images needs to know of no code. The first K are one category of K
    equally likely ones, that of the largest number; further codes are numbers as they are (in the paper from
    U(−1, 1)).

    Args:
        generator: noise (B, latent) to images.
        categories: K; 0 has none.
    """

    output_type = "image"

    def __init__(self, generator: nn.Module, categories: int) -> None:
        super().__init__()
        self.categories = categories
        self.generator = generator

    def forward(self, noise: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channel height width"]:
        """Noise (B, latent) of N(0, I) to images (B, C, H, W)."""
        category, rest = noise[:, : self.categories], noise[:, self.categories :]
        if self.categories:
            rest = torch.cat((functional.one_hot(category.argmax(dim=1), self.categories).to(noise), rest), dim=1)
        images: Tensor = self.generator(rest)
        return images


class CodeReader(nn.Module):
    """The head of Q(c | x), on the discriminator's features, as in the paper: logits of the category, means of numbers.

    Args:
        feature_size: numbers of features.
        categories: K.
        numbers: codes that are numbers.
    """

    def __init__(self, feature_size: int, categories: int, numbers: int) -> None:
        super().__init__()
        self.categories = categories
        self.layers = nn.Sequential(
            nn.Linear(feature_size, 128), nn.LeakyReLU(0.1), nn.Linear(128, categories + numbers)
        )

    def forward(
        self, features: Float[Tensor, "batch _"]
    ) -> tuple[Float[Tensor, "batch {self.categories}"], Float[Tensor, "batch _"]]:
        """Logits (B, K) and means (B, numbers) for features (B, F)."""
        read = self.layers(features)
        return read[:, : self.categories], read[:, self.categories :]
