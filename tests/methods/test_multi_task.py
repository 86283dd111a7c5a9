"""Multi-task learning, pooling, and domain adaptation: who learns from what."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.methods.dann import DANN, GradientReversal
from pipeline.methods.duiit import PredictionLoss
from pipeline.methods.multi_task import MultiTask
from pipeline.networks import ScoreResNet


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "image": torch.rand(2, 1, 32, 32),
        "target": torch.tensor([[40.0], [60.0]]),
        "image_MR": torch.rand(3, 1, 32, 32),
        "target_MR": torch.tensor([[30.0], [50.0], [70.0]]),
    }


@pytest.fixture
def predictor() -> ScoreResNet:
    torch.manual_seed(1)
    return ScoreResNet(filters=4, blocks=1, mean=50.0, deviation=10.0)


def gradients(method: MultiTask | DANN, batch: dict[str, Tensor], term: str) -> dict[str, bool]:
    """Which networks, and which parts of the predictor, a term of the loss reaches."""
    (player,) = method.players
    for network in method.networks.values():
        network.zero_grad()
    player.loss(batch, method.forward(batch))[term].backward()
    predictor = method.networks["predictor"]
    assert isinstance(predictor, ScoreResNet)
    parts: dict[str, nn.Module] = {**method.networks, "features": predictor.conv1, "head": predictor.fc}
    del parts["predictor"]
    return {
        name: any(parameter.grad is not None and parameter.grad.any() for parameter in part.parameters())
        for name, part in parts.items()
    }


class TestMultiTask:
    def test_features_are_shared_and_heads_are_not(self, predictor: ScoreResNet, batch: dict[str, Tensor]) -> None:
        method = MultiTask(predictor, ["MR"])
        assert gradients(method, batch, "target") == {"heads": False, "features": True, "head": True}
        assert gradients(method, batch, "source_MR") == {"heads": True, "features": True, "head": False}
        assert method.exports == {"predictor": predictor}

    def test_pooled_modalities_have_one_head(self, predictor: ScoreResNet, batch: dict[str, Tensor]) -> None:
        method = MultiTask(predictor, ["MR"], own_heads=False)
        assert gradients(method, batch, "source_MR") == {"features": True, "head": True}

    def test_without_sources_it_is_the_loss_of_the_predictor(
        self, predictor: ScoreResNet, batch: dict[str, Tensor]
    ) -> None:
        loss = PredictionLoss(reduction="mean", deviation=10.0)
        (player,) = MultiTask(copy.deepcopy(predictor), loss=loss).players
        terms = player.loss(batch, {})
        answers = predictor(batch["image"])
        assert list(terms) == ["target"]
        torch.testing.assert_close(terms["target"], ((answers - batch["target"]) ** 2).mean() / 100)


class TestDANN:
    def test_features_learn_against_the_classifier_of_modalities(
        self, predictor: ScoreResNet, batch: dict[str, Tensor]
    ) -> None:
        method = DANN(predictor, ["MR"], steps=10)
        reversal = method.networks["domain_classifier"][0]
        reversal.step.fill_(10)
        (player,) = method.players
        features = predictor.features(torch.cat([batch["image"], batch["image_MR"]])).detach().requires_grad_()
        method.D(features).logsumexp(dim=1).sum().backward()
        assert features.grad is not None
        against = features.grad.clone()
        features.grad = None
        method.D[1:](features).logsumexp(dim=1).sum().backward()
        torch.testing.assert_close(against, -reversal.strength * features.grad, rtol=1e-3, atol=1e-6)
        assert set(player.loss(batch, {})) == {"source_MR", "target", "domain"}

    def test_labels_of_the_target_modality_may_be_left_out(
        self, predictor: ScoreResNet, batch: dict[str, Tensor]
    ) -> None:
        method = DANN(predictor, ["MR"], steps=10, target_labels=False)
        terms = method.players[0].loss(batch, {})
        assert set(terms) == {"source_MR", "domain"}
        assert gradients(method, batch, "domain")["domain_classifier"]

    def test_the_reversal_grows_as_printed_and_is_kept_by_a_checkpoint(self) -> None:
        reversal = GradientReversal(steps=4)
        strengths = []
        for _ in range(6):
            strengths.append(reversal.strength)
            assert torch.equal(reversal(torch.ones(2)), torch.ones(2))
        assert strengths[0] == 0
        assert strengths[2] == pytest.approx(2 / (1 + torch.exp(torch.tensor(-5.0)).item()) - 1)
        assert strengths == sorted(strengths)
        assert strengths[4] == strengths[5] == pytest.approx(0.99991, abs=1e-5)
        reversal.eval()(torch.ones(2))
        assert int(reversal.state_dict()["step"]) == 6
