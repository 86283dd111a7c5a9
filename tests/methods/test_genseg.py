"""GenSeg as the paper plays it: Equations 1 to 12, each against what is written there, and the baselines."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.optim import Adam
from torch.utils.data import DataLoader

from pipeline.methods.genseg import Autoencoding, GenSeg
from pipeline.networks import (
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegEncoder,
    GenSegResidualDecoder,
    GenSegSegmentor,
)
from pipeline.training import PlayerTrainer

SIZES: dict[str, Any] = {"filters": (4, 4, 4)}


def encoder() -> GenSegEncoder:
    return GenSegEncoder(common_filters=6, unique_filters=2, **SIZES)


def genseg(separate: bool = False, **options: Any) -> GenSeg:
    torch.manual_seed(0)
    residual = GenSegResidualDecoder(8, **SIZES)
    method = GenSeg(
        GenSegSegmentor(encoder(), GenSegDecoder(8, **SIZES) if separate else residual),
        GenSegDecoder(6, **SIZES),
        residual,
        GenSegDiscriminator(filters=(4, 4, 4, 4)),
        GenSegDiscriminator(filters=(4, 4, 4, 4)),
        **options,
    )
    for network in method.networks.values():
        network.eval()  # spectral norm stands still, so that a pass can be repeated
    return method


def autoencoding(reconstruct: bool = True, **options: Any) -> Autoencoding:
    torch.manual_seed(0)
    segmentor = GenSegSegmentor(encoder(), GenSegDecoder(8, **SIZES))
    return Autoencoding(segmentor, GenSegDecoder(8, skips="none", **SIZES) if reconstruct else None, **options)


def batch(samples: int = 4) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mask = torch.zeros(samples, 1, 32, 32)
    mask[..., 8:16, 8:20] = 1
    return {
        "image": torch.rand(samples, 1, 32, 32, generator=random),
        "healthy": torch.rand(samples, 1, 32, 32, generator=random),
        "mask": mask,
        "labelled": torch.tensor([[1.0], [0.0], [0.0], [1.0]])[:samples],
    }


def played(method: GenSeg, data: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return method.forward(data)


def joined(*codes: Tensor) -> Tensor:
    return torch.cat(codes, dim=1)


def test_equations_1_to_3_presence_becomes_absence_and_a_residual_makes_it_itself_again():
    method, data = genseg(), batch()
    shared = played(method, data)
    c_P, u_P, skips = method.encoder(data["image"])
    c_A, _, skips_A = method.encoder(data["healthy"])
    torch.testing.assert_close(shared["c_P"], c_P)
    torch.testing.assert_close(shared["x_AA"], method.common_decoder(c_A, skips_A))
    x_PA = method.common_decoder(c_P, skips)
    torch.testing.assert_close(shared["x_PA"], x_PA)
    torch.testing.assert_close(shared["x_PP"], x_PA + method.residual_decoder(joined(c_P, u_P), skips))


@pytest.mark.parametrize("separate", [False, True])
def test_equations_4_and_5_what_is_labelled_is_segmented_by_the_residual_decoder_or_one_of_its_own(separate):
    method, data = genseg(separate), batch()
    logits = played(method, data)["ŷ logits"]
    torch.testing.assert_close(logits, method.segmentor(data["image"])[[0, 3]])
    assert (method.segmentor.decoder is method.residual_decoder) != separate


def test_equation_6_absence_becomes_presence_by_a_normal_code_and_absence_again():
    method, data = genseg(), batch()
    shared = played(method, data)
    torch.manual_seed(5)
    u = torch.randn(shared["u_P"].shape)
    assert torch.equal(shared["u"], u)
    c_A, _, skips = method.encoder(data["healthy"])
    residual = method.residual_decoder(joined(c_A, u), skips)
    torch.testing.assert_close(shared["x_AP"], method.common_decoder(c_A, skips) + residual)
    assert not torch.equal(method.forward(data)["u"], u)


def test_equation_7_weighs_the_losses_as_printed_with_the_segmentation_s_weight_that_it_lacks():
    data = batch()
    plain = genseg(lambdas=(1.0, 1.0, 1.0, 1.0, 1.0))
    bare = plain.translate(data, played(plain, data))
    method = genseg()
    weighted = method.translate(data, played(method, data))
    assert {name: float((weighted[name] / bare[name]).detach()) for name in weighted} == pytest.approx(
        {"seg": 0.01, "rec": 50, "lat": 1, "cyc": 50, "adv": 3}, rel=1e-4
    )


def test_equation_8_is_the_dice_loss_of_the_labelled_images():
    method, data = genseg(lambdas=(1.0, 0.0, 0.0, 0.0, 0.0)), batch()
    found = method.segmentor(data["image"])[[0, 3]].sigmoid().flatten(1)
    drawn = data["mask"][[0, 3]].flatten(1)
    dice = (2 * (found * drawn).sum(1) + 1e-5) / (found.sum(1) + drawn.sum(1) + 1e-5)
    torch.testing.assert_close(method.translate(data, played(method, data))["seg"], (1 - dice).mean())


def test_masks_of_unlabelled_images_change_nothing_and_none_at_all_costs_nothing():
    method, data = genseg(), batch()
    before = method.translate(data, played(method, data))
    data["mask"][1:3] = 1 - data["mask"][1:3]
    after = method.translate(data, played(method, data))
    assert before == after
    data["labelled"] = torch.zeros(4, 1)
    terms = method.translate(data, played(method, data))
    assert float(terms["seg"]) == 0
    sum(terms.values()).backward()


def test_without_a_word_about_labels_all_masks_are_used():
    method, data = genseg(), batch()
    del data["labelled"]
    assert len(played(method, data)["ŷ logits"]) == 4


def test_equation_9_reconstructs_images_of_both_domains():
    method, data = genseg(lambdas=(0.0, 1.0, 0.0, 0.0, 0.0)), batch()
    shared = played(method, data)
    expected = l1_loss(shared["x_PP"], data["image"]) + l1_loss(shared["x_AA"], data["healthy"])
    torch.testing.assert_close(method.translate(data, shared)["rec"], expected)


def test_equation_10_reconstructs_the_codes_of_all_six_terms():
    method, data = genseg(lambdas=(0.0, 0.0, 1.0, 0.0, 0.0)), batch()
    shared, f = played(method, data), method.encoder
    (c_A, _, _), (c_P, u_P, _) = f(data["healthy"]), f(data["image"])
    (c_PA, _, _), (c_AA, _, _) = f(shared["x_PA"]), f(shared["x_AA"])
    (c_AP, u_AP, _), (c_PP, u_PP, _) = f(shared["x_AP"]), f(shared["x_PP"])
    pairs = [(c_P, c_PA), (c_A, c_AP), (c_A, c_AA), (c_P, c_PP), (u_P, u_PP), (shared["u"], u_AP)]
    expected = sum((one - other).abs().mean() for one, other in pairs)
    torch.testing.assert_close(method.translate(data, shared)["lat"], expected)


def test_equation_11_closes_the_cycle_from_absence_to_presence_and_back():
    method, data = genseg(lambdas=(0.0, 0.0, 0.0, 1.0, 0.0)), batch()
    shared = played(method, data)
    c_AP, _, skips = method.encoder(shared["x_AP"])
    x_APA = method.common_decoder(c_AP, skips)
    torch.testing.assert_close(method.translate(data, shared)["cyc"], l1_loss(x_APA, data["healthy"]))


def test_equation_12_is_a_hinge_in_each_domain_for_each_player():
    method, data = genseg(lambdas=(0.0, 0.0, 0.0, 0.0, 1.0)), batch()
    shared = played(method, data)
    terms = method.discriminate(data, shared)
    for name, D, real, fake in (
        ("absence", method.D_A, data["healthy"], shared["x_PA"]),
        ("presence", method.D_P, data["image"], shared["x_AP"]),
    ):
        expected = (1 - D(real)).relu().mean() + (1 + D(fake)).relu().mean()
        torch.testing.assert_close(terms[name], expected)
    adv = method.translate(data, shared)["adv"]
    torch.testing.assert_close(adv, -method.D_A(shared["x_PA"]).mean() - method.D_P(shared["x_AP"]).mean())


def test_the_discriminator_of_absence_sees_reconstructions_too_if_asked_to():
    method, data = genseg(judge_x_AA=True, lambdas=(0.0, 0.0, 0.0, 0.0, 1.0)), batch()
    shared = played(method, data)
    terms = method.discriminate(data, shared)
    assert set(terms) == {"absence", "presence", "reconstruction"}
    fakes = ((method.D_A, "x_PA"), (method.D_P, "x_AP"), (method.D_A, "x_AA"))
    torch.testing.assert_close(method.translate(data, shared)["adv"], -sum(D(shared[name]).mean() for D, name in fakes))


def test_the_exports_are_segmenter_translator_and_sampler():
    method, data = genseg(), batch()
    shared = played(method, data)
    assert list(method.exports) == ["segmentor", "absence", "presence"]
    torch.testing.assert_close(method.exports["absence"](data["image"]), shared["x_PA"])
    torch.manual_seed(5)
    torch.testing.assert_close(method.exports["presence"](data["healthy"]), shared["x_AP"])


@pytest.mark.parametrize("separate", [False, True])
def test_each_parameter_has_one_owner_and_is_reached(separate):
    method, data = genseg(separate), batch()
    owners = [
        id(p) for player in method.players for name in player.networks for p in method.networks[name].parameters()
    ]
    assert len(owners) == len(set(owners))
    assert ("residual_decoder" in method.networks) == separate
    shared = played(method, data)
    sum(method.translate(data, shared).values()).backward()
    made = method.segmentor.decoder.last[-1] if separate else method.segmentor.decoder.classifier
    assert made.weight.grad.abs().max() > 0
    for network in (method.encoder, method.common_decoder, method.residual_decoder):
        assert network.first.weight.grad.abs().max() > 0


def trainer(method: GenSeg | Autoencoding, **options: Any) -> PlayerTrainer:
    data = batch()
    samples = [{key: value[index] for key, value in data.items()} for index in range(4)]
    return PlayerTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=DataLoader(samples, batch_size=4),  # type: ignore[arg-type]
        method=method,
        optimizers={
            player.name: Adam([p for name in player.networks for p in method.networks[name].parameters()], amsgrad=True)
            for player in method.players
        },
        **options,
    )


@pytest.mark.parametrize("amp", [None, "bfloat16"])
@pytest.mark.parametrize(
    "make", [genseg, lambda: genseg(separate=True), autoencoding, lambda: autoencoding(reconstruct=False)]
)
def test_the_engine_trains_it_discriminators_first(make, amp):
    method = make()
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in method.networks.items()}
    engine = trainer(method, amp=amp)
    steps: list[str] = []
    for name, optimizer in engine.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
    engine.run()
    assert steps == [player.name for player in method.players] * 2
    assert all(math.isfinite(value) for value in engine.state.output.values())
    for name, network in method.networks.items():
        after = network.state_dict()
        assert {value.dtype for value in after.values()} == {torch.float32}
        assert any(not torch.equal(value, before[name][key]) for key, value in after.items()), name


def test_autoencoding_adds_the_reconstruction_of_both_domains_from_the_whole_code_without_skips():
    method, data = autoencoding(), batch()
    method.segmentor.eval()
    method.reconstruction_decoder.eval()
    terms = method.learn(data, {})
    expected = sum(
        l1_loss(method.reconstruction_decoder(joined(*method.segmentor.encoder(x)[:2]), 2 * [torch.empty(0)]), x)
        for x in (data["image"], data["healthy"])
    )
    torch.testing.assert_close(terms["rec"], expected)
    torch.testing.assert_close(
        terms["seg"], method.dice_loss(method.segmentor(data["image"])[[0, 3]], data["mask"][:2])
    )


def test_segmentation_only_is_the_dice_loss_alone_and_learns_nothing_from_a_batch_without_labels():
    method, data = autoencoding(reconstruct=False), batch()
    assert set(method.learn(data, {})) == {"seg"}
    data["labelled"] = torch.zeros(4, 1)
    loss = method.learn(data, {})["seg"]
    loss.backward()
    assert float(loss) == 0
    assert not any(p.grad.any() for p in method.segmentor.parameters() if p.grad is not None)


def test_a_decoder_with_skips_reconstructs_nothing_worth_learning_and_is_refused():
    segmentor = GenSegSegmentor(encoder(), GenSegDecoder(8, **SIZES))
    with pytest.raises(ValueError, match=r"trivial .* found 'compress'"):
        Autoencoding(segmentor, GenSegDecoder(8, **SIZES))


@pytest.mark.parametrize("lambdas", [(1.0,), (0.01, 50, 1, 50, -3), (0.01, 50, 1, 50, float("nan"))])
def test_lambdas_are_five_numbers_of_0_or_more(lambdas):
    with pytest.raises(ValueError, match="5 numbers of 0 or more"):
        genseg(lambdas=lambdas)


def test_a_discriminator_that_ends_in_a_sigmoid_is_refused():
    method = genseg()
    method.D_A.sigmoid = True
    with pytest.raises(ValueError, match="linear"):
        GenSeg(method.segmentor, method.common_decoder, method.residual_decoder, method.D_A, nn.Identity())
