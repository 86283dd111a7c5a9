"""A critic of images with their masks: what it is shown, what it tells apart, and what the segmentor is told."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

from pipeline.methods import AdversarialSegmentation
from pipeline.networks import SegmentationCritic
from pipeline.objectives import Wasserstein
from pipeline.training import PlayerTrainer

IMAGE, MASK = torch.full((4, 1, 32, 32), 0.5), torch.zeros(4, 1, 32, 32)
MASK[:, :, 8:16, 8:16] = 1
LABELLED = torch.tensor([[1.0], [0.0], [1.0], [0.0]])


class Fixed(nn.Module):
    """The same logit of every pixel."""

    def __init__(self, logit: float = 0.0) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logit.expand(len(image), 1, *image.shape[2:])


class Sum(SegmentationCritic):
    """A score that is known: the mean of what is shown; its one weight is the stage's."""

    def __init__(self, sees: str = "masked") -> None:
        super().__init__(filters=1, sees=sees)
        self.weight = nn.Parameter(torch.ones(()))

    def features(self, shown: torch.Tensor) -> list[torch.Tensor]:
        return [shown, self.weight * 2 * shown]

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        return self.weight * shown.mean(dim=(1, 2, 3))[:, None]


def terms(player: str, logit: float = 0.0, labelled: torch.Tensor | None = None, **options: Any) -> dict[str, float]:
    """The losses of a player when every pixel gets one logit."""
    given = {"critic": Sum(), **options}
    method = AdversarialSegmentation(Fixed(logit), **given)
    batch = {"image": IMAGE, "mask": MASK if labelled is None else MASK * labelled[:, :, None, None]}
    if labelled is not None:
        batch["labelled"] = labelled
    (chosen,) = [each for each in method.players if each.name == player]
    return {name: float(value) for name, value in chosen.loss(batch, method.forward(batch)).items()}


# Of half an image that is 0.5 everywhere: with the drawn mask, and with a probability of one half.
DRAWN, PREDICTED = 0.5 * 64 / 1024, 0.25


def test_the_critic_tells_drawn_masks_from_predicted_ones_and_the_segmentor_passes_for_drawn():
    plus = [float(softplus(torch.tensor(score))) for score in (-DRAWN, PREDICTED, -PREDICTED)]
    assert terms("critic") == {"critic": pytest.approx(plus[0] + plus[1])}
    assert terms("segmentor", lambda_adv=0.3) == {
        "ce": pytest.approx(math.log(2)),
        "adversarial": pytest.approx(0.3 * plus[2]),
    }


def test_kohl_s_segmentor_is_told_by_the_critic_alone():
    assert set(terms("segmentor", loss="none")) == {"adversarial"}
    assert set(terms("segmentor", loss="ce+dice")) == {"ce", "dice", "adversarial"}


def test_segan_s_players_have_one_distance_of_features_that_one_raises_and_the_other_lowers():
    options = {"feedback": "features", "objective": Wasserstein(0.05), "loss": "none", "lambda_adv": 1.0}
    # In the mask 0.5 − 0.25, outside 0.25 − 0, so 0.25 everywhere; the second stage doubles it.
    assert terms("critic", **options) == {"critic": pytest.approx(-(0.25 + 0.5) / 2)}
    assert terms("segmentor", **options) == {"adversarial": pytest.approx((0.25 + 0.5) / 2)}


def test_segan_s_critic_keeps_its_weights_clipped():
    method = AdversarialSegmentation(
        Fixed(), SegmentationCritic(filters=2), feedback="features", objective=Wasserstein(0.05)
    )
    method.players[0].after_step()
    assert max(float(p.detach().abs().max()) for p in method.D.parameters()) == pytest.approx(0.05)


class TestZhang:
    """The critic tells predictions for images with a mask from those for images without."""

    def test_labelled_is_real_and_unlabelled_fake_whatever_the_masks_are(self):
        method = AdversarialSegmentation(nn.Conv2d(1, 1, 1), Sum(), tells="labelled")
        image = torch.arange(4.0)[:, None, None, None].expand(4, 1, 32, 32)
        batch = {"image": image, "mask": MASK, "labelled": LABELLED}
        found = method.forward(batch)["logits"].sigmoid()
        real, fake = method._shown(batch, method.forward(batch))
        torch.testing.assert_close(real, (image * found)[[0, 2]])
        torch.testing.assert_close(fake, (image * found)[[1, 3]])

    def test_there_are_as_many_of_both(self):
        method = AdversarialSegmentation(Fixed(), Sum(), tells="labelled")
        batch = {"image": IMAGE, "mask": MASK, "labelled": torch.tensor([[1.0], [0.0], [0.0], [0.0]])}
        assert [len(shown) for shown in method._shown(batch, method.forward(batch))] == [1, 1]

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_a_batch_of_one_kind_teaches_the_critic_nothing(self, share):
        labelled = torch.full((4, 1), share)
        assert terms("critic", tells="labelled", labelled=labelled) == {"critic": 0}
        found = terms("segmentor", tells="labelled", labelled=labelled)
        assert found == ({"adversarial": 0} if share == 0 else {"ce": pytest.approx(math.log(2))})


@pytest.mark.parametrize("tells", ["drawn", "labelled"])
def test_the_engine_trains_both_players_on_what_they_share(tells):
    torch.manual_seed(0)
    samples = [{"image": IMAGE[n], "mask": MASK[n], "labelled": LABELLED[n]} for n in range(4)]
    method = AdversarialSegmentation(nn.Conv2d(1, 1, 1), SegmentationCritic(filters=2), tells=tells)
    trainer = PlayerTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=DataLoader(samples, batch_size=4),
        method=method,
        optimizers={name: torch.optim.Adam(network.parameters()) for name, network in method.networks.items()},
    )
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in method.networks.items()}
    trainer.run()
    for name, network in method.networks.items():
        assert not any(torch.equal(*pair) for pair in zip(before[name], network.parameters(), strict=True)), name


@pytest.mark.parametrize("tells", ["drawn", "labelled"])
def test_masks_that_are_not_known_are_not_learned_from(tells):
    """Unlabelled slices have an empty mask, which would teach that they are healthy."""
    ce = {logit: terms("segmentor", logit, LABELLED, tells=tells)["ce"] for logit in (-3.0, 3.0)}
    share = 64 / 1024
    by_hand = {
        logit: share * float(softplus(torch.tensor(-logit))) + (1 - share) * float(softplus(torch.tensor(logit)))
        for logit in ce
    }
    assert ce == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tells": "left"}, "tells is 'drawn' or 'labelled', found 'left'"),
        ({"feedback": "marks"}, "feedback is 'scores' or 'features'"),
        ({"lambda_adv": 0.0}, "lambda_adv must be a number above 0"),
        ({"loss": "l1"}, "loss is some of ce, dice, joined by"),
        ({"feedback": "features"}, "needs clipped weights, the objective wasserstein, found NonSaturating"),
        ({"feedback": "features", "objective": "wasserstein", "tells": "labelled"}, "of one image"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdversarialSegmentation(Fixed(), Sum(), **options)
