"""The pool of earlier fakes, as CycleGAN describes it."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.methods.pool import ImagePool

SHAPE = (1, 2, 2)


def numbered(first: int, images: int) -> Tensor:
    """Images that are constant, each of its own number."""
    return torch.arange(first, first + images, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, *SHAPE).clone()


def numbers(images: Tensor) -> list[int]:
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return [int(number) for number in images[:, 0, 0, 0]]


def test_until_it_is_full_each_image_is_stored_and_given_back():
    pool = ImagePool(size=5, shape=SHAPE)
    assert numbers(pool(numbered(1, 3))) == [1, 2, 3]
    assert int(pool.count) == 3
    assert numbers(pool(numbered(4, 2))) == [4, 5]
    assert int(pool.count) == 5
    assert numbers(pool.images) == [1, 2, 3, 4, 5]


def test_a_full_pool_keeps_each_new_image_or_gives_it_back_and_never_both():
    torch.manual_seed(0)
    pool = ImagePool(size=5, shape=SHAPE)
    pool(numbered(1, 5))
    for first in range(6, 200, 3):
        before, new = numbers(pool.images), list(range(first, first + 3))
        shown = numbers(pool(numbered(first, 3)))
        assert sorted(shown + numbers(pool.images)) == sorted(before + new)
    assert int(pool.count) == 5


def test_a_batch_that_overflows_the_pool_fills_it_first():
    torch.manual_seed(0)
    pool = ImagePool(size=2, shape=SHAPE)
    shown = numbers(pool(numbered(1, 50)))
    assert shown[:2] == [1, 2]
    assert sorted(shown[2:] + numbers(pool.images)) == list(range(1, 51))


def test_half_of_the_images_given_back_are_old_and_any_place_is_drawn():
    torch.manual_seed(0)
    pool, trials = ImagePool(size=4, shape=SHAPE), 2000
    pool(numbered(1, 4))
    old, places = 0, [0] * 4
    for number in range(5, 5 + trials):
        before = numbers(pool.images)
        (shown,) = numbers(pool(numbered(number, 1)))
        if shown != number:
            old += 1
            places[before.index(shown)] += 1
    # Four standard errors of a binomial: of 2000 with ½, 4 √(2000 · 1/4) = 89; of 1000 with ¼, 4 √(1000 · 3/16) = 55.
    assert abs(old - trials / 2) < 89
    assert all(abs(times - old / 4) < 55 for times in places)


@given(size=st.integers(0, 4), batches=st.lists(st.integers(1, 5), max_size=5))
def test_no_image_is_lost_doubled_or_mixed(size, batches):
    pool, seen, shown = ImagePool(size, SHAPE), 0, []
    for images in batches:
        shown += numbers(pool(numbered(seen + 1, images)))
        seen += images
        assert torch.isfinite(pool.images).all()
    stored = numbers(pool.images[: int(pool.count)])
    assert int(pool.count) == min(size, seen)
    # While it fills, an image is both stored and shown.
    assert sorted(shown + stored) == sorted([*range(1, seen + 1), *range(1, min(size, seen) + 1)])


def test_a_pool_of_none_gives_the_images_back():
    pool, images = ImagePool(size=0), torch.rand(3, 2, 5, 5, requires_grad=True)
    shown = pool(images)
    assert torch.equal(shown, images)
    assert not shown.requires_grad


def test_the_generator_receives_no_gradient_through_the_pool():
    pool, images = ImagePool(size=2, shape=SHAPE), torch.rand(6, *SHAPE, requires_grad=True)
    assert not pool(images).requires_grad
    assert not pool.images.requires_grad


def test_what_was_given_and_what_is_given_back_are_nobodys_memory_but_their_own():
    torch.manual_seed(0)
    pool, images = ImagePool(size=3, shape=SHAPE), numbered(1, 3)
    shown = pool(images)
    images.fill_(77)
    assert numbers(shown) == [1, 2, 3]
    shown.fill_(99)
    assert numbers(pool.images) == [1, 2, 3]
    given = pool(numbered(4, 20))
    before = given.clone()
    pool(numbered(24, 20))
    assert torch.equal(given, before)


def test_the_same_random_state_draws_the_same():
    outcomes = []
    for _ in range(2):
        torch.manual_seed(3)
        pool = ImagePool(size=4, shape=SHAPE)
        outcomes.append([numbers(pool(numbered(first, 4))) for first in range(1, 80, 4)])
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("batches_before", [1, 5])
def test_a_pool_restored_from_its_state_and_the_random_state_goes_on_exactly(batches_before):
    torch.manual_seed(0)
    pool = ImagePool(size=4, shape=SHAPE)
    for first in range(1, 1 + 3 * batches_before, 3):
        pool(numbered(first, 3))
    state, random = copy.deepcopy(pool.state_dict()), torch.get_rng_state()
    expected = [numbers(pool(numbered(first, 3))) for first in range(100, 130, 3)]

    torch.manual_seed(9)
    resumed = ImagePool(size=4, shape=SHAPE)
    resumed.load_state_dict(state)
    torch.set_rng_state(random)
    assert [numbers(resumed(numbered(first, 3))) for first in range(100, 130, 3)] == expected


def test_its_state_is_two_buffers_and_nothing_to_train():
    pool = ImagePool(size=3, shape=(2, 4, 5))
    assert {name: (tuple(t.shape), t.dtype) for name, t in pool.state_dict().items()} == {
        "images": ((3, 2, 4, 5), torch.float32),
        "count": ((), torch.int64),
    }
    assert not pool.images.any()
    assert list(pool.parameters()) == []


def test_it_follows_the_network_that_holds_it():
    pool = ImagePool(size=2, shape=SHAPE)
    nn.ModuleDict({"pool": pool}).to("meta")
    assert pool.images.device.type == pool.count.device.type == "meta"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float64])
def test_images_keep_their_precision_and_their_values(precision):
    torch.manual_seed(0)
    pool, images = ImagePool(size=2, shape=SHAPE), numbered(1, 12).to(precision)
    shown = pool(images)
    assert shown.dtype == precision
    assert set(numbers(shown)) <= set(range(1, 13))
    assert pool.images.dtype == torch.float32


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2\), found \(1, 3, 3\)"):
        ImagePool(size=2, shape=SHAPE)(torch.rand(1, 1, 3, 3))


def test_a_size_below_zero_and_a_shape_that_is_no_image_are_refused():
    with pytest.raises(ValueError, match="found -1"):
        ImagePool(size=-1)
    with pytest.raises(ValueError, match=r"found \(240, 240\)"):
        ImagePool(shape=(240, 240))
    with pytest.raises(ValueError, match=r"found \(1, 0, 240\)"):
        ImagePool(shape=(1, 0, 240))
