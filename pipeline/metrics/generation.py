"""Fréchet distance and inception score of generated images, from what a feature network makes of them.

Their usual names, FID and IS, are of features of an Inception network trained on photographs. For scans any network
that knows them may be taken; figures of different networks, and of different numbers of images, do not compare.
"""

import torch
from ignite.metrics import InceptionScore
from torch import Tensor, nn


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, Eq. 6); 0 if equal.

    ‖μ_g − μ_r‖² + tr(Σ_g + Σ_r − 2 (Σ_g Σ_r)^½). The last trace is that of (Σ_g^½ Σ_r Σ_g^½)^½, a symmetric matrix, so
    that covariances of features which are always 0, or of more features than images, have their root, too.

    Args:
        generated: features (N, F), N at least 2.
        real: features (M, F), M at least 2.
    """
    mean_g, mean_r = generated.double().mean(0), real.double().mean(0)
    cov_g, cov_r = (torch.atleast_2d(features.double().T.cov()) for features in (generated, real))
    values, vectors = torch.linalg.eigh(cov_g)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    common = torch.linalg.eigvalsh(root @ cov_r @ root).clamp(min=0).sqrt().sum()
    return float((mean_g - mean_r).square().sum() + cov_g.trace() + cov_r.trace() - 2 * common)


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """exp(E KL(p(y | x) ‖ p(y))) of each of several parts of the images (Salimans et al. 2016): mean and deviation.

    Args:
        probabilities: p(y | x) of each image, shape (N, K); in an order that does not matter, as drawn.
        splits: parts, of which each has at least one image; 10 as usual.

    Returns:
        Mean over the parts, 1 (all alike or undecided) to K; and standard deviation (n − 1 in the denominator), 0 of
        one part.

    Raises:
        ValueError: if there are fewer images than parts.

    Example:
        >>> inception_score(torch.eye(4).repeat(10, 1), splits=2)
        (4.0, 0.0)
    """
    if not 1 <= splits <= len(probabilities):
        raise ValueError(f"found {len(probabilities)} images, expected at least one for each of {splits} parts")
    scores = []
    for part in probabilities.double().tensor_split(splits):
        metric = InceptionScore(num_features=part.shape[1], feature_extractor=nn.Identity())
        metric.update(part)
        scores.append(metric.compute())
    values = torch.tensor(scores, dtype=torch.float64)
    return round(float(values.mean()), 6), round(float(values.std()), 6) if splits > 1 else 0.0
