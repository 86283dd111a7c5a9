"""The networks of GenSeg: Tables 2 to 9 of its appendix, row by row, and where what is built departs from them."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.networks import (
    AbsenceToPresence,
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegDiscriminators,
    GenSegEncoder,
    GenSegResidualDecoder,
    GenSegResidualDecoders,
    GenSegSegmentor,
    PresenceToAbsence,
)
from pipeline.networks.genseg import Convolution

SMALL = (32, 64, 128, 256)
LARGE = (16, *SMALL)
# Channels, kernel and stride as printed, then the size that each row has on its images.
TABLE_2 = [(32, 3, 1), (64, 3, 2), (128, 3, 2), (256, 3, 2), (512, 3, 2)], [48, 24, 12, 6, 3]
TABLE_3 = [(256, 3, 1), (128, 3, 1), (64, 3, 1), (32, 3, 1), (1, 3, 1)], [6, 12, 24, 48, 48]
TABLE_4 = [(256, 5, 1), (128, 5, 1), (64, 5, 1), (32, 5, 1), (1, 5, 1)], [6, 12, 24, 48, 48]
TABLE_5 = [(16, 3, 1), (32, 3, 2), (64, 3, 2), (128, 3, 2), (256, 3, 2), (512, 3, 2)], [128, 64, 32, 16, 8, 4]
TABLE_6 = [(256, 3, 1), (128, 3, 1), (64, 3, 1), (32, 3, 1), (16, 3, 1), (1, 3, 1)], [8, 16, 32, 64, 128, 128]
TABLE_7 = [(256, 5, 1), (128, 5, 1), (64, 5, 1), (32, 5, 1), (16, 5, 1), (1, 5, 1)], [8, 16, 32, 64, 128, 128]
TABLE_8 = [(128, 4, 1), (128, 4, 2), (256, 4, 2), (512, 4, 2), (1, 1, 1)], [48, 24, 12, 6, 6]
TABLE_9 = [(64, 4, 1), (64, 4, 2), (128, 4, 2), (256, 4, 2), (512, 4, 2), (1, 1, 1)], [128, 64, 32, 16, 8, 8]
BESIDE = ("compress", "short_skip", "classifier", "perceptron")


def rows(network: nn.Module, *inputs: Any) -> list[tuple[int, int, int, tuple[int, int]]]:
    """Channels, kernel, stride and output of the convolutions that the tables list, in the order of computation."""
    found = []

    def add(layer: Any, _: Any, output: torch.Tensor) -> None:
        found.append((layer.out_channels, layer.kernel_size[0], layer.stride[0], tuple(output.shape[2:])))

    for name, layer in network.named_modules():
        if isinstance(layer, Convolution) and not any(part in name for part in BESIDE):
            layer.register_forward_hook(add)
    network(*inputs)
    return found


def coded(filters: Sequence[int], side: int, common: int = 384) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A code and skips as an encoder with these filters puts out for images of this side."""
    levels = len(filters)
    skips = [torch.rand(1, filters[level], side >> level, side >> level) for level in range(levels - 1, 0, -1)]
    return torch.rand(1, common, side >> levels, side >> levels), skips


@pytest.fixture
def without_values() -> Iterator[None]:
    """Weights and images have no values: the paper's sizes cost nothing."""
    with torch.device("meta"):
        yield


@pytest.fixture(params=[(SMALL, 48), (LARGE, 128)], ids=["MNIST 48", "MNIST 128 and BraTS"])
def size(request: pytest.FixtureRequest) -> tuple[Sequence[int], int]:
    return request.param


def printed(table: tuple[list[tuple[int, int, int]], list[int]]) -> list[tuple[int, int, int, tuple[int, int]]]:
    return [(*row, (side, side)) for row, side in zip(*table, strict=True)]


@pytest.mark.parametrize(("table", "filters"), [(TABLE_2, SMALL), (TABLE_5, LARGE)], ids=["Table 2", "Table 5"])
@pytest.mark.usefixtures("without_values")
def test_the_encoder_has_the_rows_of_tables_2_and_5(table, filters):
    side = table[1][0]
    assert rows(GenSegEncoder(filters=filters), torch.rand(1, 1, side, side)) == printed(table)


@pytest.mark.parametrize(("table", "filters"), [(TABLE_3, SMALL), (TABLE_6, LARGE)], ids=["Table 3", "Table 6"])
@pytest.mark.usefixtures("without_values")
def test_the_common_decoder_has_the_rows_of_tables_3_and_6(table, filters):
    assert rows(GenSegDecoder(filters=filters), *coded(filters, table[1][-1])) == printed(table)


@pytest.mark.parametrize(("table", "filters"), [(TABLE_4, SMALL), (TABLE_7, LARGE)], ids=["Table 4", "Table 7"])
@pytest.mark.usefixtures("without_values")
def test_the_residual_decoder_has_the_rows_of_tables_4_and_7(table, filters):
    assert rows(GenSegResidualDecoder(filters=filters), *coded(filters, table[1][-1], 512)) == printed(table)


@pytest.mark.parametrize("table", [TABLE_8, TABLE_9], ids=["Table 8", "Table 9"])
@pytest.mark.usefixtures("without_values")
def test_the_discriminators_have_the_rows_of_tables_8_and_9_at_each_of_three_scales(table):
    side = table[1][0]
    D = GenSegDiscriminator(filters=[row[0] for row in table[0][:-1]])
    found = rows(D, torch.rand(1, 1, side, side))
    assert len(D.scales) == 3
    assert found[: len(table[0])] == printed(table)
    assert [row[:3] for row in found] == table[0] * 3


@pytest.mark.usefixtures("without_values")
def test_departure_the_first_convolution_of_the_decoders_upsamples_too(size):
    # As printed, three blocks behind four strides end at 24 of 48 pixels, and four behind five at 64 of 128.
    filters, side = size
    encoder, decoder = GenSegEncoder(filters=filters), GenSegDecoder(filters=filters)
    assert len(encoder.blocks) == len(decoder.blocks) + 1
    common, _, skips = encoder(torch.rand(1, 1, side, side))
    assert decoder(common, skips).shape == (1, 1, side, side)


@pytest.mark.usefixtures("without_values")
def test_departure_the_output_has_as_many_channels_as_the_image():
    image = torch.rand(1, 4, 64, 64)
    common, unique, skips = GenSegEncoder(4, LARGE)(image)
    assert GenSegDecoder(out_channels=4, filters=LARGE)(common, skips).shape == image.shape
    residual = GenSegResidualDecoder(out_channels=4, filters=LARGE)
    assert residual(torch.cat((common, unique), 1), skips).shape == image.shape


@pytest.mark.usefixtures("without_values")
def test_departure_the_short_skip_of_a_block_that_changes_channels_is_a_1x1_convolution(size):
    filters, _ = size
    for network in (GenSegEncoder(filters=filters), GenSegDecoder(filters=filters)):
        assert [block.short_skip.kernel_size for block in network.blocks] == [(1, 1)] * len(network.blocks)


@pytest.mark.usefixtures("without_values")
def test_half_slices_of_240_by_120_have_to_be_padded_to_256_by_128_where_the_code_has_8_by_4():
    common, unique, _ = GenSegEncoder(4, LARGE)(torch.rand(1, 4, 256, 128))
    assert (common.shape, unique.shape) == ((1, 384, 8, 4), (1, 128, 8, 4))


def test_the_code_of_512_channels_is_384_common_and_128_unique(size):
    filters, side = size
    common, unique, _ = GenSegEncoder(filters=filters)(torch.rand(2, 1, side, side))
    assert (common.shape[1], unique.shape[1]) == (384, 128)
    assert min(common.min(), unique.min()) == 0  # behind a ReLU, as Tables 2 and 5 print it


@pytest.mark.usefixtures("without_values")
def test_long_skips_join_stages_of_their_size_and_none_the_first_and_the_last(size):
    filters, side = size
    _, _, skips = GenSegEncoder(filters=filters)(torch.rand(1, 1, side, side))
    found = [(skip.shape[1], skip.shape[2]) for skip in skips]
    assert found == [(filters[level], side >> level) for level in range(len(filters) - 1, 0, -1)]


@pytest.mark.parametrize(
    ("skips", "joined"),
    [("compress", [257, 129, 65]), ("concat", [512, 256, 128]), ("sum", SMALL[:0:-1]), ("none", SMALL[:0:-1])],
)
@pytest.mark.usefixtures("without_values")
def test_skips_are_compressed_to_one_channel_concatenated_added_or_left_out(skips, joined):
    for decoder in (GenSegDecoder(skips=skips), GenSegResidualDecoder(skips=skips)):
        assert [block.convolution.in_channels for block in decoder.blocks] == list(joined)


@pytest.mark.parametrize("skips", ["compress", "concat", "sum", "none"])
def test_the_output_depends_on_the_skips_unless_there_are_none_and_not_on_their_scale(skips):
    torch.manual_seed(0)
    decoder = GenSegDecoder(12, filters=(4, 4, 4, 4), skips=skips).eval()
    code, features = coded((4, 4, 4, 4), 48, 12)
    made, shifted, others = (
        decoder(code, given)
        for given in (features, [5 * skip + 2 for skip in features], [torch.rand_like(skip) for skip in features])
    )
    torch.testing.assert_close(made, shifted, rtol=1e-3, atol=1e-3)  # they are instance-normalised
    assert torch.allclose(made, others) == (skips == "none")


@pytest.mark.usefixtures("without_values")
def test_encoders_normalise_instances_and_decoders_layers(size):
    filters, _ = size

    def norms(network: nn.Module, kind: type[nn.Module]) -> list[str]:
        return [name for name, layer in network.named_modules() if isinstance(layer, kind)]

    assert len(norms(GenSegEncoder(filters=filters), nn.InstanceNorm2d)) == len(filters) + 1
    decoder = GenSegDecoder(filters=filters)
    assert len(norms(decoder, nn.GroupNorm)) == len(filters)
    assert all(layer.num_groups == 1 for layer in decoder.modules() if isinstance(layer, nn.GroupNorm))


def test_blocks_normalise_and_rectify_before_the_convolution_and_nothing_follows_the_short_skip():
    torch.manual_seed(0)
    block = GenSegEncoder(filters=(4, 4), common_filters=3, unique_filters=1).blocks[0].eval()
    features = torch.randn(2, 4, 8, 8)
    expected = block.convolution(block.norm(features).relu()) + block.short_skip(features)
    torch.testing.assert_close(block(features), expected)


def test_pixels_are_repeated_before_the_convolution():
    torch.manual_seed(0)
    block = GenSegDecoder(4, filters=(4, 4), skips="none").blocks[0].eval()
    features = torch.randn(1, 4, 4, 4)

    def repeated(given: torch.Tensor) -> torch.Tensor:
        return given.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    expected = block.convolution(repeated(block.norm(features).relu())) + block.short_skip(repeated(features))
    torch.testing.assert_close(block(features, features, None), expected)


@pytest.mark.usefixtures("without_values")
def test_only_the_residual_decoder_has_no_short_skips():
    assert all(block.short_skip is None for block in GenSegResidualDecoder().blocks)
    assert all(block.short_skip is not None for block in GenSegDecoder().blocks)


def test_borders_are_reflected_and_weights_kaiming_normal(size):
    filters, _ = size
    for network in (
        GenSegEncoder(filters=filters),
        GenSegDecoder(filters=filters),
        GenSegResidualDecoder(filters=filters),
    ):
        for layer in network.modules():
            if isinstance(layer, Convolution):
                assert layer.padding_mode == "reflect" or layer.kernel_size == (1, 1)
                fan_in = layer.weight[0].numel()
                if layer.weight.numel() > 10_000:
                    assert float(layer.weight.detach().std()) == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
                assert not layer.bias.any()


def residual(norm: str, **options: Any) -> GenSegResidualDecoder:
    torch.manual_seed(0)
    return GenSegResidualDecoder(8, filters=(4, 4, 4), segmentation_norm=norm, **options)


@pytest.mark.parametrize("norm", ["adaptive", "own"])
def test_segmentation_uses_the_convolutions_of_the_translation_but_not_its_norms_and_last_layer(norm):
    decoder = residual(norm)
    code, skips = coded((4, 4, 4), 32, 8)
    decoder.segment(code, skips).sum().backward()
    reached = {name for name, parameter in decoder.named_parameters() if parameter.grad is not None}
    assert {f"blocks.{level}.convolution.weight" for level in (0, 1)} | {"first.weight", "classifier.weight"} <= reached
    assert not any(name.startswith("last") or ".norm." in name for name in reached)
    decoder.zero_grad()
    decoder(code, skips).sum().backward()
    unreached = {name for name, parameter in decoder.named_parameters() if parameter.grad is None}
    assert {"classifier.weight", "classifier.bias"} <= unreached
    assert all(name.startswith(("classifier", "perceptron")) or "segmentation_norm" in name for name in unreached)


@pytest.mark.usefixtures("without_values")
def test_adaptive_norms_take_scale_and_shift_from_a_perceptron_of_four_layers_of_256_units():
    decoder = GenSegResidualDecoder()
    layers = [layer for layer in decoder.perceptron if isinstance(layer, Convolution)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers[:4]] == [(512, 256), *[(256, 256)] * 3]
    assert layers[-1].out_channels == 2 * (257 + 129 + 65)
    assert residual("own").perceptron is None


def test_the_perceptron_sees_the_codes_mean_so_that_images_may_have_any_size():
    decoder = residual("adaptive").eval()
    code, _ = coded((4, 4, 4), 32, 8)
    seen = []
    decoder.perceptron.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for side in (32, 64):
        _, skips = coded((4, 4, 4), side, 8)
        decoder.segment(code.repeat_interleave(side // 32, 2).repeat_interleave(side // 32, 3), skips)
    torch.testing.assert_close(seen[0], seen[1])
    assert seen[0].shape == (1, 8, 1, 1)


@pytest.mark.parametrize("spectral_norm", ["all", "inner", "none"])
def test_spectral_norm_is_on_all_convolutions_on_all_but_output_and_classifier_or_on_none(spectral_norm):
    decoder = residual("adaptive", spectral_norm=spectral_norm)
    convolutions = {name: layer for name, layer in decoder.named_modules() if isinstance(layer, Convolution)}
    without = {name for name, layer in convolutions.items() if not layer.spectral}
    assert without == {"all": set(), "inner": {"last.2", "classifier"}, "none": set(convolutions)}[spectral_norm]


def test_spectral_norm_holds_the_largest_singular_value_at_1_while_the_weight_changes():
    torch.manual_seed(0)
    layer = Convolution(6, 8, 3)
    with torch.no_grad():
        layer.weight.mul_(7).add_(0.1)
    features = torch.rand(1, 6, 8, 8)
    for _ in range(30):
        layer(features)
    divided = layer.weight / layer.left.dot(layer.weight.flatten(1).mv(layer.right))
    assert float(torch.linalg.matrix_norm(divided.detach().flatten(1), 2)) == pytest.approx(1, rel=1e-3)


def test_spectral_norm_is_kept_in_the_state_and_stands_still_in_use():
    one, other = Convolution(2, 3, 3), Convolution(2, 3, 3)
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 2, 8, 8)
    assert torch.equal(one.eval()(image), other.eval()(image))
    assert torch.equal(one(image), one(image))
    assert set(Convolution(2, 3, 3, spectral=False).state_dict()) == {"weight", "bias"}


def test_two_passes_and_a_gradient_through_both():
    # Power iterations of the second pass must not change what the first one's gradient needs.
    layer = Convolution(2, 2, 3)
    layer(layer(torch.rand(1, 2, 8, 8))).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_a_score_is_the_mean_over_a_scales_map_and_then_over_the_three_scales():
    D = GenSegDiscriminator(filters=(4, 4, 4, 4)).eval()
    image = torch.rand(2, 1, 48, 48)
    score, means = D(image), []
    for scale in D.scales:
        means.append(scale(image).mean(dim=(1, 2, 3)))
        image = D.halve(image)
    torch.testing.assert_close(score[:, 0], sum(means) / 3)


@pytest.mark.parametrize(("norm", "kind"), [("instance", nn.InstanceNorm2d), ("layer", nn.GroupNorm)])
def test_discriminators_leak_a_fifth_and_have_the_norm_that_is_asked_for(norm, kind):
    D = GenSegDiscriminator(filters=(4, 4, 4, 4), norm=norm)
    assert {layer.negative_slope for layer in D.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
    norms = [type(layer) for layer in D.modules() if isinstance(layer, nn.InstanceNorm2d | nn.GroupNorm)]
    assert norms == [kind] * 9  # none before the first and the last of five layers


def exports(output: tuple[str, str] = ("linear", "linear")) -> list[nn.Module]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"filters": (4, 4, 4, 4)}
    f = GenSegEncoder(common_filters=6, unique_filters=2, **sizes)
    com, res = GenSegDecoder(6, output=output[0], **sizes), GenSegResidualDecoder(8, output=output[1], **sizes)
    return [
        network.eval()
        for network in (GenSegSegmentor(f, res), PresenceToAbsence(f, com), AbsenceToPresence(f, com, res))
    ]


def test_absence_becomes_presence_by_a_residual_of_a_code_that_is_drawn_anew():
    _, absence, presence = exports()
    image = torch.rand(1, 1, 32, 32)
    one, other = presence(image), presence(image)
    assert not torch.allclose(one, other)
    torch.manual_seed(3)
    drawn = presence(image)
    torch.manual_seed(3)
    common, _, skips = presence.encoder(image)
    residual = presence.residual_decoder(torch.cat((common, torch.randn(1, 2, 2, 2)), 1), skips)
    torch.testing.assert_close(drawn, absence(image) + residual)


def test_images_and_residuals_can_be_held_in_their_range():
    _, absence, presence = exports(("image", "tanh"))
    with torch.no_grad():
        for decoder in (presence.common_decoder, presence.residual_decoder):
            decoder.last[-1].bias.fill_(50)
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(absence(image), torch.ones_like(image))
    torch.testing.assert_close(presence(image), 2 * torch.ones_like(image))


def decoders(pathologies: int, seed: int = 0) -> GenSegResidualDecoders:
    torch.manual_seed(seed)
    names = [f"kind{number}" for number in range(pathologies)]
    return GenSegResidualDecoders(names, (6, 2), filters=(4, 4, 4), segmentation_norm="own").eval()


def test_each_pathology_has_a_unique_code_and_a_residual_decoder_and_what_is_present_adds_up():
    encoder = GenSegEncoder(filters=(4, 4, 4), common_filters=6, unique_filters=2, pathologies=("a", "b")).eval()
    common, unique, skips = encoder(torch.rand(3, 1, 32, 32))
    assert (common.shape[1], unique.shape[1]) == (6, 4)
    several = decoders(2)
    code = torch.cat((common, unique), dim=1)
    own = [
        decoder(torch.cat((common, part), dim=1), skips)
        for decoder, part in zip(several.decoders, unique.chunk(2, dim=1), strict=True)
    ]
    assert not torch.allclose(own[0], own[1])
    present = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    found = several(code, skips, present)
    for image, expected in enumerate((own[0][0], own[1][1], own[0][2] + own[1][2])):
        torch.testing.assert_close(found[image], expected)
    torch.testing.assert_close(several(code, skips), own[0] + own[1])


def test_each_pathology_is_segmented_by_its_own_decoder_from_its_own_code():
    several, skips = decoders(2), [torch.rand(1, 4, 8, 8), torch.rand(1, 4, 16, 16)]
    code = torch.rand(1, 10, 4, 4)
    logits = several.segment(code, skips)
    other = torch.cat((code[:, :8], torch.rand(1, 2, 4, 4)), dim=1)
    assert logits.shape == (1, 2, 32, 32)
    torch.testing.assert_close(several.segment(other, skips)[:, 0], logits[:, 0])
    assert not torch.allclose(several.segment(other, skips)[:, 1], logits[:, 1])


def test_one_pathology_is_the_paper_s_decoder():
    torch.manual_seed(0)
    plain = GenSegResidualDecoder((6, 2), filters=(4, 4, 4), segmentation_norm="own").eval()
    code, skips = torch.rand(2, 8, 4, 4), [torch.rand(2, 4, 8, 8), torch.rand(2, 4, 16, 16)]
    torch.testing.assert_close(decoders(1)(code, skips), plain(code, skips))
    torch.testing.assert_close(decoders(1).segment(code, skips), plain.segment(code, skips))


@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_segmentor_of_several_pathologies_scripts():
    encoder = GenSegEncoder(filters=(4, 4, 4), common_filters=6, unique_filters=2, pathologies=("a", "b"))
    network, image = GenSegSegmentor(encoder, decoders(2)).eval(), torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_each_pathology_has_a_discriminator_which_judges_its_own_images_alone():
    torch.manual_seed(0)
    several = GenSegDiscriminators(["a", "b"], filters=(4, 4, 4)).eval()
    images = torch.rand(2, 1, 32, 32)
    scores = several(images, torch.tensor([[0.0, 1], [1, 0]]))
    torch.testing.assert_close(
        scores, torch.stack([several.discriminators[1](images)[0], several.discriminators[0](images)[1]])
    )


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.usefixtures("without_shape_checks")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_users_run_scripts_and_the_script_gives_the_same(place):
    network, image = exports()[place], torch.rand(1, 1, 32, 48)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GenSegDecoder(skips="add"), "skips is one of compress, concat, sum, none, found 'add'"),
        (lambda: GenSegEncoder(spectral_norm="yes"), "spectral_norm is one of all, inner, none, found 'yes'"),
        (lambda: GenSegDecoder(output="tanh"), "output is one of linear, image, found 'tanh'"),
        (lambda: GenSegResidualDecoder(output="image"), "output is one of linear, tanh, found 'image'"),
        (lambda: GenSegResidualDecoder(segmentation_norm="layer"), "'adaptive' or 'own', found 'layer'"),
        (lambda: GenSegDiscriminator(norm="batch"), "'instance' or 'layer', found 'batch'"),
    ],
)
def test_an_unknown_option_is_refused_with_its_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
