"""GenSeg for several pathologies: the extension that the paper proposes (Vorontsov et al. 2019, Section 5).

Each pathology k has a unique code u_k, a residual decoder g_res,k and a discriminator D_P,k; absence is free of all of
them. Absence and the common code remain one.

    [c, u_1, …, u_K] = f(x)                                                                        (Eq. 1)
    x_PP = x_PA + Σ_k p_k g_res,k(c_P, u_P,k),   p_k = 1 where x_P shows k, else 0                 (Eq. 3)
    ŷ_k = g_seg,k(c_P, u_P,k)                                                                      (Eq. 4)
    x_AP = x_AA + Σ_k p_k g_res,k(c_A, u_k),   u_k ~ N(0, I)                                       (Eq. 6)

In training each image of presence shows one pathology, as the cohort says, and x_AP is given that of the x_P beside it,
so that every D_P,k sees as many of both. Nothing holds an image to one in use: each ŷ_k is a mask of its own, and
residuals add up.
"""

from monai.losses import DiceLoss
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.errors import UsageError
from pipeline.methods.base import Batch
from pipeline.methods.genseg import GenSeg
from pipeline.networks import (
    GenSegDecoder,
    GenSegDiscriminator,
    GenSegDiscriminators,
    GenSegResidualDecoders,
    GenSegSegmentor,
)
from pipeline.objectives import Objective


class GenSegPathologies(GenSeg):
    """Segmentation of several pathologies, and translation between each of them and absence.

    The Dice of a pathology is that over a batch: an image without it, of another one, has none of its own.

    Args:
        segmentor: f and the decoders that segment, which are the residual ones.
        common_decoder: g_com.
        residual_decoder: g_res,k of all pathologies.
        absence_discriminator: D_A.
        presence_discriminator: D_P,k of all pathologies.
        objective: as of `GenSeg`; so are
        lambdas,
        judge_x_AA and
        critic_steps.
    """

    def __init__(
        self,
        segmentor: GenSegSegmentor,
        common_decoder: GenSegDecoder,
        residual_decoder: GenSegResidualDecoders,
        absence_discriminator: GenSegDiscriminator,
        presence_discriminator: GenSegDiscriminators,
        objective: Objective | str = "hinge",
        lambdas: tuple[float, float, float, float, float] = (0.01, 50.0, 1.0, 50.0, 3.0),
        judge_x_AA: bool = False,
        critic_steps: int = 1,
    ) -> None:
        super().__init__(
            segmentor,
            common_decoder,
            residual_decoder,
            absence_discriminator,
            presence_discriminator,
            objective,
            lambdas,
            judge_x_AA,
            critic_steps,
        )
        self.pathologies = len(residual_decoder.decoders)
        self.dice_loss = DiceLoss(sigmoid=True, batch=True)

    def _present(self, batch: Batch) -> tuple[Tensor, ...]:
        """The p of each image, from `pathology`, the number of the one it shows, shape (B, 1)."""
        if "pathology" not in batch:
            raise UsageError(
                "the cohort does not tell which pathology a patient has, expected a class as target; preprocess with "
                "--target COLUMN"
            )
        return (one_hot(batch["pathology"].flatten().long(), self.pathologies).to(batch["image"]),)

    def _drawn(self, batch: Batch) -> Tensor:
        (present,) = self._present(batch)
        return batch["mask"] * present[:, :, None, None]

    def _unique_loss(self, found: Tensor, u: Tensor, batch: Batch) -> Tensor:
        """Over the codes of what is present: an absent pathology's says nothing."""
        (present,) = self._present(batch)
        counted = present.repeat_interleave(u.shape[1] // self.pathologies, dim=1)[:, :, None, None].expand_as(u)
        return ((found - u).abs() * counted).sum() / counted.sum()
