"""ANT-GAN (Sun et al. 2020): CycleGAN whose way to healthy starts from its input, and is held to it in normal tissue.

In the symbols of `pipeline.methods.cycle_gan`, with y the lesion mask of x_p:

    shortcut:    G(x) = tanh(f(x) + x) on images in [−1, 1]       (a property of the generator's network)
    generators:  … + λ_N ‖(1 − y) ⊙ (G(x_p) − x_p)‖²              over normal tissue, where masks exist
"""

from pipeline.losses import residual_mse
from pipeline.methods.base import Batch, Shared, Terms
from pipeline.methods.cycle_gan import CycleGAN


class ANTGAN(CycleGAN):
    """CycleGAN with a masked L2 loss; give it a `healthy_generator` with the output `shortcut`.

    Args:
        lambda_normal: λ_N.
        **cycle_gan: as `CycleGAN`.
    """

    def __init__(self, *, lambda_normal: float = 10.0, **cycle_gan: object) -> None:
        super().__init__(**cycle_gan)  # type: ignore[arg-type]
        self.lambda_normal = lambda_normal

    def translate(self, batch: Batch, shared: Shared) -> Terms:
        """… + λ_N L2 in normal tissue."""
        normal = residual_mse(batch["image"], shared["x̃_h"], 1 - batch["mask"])
        return {**super().translate(batch, shared), "normal": self.lambda_normal * normal}
