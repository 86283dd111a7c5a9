"""What a training is fastest in is measured in turns, and float32 gives way only to what is clearly faster."""

import pytest
import torch

from pipeline.training import speed
from pipeline.training.speed import PLAIN, Speed, candidates, fastest

HALF = Speed("bfloat16")


@pytest.mark.parametrize(("seconds", "chosen"), [(0.5, HALF), (0.97, PLAIN), (1.5, PLAIN)])
def test_half_precision_is_chosen_where_it_is_clearly_faster(monkeypatch, seconds, chosen):
    clock = [0.0]
    steps = []

    def step(option: Speed) -> None:
        # The first step of each allocates and compiles, which says nothing of the others.
        first = option not in steps
        steps.append(option)
        clock[0] += 100.0 if first and option == HALF else {PLAIN: 1.0, HALF: seconds}[option]

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    best, medians = fastest([PLAIN, HALF], step)
    assert best == chosen
    assert medians == {PLAIN: pytest.approx(1.0), HALF: pytest.approx(seconds)}
    assert steps == [PLAIN, HALF] * (len(steps) // 2)


@pytest.mark.parametrize(("seconds", "rounds"), [(1.0, 1 + speed.ROUNDS), (40.0, 2)])
def test_of_steps_that_take_long_fewer_are_measured(monkeypatch, seconds, rounds):
    clock = [0.0]
    steps = []

    def step(option: Speed) -> None:
        steps.append(option)
        clock[0] += seconds

    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    _, medians = fastest([PLAIN, HALF], step)
    assert len(steps) == 2 * rounds
    assert set(medians.values()) == {seconds}


def test_the_choice_is_said_in_words():
    assert [str(option) for option in (PLAIN, Speed("bfloat16", channels_last=True))] == [
        "float32, contiguous",
        "bfloat16, channels last",
    ]


def test_on_a_cpu_the_memory_format_is_not_tried_which_could_end_the_process():
    options = candidates(torch.device("cpu"))
    assert options[0] == PLAIN
    assert not any(option.channels_last for option in options)
