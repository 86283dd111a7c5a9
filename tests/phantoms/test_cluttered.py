"""Cluttered MNIST as GenSeg describes it (Section 4.1), and the cohort of it that `preprocess` takes."""

import csv
import os
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.cli.phantom import phantom as phantom_command
from pipeline.errors import UsageError
from pipeline.phantoms.cluttered import VARIANTS, Digits, Variant, absence, presence, read_digits, scikit_digits
from pipeline.phantoms.cluttered_cohort import write_cluttered_cohort
from pipeline.preprocessing.cohort import Settings, preprocess
from pipeline.preprocessing.cohort_format import read_cohort, read_mask, read_part
from pipeline.preprocessing.slab import WHOLE
from pipeline.preprocessing.window import WindowRule

COUNT = 120


def digits(count: int = COUNT) -> Digits:
    """Crosses of a brightness that tells which each is, in the middle of the picture."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 12:16, 6:22] = images[:, 6:22, 12:16] = (135 + np.arange(count))[:, None, None]
    return Digits(images, labels)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits")
    write_cluttered_cohort(directory, digits(), "48-hard", seed=3)
    return directory


@pytest.fixture(scope="module")
def cohort(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("prepared") / "cohort"
    window = WindowRule(fixed=(0, 255))
    preprocess(written, directory, Settings(modality="image", slab=WHOLE, window=window, target="digit"), workers=1)
    return directory


@pytest.mark.parametrize(("variant", "side", "pieces"), [("48-simple", 48, 8), ("48-hard", 48, 24), ("128", 128, 80)])
def test_the_three_tasks_have_the_papers_sizes_and_pieces(variant, side, pieces):
    assert (VARIANTS[variant].side, VARIANTS[variant].pieces) == (side, pieces)
    others = np.full((1, 28, 28), 255, np.uint8)
    # Where nothing overlaps, so many crops of 10×10 pixels were pasted.
    pictures = [absence(np.random.default_rng(seed), others, VARIANTS[variant]) for seed in range(40)]
    assert {picture.shape for picture in pictures} == {(side, side)}
    assert max(int((picture > 0).sum()) for picture in pictures) <= 100 * pieces
    if variant == "48-simple":
        assert max(int((picture > 0).sum()) for picture in pictures) > 0.8 * 100 * pieces


def test_a_digit_is_whole_and_its_mask_is_where_it_is_brighter_than_half_under_the_clutter_too():
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 10:18], digit[4:24, 9] = 200, 127
    others = np.full((1, 28, 28), 90, np.uint8)
    others[:, 14, 14] = 255
    covered = 0
    for seed in range(20):
        picture, mask = presence(np.random.default_rng(seed), digit, others, VARIANTS["48-simple"])
        assert mask.sum() == 20 * 8
        assert set(np.unique(picture[mask > 0])) <= {90, 200, 255}
        covered += int((picture[mask > 0] != 200).sum())
    assert covered > 0


def test_overlaps_are_dithered_so_that_no_border_tells_which_lies_above():
    digit, others = np.full((28, 28), 200, np.uint8), np.full((1, 28, 28), 140, np.uint8)
    picture, _ = presence(np.random.default_rng(0), digit, others, Variant(side=28, pieces=1))
    rows, columns = np.nonzero(picture == 140)
    assert np.ptp(rows) < 10
    assert np.ptp(columns) < 10
    assert 35 < len(rows) < 65  # of 100


def test_digits_lie_anywhere():
    places = set()
    for seed in range(200):
        _, mask = presence(np.random.default_rng(seed), digits().images[0], digits().images, VARIANTS["48-simple"])
        places.add(tuple(np.argwhere(mask).min(axis=0)))
    rows, columns = zip(*places, strict=True)
    assert (min(rows), max(rows)) == (6, 26)  # the cross begins 6 pixels inside its 28
    assert (min(columns), max(columns)) == (6, 26)


def test_every_piece_has_ink_in_it():
    others = np.zeros((1, 28, 28), np.uint8)
    others[0, 0, 0] = 255
    picture = absence(np.random.default_rng(0), others, VARIANTS["48-simple"])
    assert 1 <= (picture > 0).sum() <= 8


def test_there_are_as_many_pictures_with_a_digit_as_digits_and_as_many_without(cohort):
    content = read_cohort(cohort)
    for split, count in (("training", 84), ("validation", 18), ("test", 18)):
        labels = [label for subject in content.of(split) for label in subject.labels]
        assert (labels.count("pathological"), labels.count("healthy")) == (count, count)


def test_each_volume_shows_one_digit_and_says_which_one(cohort):
    content, shown = read_cohort(cohort), digits()
    brightness = {int(shown.images[index].max()): int(shown.labels[index]) for index in range(COUNT)}
    assert {subject.target for subject in content.subjects} == {float(digit) for digit in range(10)}
    for subject in content.subjects:
        pictures, masks = read_part(cohort, subject, subject.images), read_mask(cohort, subject)
        for picture, mask in zip(pictures, masks, strict=True):
            if mask.any():
                values, counts = np.unique(np.rint(picture[mask > 0] / 65535 * 255), return_counts=True)
                assert brightness[int(values[counts.argmax()])] == subject.target


def test_clutter_is_cut_from_digits_of_the_same_split_alone(cohort):
    ink = {}
    for split in ("training", "validation", "test"):
        found = set()
        for subject in read_cohort(cohort).of(split):
            found |= set(np.unique(np.rint(read_part(cohort, subject, subject.images) / 65535 * 255))) - {0}
        ink[split] = found
    assert not ink["training"] & ink["validation"]
    assert not ink["training"] & ink["test"]
    assert not ink["validation"] & ink["test"]


def test_pictures_are_seen_upright(tmp_path):
    letter = np.zeros((10, 28, 28), np.uint8)
    letter[:, 4:24, 4:8] = 255
    letter[:, 20:24, 4:20] = 255  # an L
    labels = np.zeros(10, np.int64)
    (first, *_) = write_cluttered_cohort(tmp_path, Digits(letter, labels), "48-simple", seed=0)
    mask = np.asarray(nib.load(tmp_path / f"derivatives/manual/{first}/anat/{first}_label-lesion_mask.nii.gz").dataobj)
    seen = np.flip(mask[..., 0].T, axis=(0, 1))  # as a radiologist: anterior up, right at the left
    rows, columns = np.nonzero(seen)
    box = seen[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box[:, 0].all()
    assert box[-1].all()
    assert not box[0, -1]


def test_the_same_arguments_give_the_same_bytes_and_what_is_there_is_left_alone(written, tmp_path):
    def contents(directory: Path) -> dict[str, bytes]:
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    labels = write_cluttered_cohort(tmp_path, digits(), "48-hard", seed=3)
    assert contents(tmp_path) == contents(written)
    image = tmp_path / labels[0] / "anat" / f"{labels[0]}_image.nii.gz"
    before = image.stat().st_mtime_ns
    (tmp_path / labels[1] / "anat" / f"{labels[1]}_image.nii.gz").unlink()
    write_cluttered_cohort(tmp_path, digits(), "48-hard", seed=3)
    assert contents(tmp_path) == contents(written)
    assert image.stat().st_mtime_ns == before


def test_other_arguments_are_refused(written):
    with pytest.raises(UsageError, match="other arguments \\(Variant\\)"):
        write_cluttered_cohort(written, digits(), "128", seed=3)
    with pytest.raises(UsageError, match="other arguments \\(Digits\\)"):
        write_cluttered_cohort(written, digits(), "48-hard", seed=3, count=50)


def test_the_folder_says_that_nobody_was_scanned_and_shows_examples(written):
    assert "A volume is no\nperson" in (written / "README").read_text()
    rows = list(csv.DictReader((written / "participants.tsv").read_text().splitlines(), delimiter="\t"))
    assert {row["split"] for row in rows} == {"training", "validation", "test"}
    width, height = Image.open(written / "examples.png").size
    assert (width, height) == (6 * 176, 18 + 3 * 176)


def test_too_few_digits_for_three_splits_are_refused(tmp_path):
    with pytest.raises(UsageError, match="2 digits leave a split without any"):
        write_cluttered_cohort(tmp_path, digits(), "48-simple", seed=0, count=2)
    assert not list(tmp_path.iterdir())


def test_without_a_file_the_digits_of_scikit_learn_are_enlarged_to_what_mnists_fill():
    found = scikit_digits()
    assert found.images.shape == (1797, 28, 28)
    assert set(found.labels) == set(range(10))
    assert not found.images[:, :4].any()
    assert not found.images[:, :, 24:].any()
    assert found.images.max() == 255


def test_digits_are_read_from_a_file_of_images_and_labels(tmp_path):
    shown = digits()
    np.savez(tmp_path / "digits.npz", images=shown.images, labels=shown.labels.astype(np.uint8))
    found = read_digits(tmp_path / "digits.npz")
    assert np.array_equal(found.images, shown.images)
    assert np.array_equal(found.labels, shown.labels)


WRONG: dict[str, dict[str, Any]] = {
    "smaller pictures": {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(4, int)},
    "fractions": {"images": np.zeros((4, 28, 28)), "labels": np.zeros(4, int)},
    "fewer labels": {"images": np.zeros((4, 28, 28), np.uint8), "labels": np.zeros(3, int)},
    "letters": {"images": np.zeros((1, 28, 28), np.uint8), "labels": np.array([10])},
    "no labels": {"images": np.zeros((4, 28, 28), np.uint8)},
    "a pickle": {"images": np.array([None]), "labels": np.zeros(1, int)},
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_other_files_are_refused_in_one_sentence(tmp_path, content):
    np.savez(tmp_path / "digits.npz", **content)
    with pytest.raises(UsageError, match=r"digits\.npz: .* expected .*; "):
        read_digits(tmp_path / "digits.npz")


def cut(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:-200])


def flipped(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:1000] + b"\1" + whole[1001:])


def bomb(path: Path, whole: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", whole + bytes(1 << 21))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, whole: None,
        lambda path, whole: path.write_text("1 2 3"),
        lambda path, whole: os.mkfifo(path),
        cut,
        flipped,
        bomb,
    ],
    ids=["nothing", "text", "pipe", "cut", "flipped bit", "bomb"],
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path, monkeypatch, damage):
    monkeypatch.setattr("pipeline.phantoms.cluttered.MOST_BYTES", 1 << 20)
    np.savez(tmp_path / "whole.npz", images=np.zeros((4, 28, 28), np.uint8), labels=np.zeros(4, int))
    damage(tmp_path / "digits.npz", (tmp_path / "whole.npz").read_bytes())
    with pytest.raises(UsageError, match="cannot be read as digits"):
        read_digits(tmp_path / "digits.npz")


def test_the_command_writes_the_cohort_and_says_so_in_one_line(tmp_path):
    shown = digits(30)
    np.savez(tmp_path / "digits.npz", images=shown.images, labels=shown.labels)
    arguments = ["-o", tmp_path / "out", "--kind", "cluttered-mnist", "--digits", tmp_path / "digits.npz"]
    result = CliRunner().invoke(phantom_command, [*map(str, arguments), "--subjects", "20", "--variant", "128"])
    assert result.exit_code == 0, result.output
    assert result.output.count("\n") == 1
    first = next((tmp_path / "out").glob("sub-*/anat/*.nii.gz"))
    assert nib.load(first).shape[:2] == (128, 128)


def test_without_clutter_there_are_the_digits_alone_and_no_masks(tmp_path):
    labels = write_cluttered_cohort(tmp_path, digits(), "plain", seed=3)
    assert not (tmp_path / "derivatives").exists()
    shown = np.concatenate(
        [np.asarray(nib.load(tmp_path / label / "anat" / f"{label}_image.nii.gz").dataobj) for label in labels], axis=2
    )
    assert shown.shape == (28, 28, COUNT)
    # Each picture's brightness tells which digit it is; nothing else is in it.
    assert sorted(shown.max(axis=(0, 1)).tolist()) == sorted(135 + np.arange(COUNT))
    assert {len(np.unique(shown[..., n])) for n in range(COUNT)} == {2}


def test_variants_on_the_command_line_are_those_there_are():
    option = next(parameter for parameter in phantom_command.params if parameter.name == "variant")
    assert list(option.type.choices) == list(VARIANTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "128"], "--variant is for --kind cluttered-mnist"),
        (["--kind", "planted", "--digits", "x.npz"], "--digits is for --kind cluttered-mnist"),
        (["--kind", "cluttered-mnist", "--mass-effect"], "--mass-effect is for --kind planted"),
    ],
)
def test_options_of_another_kind_are_refused(tmp_path, arguments, message):
    result = CliRunner().invoke(phantom_command, ["-o", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "new").exists()
