"""Samples that are made once and kept outside of memory."""

from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from pipeline.preprocessing.mapped import DiskArray


class MappedSamples(Sequence[dict[str, Tensor]]):
    """Samples of one kind, kept in files instead of memory.

    Args:
        samples: each with tensors of the same names, types and shapes.

    Raises:
        OutputError: as `DiskArray`.
    """

    def __init__(self, samples: Iterable[Mapping[str, Tensor]]) -> None:
        self._length = 0
        written: dict[str, DiskArray] = {}
        for sample in samples:
            for name, value in sample.items():
                array = value.numpy()
                if name not in written:
                    written[name] = DiskArray(array.dtype, array.shape)
                written[name].append(array[None])
            self._length += 1
        self._arrays = {name: array.mapped() for name, array in written.items()}

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Tensor]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return {name: torch.from_numpy(np.array(array.array[index])) for name, array in self._arrays.items()}
