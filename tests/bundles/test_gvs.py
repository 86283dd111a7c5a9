"""The settings of GVS (Section V-B) are the defaults of its bundle, and two processes train it as one does."""

import pytest
import torch
from monai.bundle import ConfigParser
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR

from pipeline.bundles import find_bundle, read_config
from pipeline.inference import load_predictor
from pipeline.launch import train
from pipeline.methods import GVS


def test_the_paper_s_settings_are_the_defaults():
    parser = ConfigParser(read_config(find_bundle("gvs").config("train")))
    method = parser.get_parsed_content("method")
    assert isinstance(method, GVS)
    assert (method.lambda_, method.difference_aware, method.residual_region) == (10.0, True, "whole")
    assert not method.real_in_step_a
    assert (parser["epochs"], parser["batch_size"], parser["average_decay"]) == (20, 8, None)
    assert (parser["spacing_mm"], parser["size"]) == (1.0, [240, 240])
    assert parser["labels"] == ["pathological"]
    optimizers, schedulers = parser.get_parsed_content("optimizers"), parser.get_parsed_content("schedulers")
    for player in ("segmentor", "generator"):
        optimizer, schedule = optimizers[player], schedulers[player]
        assert type(optimizer) is Adam
        assert tuple(optimizer.defaults["betas"]) == (0.9, 0.99)
        assert optimizer.defaults["lr"] == 1e-3
        assert isinstance(schedule, PolynomialLR)
        rates = []
        for _ in range(20):
            rates.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        assert rates == pytest.approx([1e-3 * (1 - epoch / 20) ** 0.8 for epoch in range(20)])


@pytest.mark.slow
def test_two_processes_train_as_one_does(small, phantom_cohort, monai_run, training_arguments, tmp_path):
    bundle = find_bundle("gvs")
    # Three of the four training patients: an even number of slices, so that no process gets one twice.
    settings = {**small(bundle), "fraction": 0.75}
    arguments = training_arguments(bundle, phantom_cohort, tmp_path / "two", settings, ("multi_gpu_train",))
    monai_run(*arguments, processes=2)
    train(bundle, phantom_cohort, tmp_path / "one", ["laptop"], settings)
    x_p = torch.rand(2, 1, 64, 64)
    translator, _ = load_predictor(find_bundle(str(tmp_path / "one")), "translator", device="cpu")
    network = translator.runner.network
    residuals = []
    for run in ("one", "two"):
        weights = torch.load(tmp_path / run / "models" / "model.pt", weights_only=True)
        network.load_state_dict(weights)
        residuals.append(network(x_p).detach() - x_p)
    one, two = residuals
    # Adam turns the rounding of gradients that are zero in exact arithmetic into steps: images agree, not bits.
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(one, two, rtol=0.05, atol=0.02 * float(one.abs().max()))
