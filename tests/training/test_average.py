"""The moving average that users get: of weights and of what batch norm remembers; other buffers are the network's."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.training.average import MovingAverage

DECAY = 0.75


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.spectral = spectral_norm(nn.Linear(2, 2))


def steps(network: nn.Module, average: MovingAverage) -> list[dict[str, torch.Tensor]]:
    states = []
    for value in (1.0, 5.0, -2.0):
        with torch.no_grad():
            network.norm.weight.fill_(value)
            network.norm.running_mean.fill_(10 * value)
            network.norm.running_var.fill_(value**2)
            network.norm.num_batches_tracked.add_(1)
            network.spectral.parametrizations.weight[0]._u.fill_(value)
        average.update_parameters(network)
        states.append({name: value.clone() for name, value in network.state_dict().items()})
    return states


@pytest.mark.parametrize("name", ["norm.weight", "norm.running_mean", "norm.running_var"])
def test_weights_and_statistics_move_together_by_one_minus_the_decay(name):
    network = Network()
    average = MovingAverage(network, DECAY)
    states = steps(network, average)
    expected = states[0][name]
    for state in states[1:]:
        expected = DECAY * expected + (1 - DECAY) * state[name]
    torch.testing.assert_close(average.module.state_dict()[name], expected)
    assert not torch.equal(expected, states[-1][name])


@pytest.mark.parametrize("name", ["norm.num_batches_tracked", "spectral.parametrizations.weight.0._u"])
def test_other_buffers_are_those_of_the_network(name):
    network = Network()
    average = MovingAverage(network, DECAY)
    states = steps(network, average)
    assert torch.equal(average.module.state_dict()[name], states[-1][name])


def test_an_average_that_is_resumed_goes_on_as_if_it_had_not_stopped():
    network = Network()
    average, resumed = MovingAverage(network, DECAY), MovingAverage(Network(), DECAY)
    steps(network, average)
    resumed.load_state_dict(average.state_dict())
    for each in (average, resumed):
        steps(copy.deepcopy(network), each)
    for name, value in average.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


def test_a_network_without_batch_norm_is_averaged_too():
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, DECAY)
    for value in (0.0, 4.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
    assert average.module.weight.item() == 1.0
