"""DUIIT's networks: CycleGAN's, once for each source modality."""

import pytest
import torch

from pipeline.networks import JohnsonGenerator, PatchGANDiscriminator, SourceDiscriminators, SourceTranslators


@pytest.mark.parametrize(("size", "blocks"), [((128, 128), 6), ((240, 240), 6), ((256, 256), 9), ((512, 256), 9)])
def test_residual_blocks_are_those_of_cyclegan_for_the_images_size(size, blocks):
    made = SourceTranslators(["MR", "PET"], size, filters=2)
    assert [len(generator.blocks) for generator in made.values()] == [blocks, blocks]
    assert len(SourceTranslators(["MR"], size, filters=2, residual_blocks=3)["MR"].blocks) == 3


def test_generator_and_discriminator_of_each_source_are_cyclegan_s(count):
    translators, discriminators = SourceTranslators(["MR", "PET"]), SourceDiscriminators(["MR", "PET"])
    assert list(translators) == list(discriminators) == ["MR", "PET"]
    assert count(translators) == 2 * count(JohnsonGenerator(filters=64, residual_blocks=9))
    assert count(discriminators) == 2 * count(PatchGANDiscriminator(64))


def test_a_user_s_scan_is_translated_by_the_generator_of_its_modality():
    translators = SourceTranslators(["MR", "PET"], filters=2, residual_blocks=1).eval()
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(translators(image), translators["MR"](image))
    translators.source = "PET"
    torch.testing.assert_close(translators(image), translators["PET"](image))
    assert not torch.allclose(translators(image), translators["MR"](image))


@pytest.mark.parametrize("network", [SourceTranslators, SourceDiscriminators])
@pytest.mark.parametrize("sources", [[], ["MR", "MR"], "MR"])
def test_what_names_no_sources_is_refused(network, sources):
    with pytest.raises(ValueError, match="different names of modalities"):
        network(sources)
