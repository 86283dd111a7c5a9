"""A GAN: what each player sees of images, classes and masks, and the discriminator that is unrolled."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods import GAN
from pipeline.networks import DCGANDiscriminator

SIZE = 4
LATENT = 3


class Generator(nn.Module):
    """Keeps what it was given; its images are as bright as its first number."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.given: list[tuple[Tensor, ...]] = []

    def forward(self, *given: Tensor) -> Tensor:
        self.given.append(given)
        return self.gain * given[0][:, :1, None, None].expand(-1, self.channels, SIZE, SIZE)


class Judge(nn.Module):
    """s times the mean of an image; keeps what it saw."""

    def __init__(self, slope: float = 0.5) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image)
        return self.slope * image.mean(dim=(1, 2, 3))[:, None]


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """A healthy slice and a pathological one."""
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[1, 0, 1, 2] = 1
    return {"image": torch.tensor([0.25, 0.75])[:, None, None, None].expand(2, 1, SIZE, SIZE), "mask": mask}


def game(**options: Any) -> tuple[GAN, Generator, Judge]:
    G, D = Generator(1 + options.get("joint", False)), Judge()
    return GAN(G, D, LATENT, **options), G, D


def played(gan: GAN, batch: dict[str, Tensor]) -> None:
    shared = gan.forward(batch)
    for player in gan.players:
        player.loss(batch, shared)


def test_noise_is_standard_normal_and_new_at_each_step(batch: dict[str, Tensor]) -> None:
    gan, G, _ = game()
    torch.manual_seed(0)
    for _ in range(300):
        gan.forward(batch)
    drawn = torch.stack([noise for (noise,) in G.given])
    assert drawn.shape == (300, 2, LATENT)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.05)
    assert float(drawn.std()) == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(gan.forward(batch)["z"], G.given[-1][0])


def test_real_and_fake_images_are_scored_apart_in_batches_of_their_own(batch: dict[str, Tensor]) -> None:
    gan, _, D = game()
    shared = gan.forward(batch)
    gan.discriminate(batch, shared)
    real, fake = D.seen
    torch.testing.assert_close(real, batch["image"])
    torch.testing.assert_close(fake, shared["x_s"])
    assert not fake.requires_grad


def test_a_class_is_told_to_both_players(batch: dict[str, Tensor]) -> None:
    gan, G, D = game(condition="class")
    played(gan, batch)
    ((noise,),) = G.given
    assert noise[:, LATENT:].tolist() == [[1, 0], [0, 1]]
    assert len(D.seen) == 3  # real and fake ones, and what the generator is judged by
    for seen in D.seen:
        assert seen[:, 1:].mean(dim=(2, 3)).tolist() == [[1, 0], [0, 1]]


def test_a_mask_is_told_to_both_players(batch: dict[str, Tensor]) -> None:
    gan, G, D = game(condition="mask")
    played(gan, batch)
    ((noise, mask),) = G.given
    assert noise.shape == (2, LATENT)
    assert mask is batch["mask"]
    assert all(torch.equal(seen[:, 1:], batch["mask"]) for seen in D.seen)


def test_joint_synthesis_is_judged_as_image_and_mask(batch: dict[str, Tensor]) -> None:
    gan, _, D = game(joint=True)
    played(gan, batch)
    real, fake, _ = D.seen
    assert torch.equal(real, torch.cat((batch["image"], batch["mask"]), dim=1))
    assert fake.shape == real.shape


def test_an_unrolled_discriminator_answers_what_the_generator_does() -> None:
    """One pixel, D(x) = s x, least squares: s' = s − η (x (s x − 1) + s y²), L_G = ½ (s' y − 1)²."""
    x, y, s, rate = 0.8, 0.3, 0.5, 0.4
    G, D = Generator(), Judge(s)
    gan = GAN(G, D, 1, "least_squares", unroll=1, unroll_rate=rate)
    fake = torch.full((1, 1, 1, 1), y, requires_grad=True)
    batch = {"image": torch.full((1, 1, 1, 1), x)}
    D.slope.requires_grad_(False)  # as the engine does while the generator plays
    loss = gan.generate(batch, {"x_s": fake})["gan"]
    ahead = s - rate * (x * (s * x - 1) + s * y**2)
    assert float(loss) == pytest.approx((ahead * y - 1) ** 2 / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, fake)
    # By y itself, and by what y makes of the discriminator.
    assert float(gradient) == pytest.approx((ahead * y - 1) * (ahead - 2 * rate * s * y**2), abs=1e-6)
    assert float(D.slope) == pytest.approx(s)


def test_further_steps_go_on_from_the_ones_before_with_their_penalty() -> None:
    batch = {"image": torch.full((1, 1, 1, 1), 0.8)}
    fake = torch.full((1, 1, 1, 1), 0.3)
    scores = []
    for steps in (0, 1, 2):
        gan = GAN(Generator(), Judge(), 1, "wasserstein_gp", unroll=steps, unroll_rate=0.01)
        scores.append(-float(gan.generate(batch, {"x_s": fake})["gan"]) / 0.3)  # the slope
    for before, after in itertools.pairwise(scores):
        # −x + y, and 10 (s − 1)², whose derivatives are those below.
        assert after == pytest.approx(before - 0.01 * (-0.8 + 0.3 + 20 * (before - 1)), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"condition": "person"}, "condition is one of none, class, mask, found 'person'"),
        ({"condition": "mask", "joint": True}, "given or made"),
        ({"unroll": -1}, "unroll is 0 or more steps"),
        ({"unroll_rate": 0.0}, "a rate above 0"),
        ({"unroll": 2, "objective": "wasserstein"}, "take wasserstein_gp"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        game(**options)


@pytest.mark.parametrize("ties", [{"norm": "batch"}, {"norm": "none", "minibatch_kernels": 2}])
def test_a_gradient_penalty_refuses_a_discriminator_that_looks_at_the_batch(ties: dict[str, Any]) -> None:
    D = DCGANDiscriminator(size=(8, 8), filters=2, **ties)
    with pytest.raises(ValueError, match="a gradient penalty is one of each sample by itself"):
        GAN(Generator(), D, 1, "wasserstein_gp")
    GAN(Generator(), D, 1, "hinge")
