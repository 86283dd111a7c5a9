"""Precision, recall and copying of generated images, by nearest neighbours in a feature space.

FID mixes how good images are with how many kinds of them there are; these tell the two apart, and whether images are
new at all. Distances are Euclidean; figures of different feature networks, and of different numbers of images, do not
compare.
"""

import torch
from torch import Tensor


def precision_recall(generated: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, Eq. 1 and 2).

    The manifold of a set is the union of balls, one around each of its members, that reach to the member's k-th nearest
    neighbour in the set.

    Args:
        generated: features (N, F).
        real: features (M, F), as many as generated ones if the two figures are to be held against each other.
        neighbours: k, 3 in the paper.

    Returns:
        Precision, the share of generated images in the manifold of the real ones, and recall, the share of real ones in
        the manifold of the generated; both in [0, 1].

    Raises:
        ValueError: if a set has no more members than k.

    Example:
        >>> real = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
        >>> precision_recall(torch.tensor([[0.5], [1.5], [1.0]]), real, neighbours=1)
        (1.0, 0.5)
    """
    return within(generated, real, neighbours), within(real, generated, neighbours)


def within(images: Tensor, members: Tensor, neighbours: int = 3) -> float:
    """Share of images in the manifold of others: the half of `precision_recall` that needs no images like these.

    Args:
        images: features (N, F).
        members: features (M, F), whose manifold it is.
        neighbours: k.

    Raises:
        ValueError: if there are no more members than k.
    """
    if not 1 <= neighbours < len(members):
        raise ValueError(f"found {len(members)} images, expected more than the {neighbours} neighbours of each")
    # Each member is its own nearest one.
    radii = _distances(members, members).kthvalue(neighbours + 1, dim=1).values
    return float((_distances(images, members) <= radii).any(dim=1).double().mean())


def _distances(one: Tensor, other: Tensor) -> Tensor:
    # Not by way of inner products, which lose the small distances that copies have.
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to each image's nearest one among others, and its index there.

    Args:
        images: features (N, F).
        among: features (M, F).

    Returns:
        Two tensors of shape (N,).
    """
    found = _distances(images, among).min(dim=1)
    return found.values, found.indices


def copying(generated: Tensor, training: Tensor, held_out: Tensor) -> float:
    """How often a generated image lies closer to the training images than a real image of other people does.

    The Mann-Whitney statistic of the distances to the nearest training image, over all pairs (Meehan et al. 2020, the
    test of a whole space at once).

    Args:
        generated: features (N, F).
        training: features (M, F) of what the generator was trained on.
        held_out: features (K, F) of real images that it was not.

    Returns:
        1 if all are copies, 0.5 if they are as new as real ones, towards 0 if they are unlike any real image.
    """
    ours, real = nearest(generated, training)[0], nearest(held_out, training)[0]
    below, equal = (ours[:, None] < real), (ours[:, None] == real)
    return float((below.double() + equal.double() / 2).mean())
