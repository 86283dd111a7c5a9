"""GenSeg for several pathologies: with one it is GenSeg, with two each has what is its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.methods import GenSeg, GenSegPathologies
from pipeline.networks import (
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegDiscriminators,
    GenSegEncoder,
    GenSegResidualDecoder,
    GenSegResidualDecoders,
    GenSegSegmentor,
)

SIZES: dict[str, Any] = {"filters": (4, 4, 4)}
KINDS = ("bright", "dark")


def made(pathologies: tuple[str, ...] = KINDS) -> GenSegPathologies:
    torch.manual_seed(0)
    residual = GenSegResidualDecoders(pathologies, (6, 2), **SIZES)
    method = GenSegPathologies(
        GenSegSegmentor(GenSegEncoder(common_filters=6, unique_filters=2, pathologies=pathologies, **SIZES), residual),
        GenSegDecoder(6, **SIZES),
        residual,
        GenSegDiscriminator(**SIZES),
        GenSegDiscriminators(pathologies, **SIZES),
    )
    for network in method.networks.values():
        network.eval()
    return method


def batch(*kinds: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mask = torch.zeros(len(kinds), 1, 32, 32)
    mask[..., 8:16, 8:20] = 1
    return {
        "image": torch.rand(len(kinds), 1, 32, 32, generator=random),
        "healthy": torch.rand(len(kinds), 1, 32, 32, generator=random),
        "mask": mask,
        "labelled": torch.ones(len(kinds), 1),
        "pathology": torch.tensor(kinds, dtype=torch.float32)[:, None],
    }


def terms(method: GenSeg, data: dict[str, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(5)
    shared = method.forward(data)
    return {**method.discriminate(data, shared), **method.translate(data, shared)}


def test_with_one_pathology_it_is_the_paper_s_method():
    several = made(("lesion",))
    residual = GenSegResidualDecoder(8, **SIZES)
    residual.load_state_dict(several.residual_decoder.decoders[0].state_dict())
    D_P = GenSegDiscriminator(**SIZES)
    D_P.load_state_dict(several.D_P.discriminators[0].state_dict())
    paper = GenSeg(
        GenSegSegmentor(several.encoder, residual), several.common_decoder, residual, several.D_A, D_P.eval()
    )
    residual.eval()
    # An image's Dice and a batch's are one for a batch of one.
    for name, value in terms(several, batch(0)).items():
        torch.testing.assert_close(value, terms(paper, batch(0))[name], msg=name)


def test_an_image_is_made_itself_and_another_is_given_the_pathology_that_it_shows():
    method, data = made(), batch(0, 1)
    torch.manual_seed(5)
    shared = method.forward(data)
    for image, kind in enumerate((0, 1)):
        g_res = method.residual_decoder.decoders[kind]
        for made_of, c, u, x, skipped in (
            ("x_PP", "c_P", "u_P", "x_PA", data["image"]),
            ("x_AP", "c_A", "u", "x_AA", data["healthy"]),
        ):
            skips = [skip[image : image + 1] for skip in method.encoder(skipped)[2]]
            code = torch.cat((shared[c], shared[u].chunk(2, dim=1)[kind]), dim=1)[image : image + 1]
            expected = shared[x][image : image + 1] + g_res(code, skips)
            torch.testing.assert_close(shared[made_of][image : image + 1], expected)


def test_of_an_image_of_one_pathology_the_other_has_no_pixel():
    drawn = made()._drawn(batch(0, 1))
    assert drawn.shape == (2, 2, 32, 32)
    assert drawn.sum(dim=(2, 3)).tolist() == [[96, 0], [0, 96]]


def test_the_unique_code_of_what_is_absent_is_not_held_to_anything():
    method, data = made(), batch(0)
    u = torch.zeros(1, 4, 4, 4)
    found = u.clone()
    found[:, 2:] = 7
    assert method._unique_loss(found, u, data) == 0
    found[:, 0] = 1
    assert method._unique_loss(found, u, data) == pytest.approx(0.5)


def test_each_discriminator_and_decoder_learns_from_its_own_pathology_alone():
    method, data = made(), batch(1, 1)
    played = terms(method, data)
    sum(value for name, value in played.items() if name in ("presence", "rec", "adv")).backward()
    learned = [
        [any(p.grad is not None and bool(p.grad.any()) for p in part.parameters()) for part in parts]
        for parts in (method.D_P.discriminators, method.residual_decoder.decoders)
    ]
    assert learned == [[False, True], [False, True]]
