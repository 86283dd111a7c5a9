"""What a method is: networks, and players that take turns in training them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

Batch = Mapping[str, Tensor]
Shared = dict[str, Tensor]
Terms = dict[str, Tensor]


def always(iteration: int) -> bool:
    """The schedule of a player that plays at every iteration."""
    del iteration
    return True


def every(steps: int) -> Callable[[int], bool]:
    """The schedule of a generator whose discriminator takes several steps for each of its own."""
    if steps < 1:
        raise ValueError(f"the discriminator takes at least 1 step for each of the generator, found {steps}")
    return lambda iteration: (iteration + 1) % steps == 0


def is_labelled(batch: Batch) -> Tensor:
    """Which images' masks or classes are known, shape (B,), bool: `labelled` (B, 1) in {0, 1}, or all without it."""
    image = batch["image"]
    return batch["labelled"].flatten() > 0 if "labelled" in batch else image.new_ones(len(image), dtype=torch.bool)


@dataclass(frozen=True)
class Player:
    """One side of the game: the networks it owns and the loss it plays for.

    Args:
        name: used for its optimiser, its learning rate and its curves.
        networks: names of the networks it updates; all others are frozen while it plays.
        loss: from the batch and what `Method.forward` computed to named, weighted terms; their sum is minimised.
        plays: whether it plays at a given iteration (counted from 0); a critic that takes five steps for each step of a
            generator is a generator that plays at every fifth iteration.
        after_step: called after each step of its optimiser, for example to clip the weights of a critic.
    """

    name: str
    networks: tuple[str, ...]
    loss: Callable[[Batch, Shared], Terms]
    plays: Callable[[int], bool] = always
    after_step: Callable[[], None] | None = None


class Method(Protocol):
    """A training method as the engine sees it. It knows no files, logs or devices."""

    networks: dict[str, nn.Module]
    """All that a checkpoint must keep: the players' networks, and pools of images. They may share parts."""

    @property
    def exports(self) -> Mapping[str, nn.Module]:
        """What users will run, by name, the main one first: modules made of parts of `networks`.

        The main one is saved as `model.pt` and described by `network_def` in `inference.json`; each other one as
        `<name>.pt`, described by `<name>_def`. An evaluation looks at two of them by name: `cycle`, from pseudo-healthy
        and pathological images to the reconstructed pathological ones, and `segmentor`, from images to lesion logits,
        which a translator was trained against.
        """
        ...

    @property
    def players(self) -> tuple[Player, ...]:
        """In the order in which they play."""
        ...

    def forward(self, batch: Batch) -> Shared:
        """What several players need, computed once an iteration, before the first of them plays."""
        ...
