"""The images of an evaluation survive the way to disk and back."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.evaluation.twins import Twins, read_twins, write_twins


def twins() -> Twins:
    draw = np.random.default_rng(0)
    image, twin = draw.random((2, 3, 5, 7)).astype(np.float32)
    return Twins("sub-1", np.array([2, 5, 9]), image, twin, image > 0.8, image > 0.1, (1.0, 0.5))


def test_images_come_back_to_a_level_of_16_bits_and_masks_exactly(tmp_path: Path) -> None:
    written = twins()
    write_twins(tmp_path, written)
    found = read_twins(tmp_path / "sub-1.npz")
    assert (found.subject, found.spacing_mm) == ("sub-1", (1.0, 0.5))
    np.testing.assert_array_equal(found.places, written.places)
    np.testing.assert_array_equal(found.lesion, written.lesion)
    np.testing.assert_array_equal(found.foreground, written.foreground)
    for name in ("image", "twin"):
        np.testing.assert_allclose(getattr(found, name), getattr(written, name), atol=0.5 / 65535 + 1e-7)
        assert getattr(found, name).dtype == np.float32


@pytest.mark.parametrize("damage", [b"", b"no archive"])
def test_a_damaged_or_missing_file_is_said_in_a_sentence(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "sub-1.npz"
    with pytest.raises(UsageError, match=r"sub-1\.npz: missing or damaged"):
        read_twins(path)
    path.write_bytes(damage)
    with pytest.raises(UsageError, match=r"sub-1\.npz: missing or damaged"):
        read_twins(path)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "sub-1.npz"
    np.savez(path, places=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UsageError, match="missing or damaged"):
        read_twins(path)
