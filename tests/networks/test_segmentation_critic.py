"""What a critic of segmentations is shown of an image and a mask, and what it makes of it."""

import pytest
import torch

from pipeline.networks import SegmentationCritic


@pytest.mark.parametrize(("sees", "channels"), [("product", 4), ("masked", 2), ("pair", 3)])
def test_what_the_critic_is_shown_of_two_sequences(sees, channels):
    image, mask = torch.rand(2, 2, 32, 32), torch.rand(2, 1, 32, 32)
    critic = SegmentationCritic(in_channels=2, filters=4, sees=sees)
    shown = critic.shown(image, mask)
    assert shown.shape == (2, channels, 32, 32)
    assert critic(shown).shape == (2, 1)
    assert [tuple(each.shape[1:]) for each in critic.features(shown)] == [
        (channels, 32, 32), (4, 16, 16), (8, 8, 8), (16, 4, 4), (32, 2, 2),
    ]  # fmt: skip
    by_hand = {
        "product": torch.cat((image * mask, image * (1 - mask)), dim=1),
        "masked": image * mask,
        "pair": torch.cat((image, mask), dim=1),
    }
    torch.testing.assert_close(shown, by_hand[sees])


@pytest.mark.parametrize("option", [{"sees": "both"}, {"norm": "batch"}, {"halving": "cropped"}])
def test_a_critic_that_is_none_is_refused(option):
    with pytest.raises(ValueError, match="found"):
        SegmentationCritic(**option)
