"""What the package names is there, and comes from where it is said to."""

import pytest

import pipeline.inference
from pipeline.inference import MODULES


def test_every_name_is_that_of_its_module():
    assert sorted(MODULES) == pipeline.inference.__all__
    for name, module in MODULES.items():
        assert getattr(pipeline.inference, name).__name__.lower() == name.lower(), module


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="has no attribute 'Twin'"):
        pipeline.inference.Twin  # noqa: B018
