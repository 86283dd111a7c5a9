"""Grey matter, white matter and cerebrospinal fluid of a brain, by a mixture of three Gaussians."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

# From the darkest to the brightest.
CLASSES = {
    "T1w": ("CSF", "GM", "WM"),
    "contrast-enhanced T1w": ("CSF", "GM", "WM"),
    "T2w": ("WM", "GM", "CSF"),
    "FLAIR": ("CSF", "WM", "GM"),
}
SEED = 0
# As many voxels, spread evenly, tell the mixture as well as all of them.
SAMPLE = 100_000
# Of the mean log-likelihood. At scikit-learn's 0.001 the fit ends where its start lets it: half a percent of a volume.
TOLERANCE = 1e-6


class Tissues:
    """A mixture of three Gaussians (scikit-learn) of a brain's intensities, ordered by their means.

    Which tissue is the brightest depends on the contrast. No neighbourhood and no atlas is looked at, so that volumes
    depend on intensities alone, and are the same each time.

    Args:
        axial: windowed intensities, shape (slices, right, anterior).
        region: of the brain, bool, same shape.
        contrast: one of `CLASSES`.
        start: mixture of another version of the scan, from which this one's fit starts: what differs then is the
            scan's, not the start's.

    Raises:
        UsageError: if the contrast is another, or the region has fewer intensities than classes.
    """

    def __init__(
        self, axial: NDArray[np.float32], region: NDArray[np.bool_], contrast: str, start: "Tissues | None" = None
    ) -> None:
        from sklearn.mixture import GaussianMixture

        if contrast not in CLASSES:
            raise UsageError(
                f"{contrast}: is no contrast whose tissues are told apart, expected one of {', '.join(CLASSES)}"
            )
        values, self.counts = np.unique(axial[region], return_counts=True)
        self.classes = CLASSES[contrast]
        if len(values) < len(self.classes):
            raise UsageError(
                f"found a brain of {len(values)} different intensities, expected those of three tissues; check the "
                "cohort's window"
            )
        self.values = values.astype(np.float64)[:, None]
        begun: dict[str, Any] = {}
        if start is not None:
            begun = {f"{name}_init": getattr(start.mixture, f"{name}_") for name in ("weights", "means", "precisions")}
        self.mixture: Any = GaussianMixture(len(self.classes), random_state=SEED, tol=TOLERANCE, max_iter=1000, **begun)
        every = -(-int(region.sum()) // SAMPLE)
        self.mixture.fit(axial[region][::every, None].astype(np.float64))

    @property
    def voxels(self) -> dict[str, float]:
        """Voxels of `GM`, `WM` and `CSF`: sums of probabilities, for whole voxels jump where intensities are coarse."""
        sums = self.counts @ self.mixture.predict_proba(self.values)
        order = np.argsort(self.mixture.means_[:, 0])
        return {name: float(sums[component]) for name, component in zip(self.classes, order, strict=True)}
