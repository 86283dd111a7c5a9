"""What all adversarial methods share: one discriminator's loss under any objective, and whether the two fit."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.methods.base import Terms
from pipeline.objectives import LeastSquares, Objective


def check_scores(objective: Objective, *discriminators: nn.Module) -> None:
    """Refuse discriminators that end in a sigmoid where the objective needs linear scores.

    Raises:
        ValueError: if one has `sigmoid` set and the objective is not least squares.
    """
    if not isinstance(objective, LeastSquares) and any(getattr(D, "sigmoid", False) for D in discriminators):
        raise ValueError(
            f"a discriminator that ends in a sigmoid needs the objective least_squares, found "
            f"{type(objective).__name__}, whose scores are linear; leave discriminator_sigmoid false"
        )


def discriminator_terms(
    objective: Objective, D: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, name: str, apart: bool = False
) -> Terms:
    """The loss of a discriminator, and the penalty of an objective that has one.

    Args:
        objective: of the survey's Table 1.
        D: the discriminator.
        real: what it should take for real, shape (B, C, H, W).
        fake: what it should not, same shape; no gradient flows back into it.
        name: of the loss among the player's terms; the penalty's name ends in `_penalty`.
        apart: score real and fake images in a pass each, for a discriminator that normalises or looks at a batch.
    """
    fake = fake.detach()
    if apart:
        real_scores, fake_scores = D(real), D(fake)
    else:
        # One pass over both is faster: most networks here normalise each sample by itself.
        real_scores, fake_scores = D(torch.cat((real, fake))).split((len(real), len(fake)))
    terms = {name: objective.discriminator(real_scores, fake_scores)}
    penalty = objective.penalty(D, real, fake)
    return terms if penalty is None else {**terms, f"{name}_penalty": penalty}
