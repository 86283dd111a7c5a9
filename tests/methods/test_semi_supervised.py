"""K + 1 classes, the last of which is fake: what each player pays, and that unlabelled images have no class."""

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax
from torch.utils.data import DataLoader

from pipeline.methods import SemiSupervisedGAN
from pipeline.networks import ClassDiscriminator
from pipeline.training import PlayerTrainer

LABELLED = torch.tensor([[1.0], [0.0], [1.0]])
IMAGES = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
BATCH = {"image": IMAGES, "class": torch.tensor([[2.0], [0.0], [1.0]]), "labelled": LABELLED}


class Constant(nn.Module):
    """Makes one grey, whatever the noise."""

    def __init__(self, grey: float = 0.3) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(grey))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.grey.expand(len(noise), 1, 32, 32)


def made(**options: Any) -> SemiSupervisedGAN:
    torch.manual_seed(1)
    classifier = ClassDiscriminator(["a", "b", "c"], filters=2, dropout=0.0)
    nn.init.normal_(classifier.last.weight, std=3)
    return SemiSupervisedGAN(classifier, **{"generator": Constant(), "latent": 4, **options})


def test_the_losses_are_those_of_k_plus_1_classes_whose_last_logit_is_0() -> None:
    method = made(lambda_=0.5)
    shared = method.forward(BATCH)
    terms = {name: float(value) for name, value in method.classify(BATCH, shared).items()}
    real, fake = (
        torch.cat((method.D(x), torch.zeros(3, 1)), dim=1).log_softmax(dim=1) for x in (IMAGES, shared["fake"])
    )
    among = log_softmax(method.D(IMAGES), dim=1)
    assert terms == {
        "supervised": pytest.approx(-float(among[0, 2] + among[2, 1]) / 2, rel=1e-4),
        "real": pytest.approx(-0.5 * float((1 - real[:, 3].exp()).log().mean()), rel=1e-4),
        "fake": pytest.approx(-0.5 * float(fake[:, 3].mean()), rel=1e-4),
    }


def test_the_generator_matches_the_mean_features_of_real_images_and_not_their_scores() -> None:
    method = made()
    loss = method.generate(BATCH, method.forward(BATCH))["features"]
    means = [method.D.features(x).mean(dim=0) for x in (IMAGES, torch.full_like(IMAGES, 0.3))]
    assert float(loss) == pytest.approx(float((means[0] - means[1]).square().mean()))
    same = made(generator=Constant(0.5))
    grey = {**BATCH, "image": torch.full_like(IMAGES, 0.5)}
    assert float(same.generate(grey, same.forward(grey))["features"]) == 0


def test_the_class_of_an_unlabelled_image_is_not_learned_from() -> None:
    method = made()
    other = {**BATCH, "class": torch.tensor([[2.0], [2.0], [1.0]])}
    for batch in (BATCH, other):
        assert float(method.classify(batch, method.forward(batch))["supervised"]) == pytest.approx(
            float(method.classify(BATCH, method.forward(BATCH))["supervised"])
        )
    none = {**BATCH, "labelled": torch.zeros(3, 1)}
    assert float(method.classify(none, method.forward(none))["supervised"]) == 0


def test_without_a_generator_it_is_supervised_alone() -> None:
    method = made(generator=None)
    (player,) = method.players
    assert set(method.networks) == {"classifier"}
    assert method.forward(BATCH) == {}
    assert set(player.loss(BATCH, {})) == {"supervised"}


def test_the_classifier_is_what_users_get_and_fakes_do_not_reach_the_generator_through_it() -> None:
    method = made()
    assert list(method.exports) == ["classifier"]
    sum(method.classify(BATCH, method.forward(BATCH)).values()).backward()
    assert method.G is not None
    assert all(parameter.grad is None for parameter in method.G.parameters())


def test_the_engine_trains_it_as_any_method() -> None:
    torch.manual_seed(0)
    samples = [
        {"image": torch.full((1, 32, 32), 0.2 + 0.6 * n), "class": torch.tensor([float(n)]), "labelled": torch.ones(1)}
        for n in (0, 1) for _ in range(4)
    ]  # fmt: skip
    classifier, generator = ClassDiscriminator(["dark", "bright"], filters=2, dropout=0.0), Constant()
    trainer = PlayerTrainer(
        device="cpu",
        max_epochs=60,
        train_data_loader=DataLoader(samples, batch_size=8),
        method=SemiSupervisedGAN(classifier, generator, 4),
        optimizers={
            "classifier": torch.optim.Adam(classifier.parameters(), lr=0.02),
            "generator": torch.optim.Adam(generator.parameters(), lr=0.01),
        },
    )
    trainer.run()
    found = classifier(torch.stack([sample["image"] for sample in samples])).argmax(dim=1)
    assert found.tolist() == [0] * 4 + [1] * 4
    assert {"classifier/real", "classifier/fake", "generator/features"} <= set(trainer.state.output)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="lambda_ must be a number above 0"):
        made(lambda_=weight)
