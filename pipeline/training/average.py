"""The moving average of a network that users get."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

STATISTICS = ("running_mean", "running_var")


class MovingAverage(AveragedModel):
    """An exponential moving average of a module's weights and of its batch norms' running statistics.

    A batch norm's statistics remember some ten batches. Those of the last ones, beside weights averaged over many more,
    made networks of small batches up to half a decibel worse or better from one epoch to the next. All other buffers,
    the vectors of spectral norm for example, are those of the module.

    Args:
        module: what is averaged; its first weights are the first average.
        decay: share of the average that stays at each update, from 0 to 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards the module's state by 1 − decay; at the first update, take it."""
        begun = bool(self.n_averaged > 0)
        before = [statistic.clone() for statistic in _statistics(self.module)]
        super().update_parameters(model)
        if begun:
            for average, now in zip(before, _statistics(self.module), strict=True):
                now.lerp_(average, self.decay)


def _statistics(module: nn.Module) -> Iterator[Tensor]:
    return (buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] in STATISTICS)
