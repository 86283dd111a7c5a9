"""`study domain-adaptation`: who is trained and tested with, what every arm is shown, and what the probe says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from pipeline.cli.study import study
from pipeline.errors import UsageError
from pipeline.studies.domain_adaptation import ARMS, CONTROLS, MATCHED, REVERSE, SOURCE_ONLY, Scale, probe
from pipeline.studies.domain_adaptation import domain_adaptation as run_study
from pipeline.studies.domain_adaptation import scale as sizes
from pipeline.studies.domains import Beside, RandomContrast, Slices, matched, real, simulated

TINY = Scale(
    spacing_mm=8.0,
    size=(32, 32),
    filters=2,
    iterations=1,
    translator_iterations=1,
    translator_filters=2,
    residual_blocks=1,
    discriminator_filters=2,
)


def discs(patients: int = 10, each: int = 2) -> Slices:
    """Slices with a lesion in a body; the images of a patient are brighter than those of the one before."""
    images = torch.zeros(patients * each, 1, 32, 32)
    images[:, :, 4:28, 4:28] = torch.linspace(0.3, 0.6, patients * each)[:, None, None, None]
    masks = torch.zeros_like(images)
    masks[:, :, 10:16, 10:16] = 1
    images[masks > 0] = 1
    return Slices(images, masks, tuple(f"p{number:02}" for number in range(patients) for _ in range(each)))


def patients(slices: Slices) -> set[str]:
    return set(slices.patients)


class TestDomains:
    def test_two_simulated_scanners_share_the_test_patients_alone(self) -> None:
        drawn = [simulated(discs(), 1.0, seed) for seed in (0, 1)]
        for domains in drawn:
            sets = [patients(part) for part in (domains.source, domains.target, domains.target_test)]
            assert [len(each) for each in sets] == [4, 4, 2]
            assert set.union(*sets) == patients(discs())
            assert domains.source_test.patients == domains.target_test.patients
            assert domains.target_test.truth is domains.source_test.images
        assert patients(drawn[0].source) != patients(drawn[1].source)
        again = simulated(discs(), 1.0, 0)
        assert torch.equal(again.target_test.images, drawn[0].target_test.images)

    def test_masks_stay_where_they_are_on_both_scanners(self) -> None:
        domains = simulated(discs(), 1.0, 0)
        for part in (domains.source, domains.target, domains.source_test, domains.target_test):
            assert torch.equal(part.masks, discs().of(part.patients).masks)

    def test_real_domains_are_split_by_patient(self) -> None:
        names = sorted(patients(discs()))
        domains = real(discs(), names[:6], names[6:], seed=0)
        assert patients(domains.source) | patients(domains.source_test) == set(names[:6])
        assert patients(domains.target) | patients(domains.target_test) == set(names[6:])
        assert not patients(domains.source) & patients(domains.source_test)
        assert not patients(domains.target) & patients(domains.target_test)
        assert domains.target_test.truth is None

    def test_histogram_matching_undoes_any_change_of_contrast(self) -> None:
        torch.manual_seed(0)
        one = discs(patients=1)
        textured = one.showing((one.images + 0.2 * torch.rand_like(one.images) * (one.images > 0)).clamp(0, 1))
        flat = textured.showing(textured.images**0.4)
        torch.testing.assert_close(matched(flat, textured), textured.images, atol=0.02, rtol=0)

    def test_pairs_are_drawn_at_random_under_the_names_of_a_method(self) -> None:
        torch.manual_seed(0)
        first, second = discs(), discs()
        data = Beside(first, second, {"image_source": (0, "image"), "mask_source": (0, "mask"), "image": (1, "image")})
        assert len(data) == len(first)
        sample = data[3]
        assert set(sample) == {"image_source", "mask_source", "image"}
        assert torch.equal(sample["image_source"], first.images[3])
        assert len({float(data[3]["image"].sum()) for _ in range(20)}) > 1

    def test_random_contrast_leaves_black_white_and_mask(self) -> None:
        torch.manual_seed(0)
        data = RandomContrast(discs())
        greys = {float(data[0]["image"][0, 5, 5]) for _ in range(20)}
        assert min(greys) < 0.3 < max(greys)
        assert data[0]["image"].min() == 0
        assert data[0]["image"].max() == 1
        assert torch.equal(data[0]["mask"], discs().masks[0])


class TestProbe:
    @pytest.fixture
    def features(self) -> Callable[[float], list[Tensor]]:
        def of(apart: float) -> list[Tensor]:
            generator = torch.Generator().manual_seed(int(10 * apart))
            return [torch.randn(400, 3, generator=generator) + domain * apart for domain in (0, 1)]

        return of

    def test_domains_that_differ_are_told_apart_and_others_are_not(self, features) -> None:
        assert probe(features(8), features(8)) > 0.99
        assert probe(features(0), features(0)) == pytest.approx(0.5, abs=0.06)

    def test_chance_is_a_half_however_many_slices_a_domain_has(self, features) -> None:
        source, target = features(0)
        assert probe([source, target[:40]], [source, target[:40]]) == pytest.approx(0.5, abs=0.15)


def test_a_finer_grid_has_the_same_field_of_view() -> None:
    assert (sizes(2.0).size, sizes(2.0).spacing_mm) == ((128, 128), 2.0)
    assert sizes(iterations=7) == Scale(iterations=7, translator_iterations=7)
    assert sizes(filters=16) == Scale(filters=16)
    assert sizes() == Scale()


@pytest.mark.slow
def test_every_arm_is_measured_and_a_study_goes_on_where_it_was_stopped(
    phantom_cohort: Path, tmp_path: Path, epochs_trained: Callable[..., list[int]]
) -> None:
    def run(**settings) -> str:
        return run_study(phantom_cohort, tmp_path / "study", seeds=1, scale=TINY, device="cpu", **settings)

    epochs_trained(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        run()
    rest = epochs_trained()
    text = run()
    assert len(rest) == 6 + 2 - 2  # six segmentors and two translators
    again = epochs_trained()
    assert run() == text
    assert again == []  # nothing is trained twice
    summary = json.loads((tmp_path / "study/summary.json").read_text())
    results = {result["arm"]: result for result in summary["results"]}
    assert tuple(results) == ARMS
    assert all(f"| {arm} (control) |" in text for arm in CONTROLS)
    assert {arm for arm, result in results.items() if result["psnr"] is not None} == {SOURCE_ONLY, MATCHED, REVERSE}
    assert len({tuple(result["patients"]) for result in results.values()}) == 1
    assert all(0 <= result["dice"] <= 1 for result in results.values())
    assert "Reductions: slices one by one, 32×32 pixels of 8 mm" in text
    for name in ("plot.png", "pictures.png", "table.csv"):
        assert (tmp_path / "study" / name).stat().st_size > 100
    with pytest.raises(UsageError, match="made with other settings"):
        run(source="sub-*")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "nobody-*"], "--source nobody-*: found 0 patients with drawn masks, expected at least 5"),
        (["--target", "nobody-*"], "--target nobody-*: found 0 patients with drawn masks, expected at least 2"),
    ],
)
def test_domains_that_are_too_small_are_refused(phantom_cohort, tmp_path, options, said) -> None:
    place = ["--data", str(phantom_cohort), "-o", str(tmp_path / "study")]
    result = CliRunner().invoke(study, ["domain-adaptation", *place, *options])
    assert isinstance(result.exception, UsageError)
    assert said in str(result.exception)
    assert not list(tmp_path.rglob("*.pt"))
