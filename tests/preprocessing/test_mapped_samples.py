"""Samples in files: what was kept comes back."""

import torch

from pipeline.preprocessing.mapped_samples import MappedSamples


def test_samples_are_kept_as_they_are_outside_of_memory() -> None:
    made = [{"image": torch.rand(1, 4, 4), "mask": torch.rand(1, 4, 4) > 0.5} for _ in range(5)]
    kept = MappedSamples(iter(made))
    assert len(kept) == 5
    for sample, again in zip(made, kept, strict=True):
        assert all(torch.equal(sample[name], again[name]) for name in sample)
    assert torch.equal(kept[-1]["image"], made[-1]["image"])
    assert [torch.equal(sample["mask"], made[place]["mask"]) for place, sample in enumerate(kept[1:3], 1)] == [True] * 2
    assert len(MappedSamples([])) == 0
