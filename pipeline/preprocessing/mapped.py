"""Arrays too large for memory: they lie in an unnamed file, of which the operating system holds what there is room for.

Such a file is gone with the last process that has it, however that ends. Processes that prepare a training's batches
share one, whether they were forked or started anew (Python's default from 3.14 on).
"""

import os
import tempfile
import weakref
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.files import writing_temporary


class Mapped:
    """An array in an unnamed file, read where it lies.

    Args:
        file: what `DiskArray` wrote.
        dtype: of its elements.
        shape: of the array.

    Attributes:
        array: mapped into memory, for reading.
    """

    def __init__(self, file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        self._file, self._dtype, self._shape = file, np.dtype(dtype), shape
        weakref.finalize(self, file.close)
        self.array: NDArray[Any] = (
            np.memmap(file, self._dtype, mode="r", shape=shape) if 0 not in shape else np.empty(shape, self._dtype)
        )

    def __reduce__(self) -> tuple[Callable[..., "Mapped"], tuple[Any, ...]]:
        """What a process that is started gets: the open file, not a copy of the array."""
        if os.name == "nt":  # whose files are not passed on
            return _copied, (np.array(self.array),)
        from multiprocessing.reduction import DupFd

        return _opened, (DupFd(self._file.fileno()), self._dtype, self._shape)


def _opened(passed: Any, dtype: DTypeLike, shape: tuple[int, ...]) -> Mapped:
    return Mapped(os.fdopen(passed.detach(), "rb"), dtype, shape)


def _copied(array: NDArray[Any]) -> Mapped:
    written = DiskArray(array.dtype, array.shape[1:])
    written.append(array)
    return written.mapped()


class DiskArray:
    """An array that is written part after part, along its first axis, into an unnamed file for temporary use.

    Args:
        dtype: of its elements.
        inner: its shape without the first axis.

    Raises:
        OutputError: if the folder for temporary files cannot be written or is full; by its methods, too.
    """

    def __init__(self, dtype: DTypeLike, inner: tuple[int, ...]) -> None:
        self._dtype, self._inner = np.dtype(dtype), inner
        with writing_temporary():
            self._file = tempfile.TemporaryFile(prefix="phs-slices-")  # noqa: SIM115  # `Mapped` keeps it
        self.length = 0

    def append(self, part: NDArray[Any]) -> slice:
        """Write a part, shape (N, *inner), and tell where it lies along the first axis."""
        if part.shape[1:] != self._inner:
            raise ValueError(f"expected parts of shape (N, {', '.join(map(str, self._inner))}), found {part.shape}")
        with writing_temporary():
            self._file.write(np.ascontiguousarray(part, self._dtype).data)
        first, self.length = self.length, self.length + len(part)
        return slice(first, self.length)

    def mapped(self) -> Mapped:
        """All that was written."""
        with writing_temporary():
            self._file.flush()
        return Mapped(self._file, self._dtype, (self.length, *self._inner))
