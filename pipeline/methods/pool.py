"""A history of fake images for the discriminator (Shrivastava et al. 2017, Section 2.3; CycleGAN, Section 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Shows the discriminator fakes of earlier generators too, so that it does not forget what it has learnt of them.

    Until the pool is full, each image is stored and given back. From then on each image, with probability ½, takes the
    place of a random stored one, which is given back in its stead; otherwise it is given back itself and not stored.

    The stored images are buffers, so a checkpoint of the networks holds them; draws come from torch's CPU random state,
    so a training that restores both goes on exactly.

    Args:
        size: how many images are stored, 50 as in CycleGAN; 0 stores none and gives every image back.
        shape: (C, H, W) of an image.

    Raises:
        ValueError: if `size` is negative, or `shape` is not three numbers above 0.
    """

    images: Tensor
    count: Tensor

    def __init__(self, size: int = 50, shape: Sequence[int] = (1, 240, 240)) -> None:
        super().__init__()
        if size < 0:
            raise ValueError(f"size is a number of images, 0 or more, found {size}")
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape is (channels, height, width), each at least 1, found {tuple(shape)}")
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, images: Tensor) -> Tensor:
        """Exchange images with the pool, one after the other.

        Args:
            images: fakes, shape (B, C, H, W).

        Returns:
            New ones and old ones, detached, of the same shape and type.

        Raises:
            ValueError: if the images have another shape than the pool's.
        """
        size = len(self.images)
        if size == 0:
            return images.detach()
        if images.shape[1:] != self.images.shape[1:]:
            raise ValueError(
                f"the pool stores images of shape {tuple(self.images.shape[1:])}, found {tuple(images.shape[1:])}; "
                "set its shape to that of the images"
            )
        shown = images.detach().clone()
        stored = int(self.count)
        for image in shown:
            if stored < size:
                self.images[stored] = image
                stored += 1
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(size, ()))
                old = self.images[place].clone()
                self.images[place] = image
                image.copy_(old)
        self.count.fill_(stored)
        return shown


class ImagePools(nn.ModuleDict):
    """A pool for each of several kinds of fakes.

    Args:
        names: of the kinds.
        size, shape: of each pool, as in `ImagePool`.
    """

    def __init__(self, names: Sequence[str], size: int = 50, shape: Sequence[int] = (1, 240, 240)) -> None:
        super().__init__({name: ImagePool(size, shape) for name in names})
