"""The networks of GenSeg (Vorontsov et al. 2019, Appendix A, Tables 2 to 9, Figures 5 and 9).

As the tables cannot be built as printed, and where they are silent:

- The decoders list one upsampling too few (48 → 3 → 24, 128 → 4 → 64): the first "Convolution 256" also upsamples. Each
  of its stages then has the size and the channels of the encoder's stage that the long skip comes from.
- Where a conv block changes size or channels, its short skip is a 1×1 convolution (He et al. 2016, option B).
- "Convolution 1" at the end of Tables 6 and 7 has as many channels as the image, four in BraTS.
- The discriminators' norm is not named; instance norm by default.
- What the perceptron that makes norm parameters sees has no size: the code's mean over its pixels, so that the size of
  the image is free.
"""

import itertools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.blocks import LEAK, as_output, check_output

Skips = Literal["compress", "concat", "sum", "none"]
Spectral = Literal["all", "inner", "none"]
FILTERS = (32, 64, 128, 256)  # of Tables 2 to 4; Tables 5 to 7 have 16 before these
COMMON, UNIQUE = 384, 128
MLP_LAYERS, MLP_UNITS = 4, 256
SCALES = 3


class GenSegEncoder(nn.Module):
    """f: an image to its common and unique codes, and what the long skips carry (Tables 2 and 5, Eq. 1).

    With the paper's `filters` and images of 48×48:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution | 3×3, 1 | 32 × 48 × 48 |
    | conv block | 3×3, 2 | 64 × 24 × 24 |
    | conv block | 3×3, 2 | 128 × 12 × 12 |
    | conv block | 3×3, 2 | 256 × 6 × 6 |
    | conv block, instance norm, ReLU | 3×3, 2 | 512 × 3 × 3 |

    Args:
        in_channels: of the image; 4 in BraTS.
        filters: of all stages but the last.
        common_filters: channels of the common code.
        unique_filters: channels of a unique code; together they are the last stage.
        pathologies: names of what may be present, each of which has a unique code of its own (Section 5).
        spectral_norm: of `all` convolutions, as printed; of the `inner` ones, not the output and classifier layers; or
            of `none`. An encoder has no output layer.
    """

    def __init__(
        self,
        in_channels: int = 1,
        filters: Sequence[int] = FILTERS,
        common_filters: int = COMMON,
        unique_filters: int = UNIQUE,
        spectral_norm: Spectral = "all",
        pathologies: Sequence[str] = ("lesion",),
    ) -> None:
        super().__init__()
        _check("spectral_norm", spectral_norm, Spectral)
        self.code_filters = [common_filters, unique_filters * len(pathologies)]
        widths = (*filters, sum(self.code_filters))
        spectral = spectral_norm != "none"
        self.first = Convolution(in_channels, widths[0], 3, spectral=spectral)
        self.blocks = nn.ModuleList(DownBlock(before, after, spectral) for before, after in itertools.pairwise(widths))
        self.norm = nn.InstanceNorm2d(widths[-1], affine=True)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Codes c and u, and the skipped features from the deepest to the shallowest.

        Args:
            image: shape (B, in_channels, H, W), H and W divisible by 2 to the number of `filters`, at least twice that.

        Returns:
            c, shape (B, common_filters, h, w); u, shape (B, unique_filters, h, w), of several pathologies one after
            another; and the outputs of all stages but the first and the last.
        """
        # type: (Tensor) -> Tuple[Tensor, Tensor, List[Tensor]]
        features = self.first(image)
        skips: list[Tensor] = []
        for block in self.blocks:
            features = block(features)
            skips.insert(0, features)
        code = functional.relu(self.norm(features))
        common, unique = code.split(self.code_filters, dim=1)
        return common, unique, skips[1:]


class _Decoder(nn.Module):
    """What both kinds of decoder share: from the code up to the last stage, and a last layer that makes an image."""

    def __init__(
        self,
        code_filters: int | Sequence[int],
        out_channels: int,
        filters: Sequence[int],
        kernel: int,
        skips: Skips,
        segmentation_norm: Literal["adaptive", "own"] | None,
        output: str,
        spectral_norm: Spectral,
    ) -> None:
        super().__init__()
        _check("skips", skips, Skips)
        _check("spectral_norm", spectral_norm, Spectral)
        self.output = output
        widths = tuple(reversed(filters))
        inner = spectral_norm != "none"
        self.first = Convolution(_total(code_filters), widths[0], kernel, spectral=inner)
        self.blocks = nn.ModuleList(
            UpBlock(before, after, kernel, skips, segmentation_norm, inner)
            for before, after in itertools.pairwise(widths)
        )
        self.last = nn.Sequential(
            _layer_norm(widths[-1]),
            nn.ReLU(),
            Convolution(widths[-1], out_channels, kernel, spectral=spectral_norm == "all"),
        )

    def decoded(self, code: Tensor, skips: list[Tensor], parameters: list[Tensor]) -> Tensor:
        """The last stage's features; with norm parameters for each block, or none, those of the segmentation."""
        features: Tensor = self.first(_upsampled(code))
        for level, block in enumerate(self.blocks):
            features = block(features, skips[level], parameters[level] if parameters else None)
        return features

    def forward(self, code: Tensor, skips: list[Tensor]) -> Tensor:
        """An image (B, out_channels, H, W).

        Args:
            code: shape (B, code_filters, h, w).
            skips: as the encoder gives them.
        """
        none: list[Tensor] = []
        raw: Tensor = self.last(self.decoded(code, skips, none))
        if self.output == "tanh":
            raw = raw.tanh()
        elif self.output == "image":
            raw = as_output(self.output, raw, raw)
        return raw

    def segment(self, code: Tensor, skips: list[Tensor]) -> Tensor:
        """Logits of a decoder that does nothing but segment (Section 3.3): its output."""
        logits: Tensor = self.forward(code, skips)
        return logits


class GenSegDecoder(_Decoder):
    """g_com, and every decoder of the baselines (Tables 3 and 6).

    With the paper's `filters` and images of 48×48:

    | layer | kernel, stride | output |
    |---|---|---|
    | upsampling, convolution | 3×3, 1 | 256 × 6 × 6 |
    | conv block | 3×3, 1 | 128 × 12 × 12 |
    | conv block | 3×3, 1 | 64 × 24 × 24 |
    | conv block | 3×3, 1 | 32 × 48 × 48 |
    | layer norm, ReLU, convolution | 3×3, 1 | 1 × 48 × 48 |

    Args:
        code_filters: channels of the code: the common one for g_com, of both in the baselines.
        out_channels: of the output.
        filters: those of the encoder; here in reverse.
        skips: how long skips join: compressed by a 1×1 convolution to one channel, which is concatenated (Figure 5);
            all channels concatenated (`concat`) or added (`sum`), or not at all.
        output: `linear` as printed, or `image`, tanh scaled to 0 to 1.
        spectral_norm: as of `GenSegEncoder`.
    """

    def __init__(
        self,
        code_filters: int | Sequence[int] = COMMON,
        out_channels: int = 1,
        filters: Sequence[int] = FILTERS,
        skips: Skips = "compress",
        output: Literal["linear", "image"] = "linear",
        spectral_norm: Spectral = "all",
    ) -> None:
        check_output(output, ("linear", "image"))
        super().__init__(code_filters, out_channels, filters, 3, skips, None, output, spectral_norm)


class GenSegResidualDecoder(_Decoder):
    """g_res, and with the same convolutions g_seg = ĝ_res ∘ s, the segmentation (Tables 4 and 7, Eqs. 3 to 5).

    With the paper's `filters` and images of 48×48:

    | layer | kernel, stride | output |
    |---|---|---|
    | upsampling, convolution | 5×5, 1 | 256 × 6 × 6 |
    | conv block (no short skip) | 5×5, 1 | 128 × 12 × 12 |
    | conv block (no short skip) | 5×5, 1 | 64 × 24 × 24 |
    | conv block (no short skip) | 5×5, 1 | 32 × 48 × 48 |
    | layer norm, ReLU, convolution | 5×5, 1 | 1 × 48 × 48 |

    To segment, a 1×1 convolution takes the place of the last row, and the blocks normalise otherwise than to translate.

    Args:
        code_filters: channels of both codes.
        out_channels: of the image.
        filters: those of the encoder; here in reverse.
        skips: as of `GenSegDecoder`.
        segmentation_norm: `adaptive` instance norm, whose parameters a perceptron of 4 layers with 256 units makes from
            the code (MNIST); or layer norm with parameters of its `own` (BraTS).
        output: `linear` as printed, or `tanh`, −1 to 1.
        spectral_norm: as of `GenSegEncoder`; the classifier is an output layer too.
    """

    def __init__(
        self,
        code_filters: int | Sequence[int] = (COMMON, UNIQUE),
        out_channels: int = 1,
        filters: Sequence[int] = FILTERS,
        skips: Skips = "compress",
        segmentation_norm: Literal["adaptive", "own"] = "adaptive",
        output: Literal["linear", "tanh"] = "linear",
        spectral_norm: Spectral = "all",
    ) -> None:
        check_output(output, ("linear", "tanh"))
        if segmentation_norm not in ("adaptive", "own"):
            raise ValueError(f"segmentation_norm is 'adaptive' or 'own', found {segmentation_norm!r}")
        super().__init__(code_filters, out_channels, filters, 5, skips, segmentation_norm, output, spectral_norm)
        self.counts = [2 * _joined(skips, width) for width in filters[:0:-1]]
        made = sum(self.counts) if segmentation_norm == "adaptive" else 0
        self.perceptron = _perceptron(_total(code_filters), made, spectral_norm != "none") if made else None
        # s of Eq. 4.
        self.classifier = Convolution(filters[0], 1, 1, spectral=spectral_norm == "all")

    def segment(self, code: Tensor, skips: list[Tensor]) -> Tensor:
        """Lesion logits (B, 1, H, W) by ĝ_res ∘ s (Eq. 4), with p_norm = MLP(c, u) where norms are adaptive (Eq. 5)."""
        pooled = code.mean(dim=(2, 3), keepdim=True)
        if self.perceptron is None:
            parameters = [pooled for _ in self.counts]  # not looked at: the norms have parameters of their own
        else:
            parameters = list(self.perceptron(pooled).split(self.counts, dim=1))
        logits: Tensor = self.classifier(self.decoded(code, skips, parameters))
        return logits


class GenSegResidualDecoders(nn.Module):
    """A residual decoder for each pathology, which sees the common code and its own unique one (Section 5).

    Args:
        pathologies: their names.
        code_filters: channels of the common code, and of a unique one.
        options: further arguments of `GenSegResidualDecoder`.
    """

    def __init__(
        self, pathologies: Sequence[str], code_filters: Sequence[int] = (COMMON, UNIQUE), **options: Any
    ) -> None:
        super().__init__()
        common, unique = code_filters
        self.code_filters = [common, *[unique] * len(pathologies)]
        # Any: a list of modules does not tell whose they are.
        self.decoders: Any = nn.ModuleList(GenSegResidualDecoder(code_filters, **options) for _ in pathologies)

    def forward(self, code: Tensor, skips: list[Tensor], present: Tensor | None = None) -> Tensor:
        """The sum of what each pathology adds to an image, shape (B, out_channels, H, W).

        Args:
            code: the common code and all unique ones, shape (B, C, h, w).
            skips: as the encoder gives them.
            present: which are in the image, in {0, 1}, shape (B, pathologies); None: all of them.
        """
        # type: (Tensor, List[Tensor], Optional[Tensor]) -> Tensor
        parts = code.split(self.code_filters, dim=1)
        residuals: list[Tensor] = []
        for index, decoder in enumerate(self.decoders):
            residual = decoder(torch.cat((parts[0], parts[index + 1]), dim=1), skips)
            residuals.append(residual if present is None else residual * present[:, index, None, None, None])
        return torch.stack(residuals).sum(dim=0)

    def segment(self, code: Tensor, skips: list[Tensor]) -> Tensor:
        """Logits of each pathology, shape (B, pathologies, H, W); an image may show several."""
        parts = code.split(self.code_filters, dim=1)
        logits: list[Tensor] = []
        for index, decoder in enumerate(self.decoders):
            logits.append(decoder.segment(torch.cat((parts[0], parts[index + 1]), dim=1), skips))
        return torch.cat(logits, dim=1)


class GenSegDiscriminator(nn.Module):
    """D_A and D_P (Tables 8 and 9): one such network at each of three scales, each half as fine as the one before.

    With the `filters` of MNIST and images of 48×48, at the finest scale:

    | layer | kernel, stride | output |
    |---|---|---|
    | convolution | 4×4, 1 | 128 × 48 × 48 |
    | norm, leaky ReLU, convolution | 4×4, 2 | 128 × 24 × 24 |
    | norm, leaky ReLU, convolution | 4×4, 2 | 256 × 12 × 12 |
    | norm, leaky ReLU, convolution | 4×4, 2 | 512 × 6 × 6 |
    | convolution | 1×1, 1 | 1 × 6 × 6 |

    Args:
        in_channels: of the image.
        filters: of all layers but the last; 64, 64, 128, 256, 512 in BraTS.
        norm: `instance` or `layer`; the paper does not say.
        spectral_norm: as of `GenSegEncoder`; the last layer is the output layer.
    """

    def __init__(
        self,
        in_channels: int = 1,
        filters: Sequence[int] = (128, 128, 256, 512),
        norm: Literal["instance", "layer"] = "instance",
        spectral_norm: Spectral = "all",
    ) -> None:
        super().__init__()
        _check("spectral_norm", spectral_norm, Spectral)
        if norm not in ("instance", "layer"):
            raise ValueError(f"norm is 'instance' or 'layer', found {norm!r}")
        inner = spectral_norm != "none"

        def one_scale() -> nn.Sequential:
            layers: list[nn.Module] = [
                nn.ReflectionPad2d((1, 2, 1, 2)),  # an even kernel of stride 1 that keeps the size
                Convolution(in_channels, filters[0], 4, padding=0, spectral=inner),
            ]
            for before, after in itertools.pairwise(filters):
                layers += [
                    nn.InstanceNorm2d(before, affine=True) if norm == "instance" else _layer_norm(before),
                    nn.LeakyReLU(LEAK),
                    Convolution(before, after, 4, stride=2, padding=1, spectral=inner),
                ]
            return nn.Sequential(*layers, Convolution(filters[-1], 1, 1, spectral=spectral_norm == "all"))

        self.scales = nn.ModuleList(one_scale() for _ in range(SCALES))
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch 1"]:
        """One score an image: the mean over a scale's map, then over the scales.

        Args:
            image: shape (B, in_channels, H, W); H and W divisible by 4 · 2 to the number of strided layers.
        """
        scores = []
        for level, scale in enumerate(self.scales):
            image = self.halve(image) if level else image
            scores.append(scale(image).mean(dim=(2, 3)))
        return torch.stack(scores).mean(dim=0)


class GenSegDiscriminators(nn.Module):
    """D_P for each pathology (Section 5).

    Args:
        pathologies: their names.
        options: arguments of `GenSegDiscriminator`.
    """

    def __init__(self, pathologies: Sequence[str], **options: Any) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(GenSegDiscriminator(**options) for _ in pathologies)

    def forward(self, image: Float[Tensor, "batch channel height width"], present: Tensor) -> Float[Tensor, "batch 1"]:
        """One score an image, that of its pathology.

        Args:
            image: shape (B, in_channels, H, W).
            present: which pathology it should show, one-hot, shape (B, pathologies).
        """
        scores = torch.cat([D(image) for D in self.discriminators], dim=1)
        return (scores * present).sum(dim=1, keepdim=True)


class GenSegSegmentor(nn.Module):
    """What segments: y = g_seg(c, u) (Eq. 4).

    Args:
        encoder: f.
        decoder: g_res, one of each pathology, or another decoder whose output is logits.
    """

    output_type = "segmentation"

    def __init__(
        self, encoder: GenSegEncoder, decoder: GenSegDecoder | GenSegResidualDecoder | GenSegResidualDecoders
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch _ height width"]:
        """Lesion logits (B, pathologies, H, W) of images (B, C, H, W)."""
        # type: (Tensor) -> Tensor
        common, unique, skips = self.encoder(image)
        code = torch.cat((common, unique), dim=1)
        logits: Tensor = self.decoder.segment(code, skips)
        return logits


class PresenceToAbsence(nn.Module):
    """What takes the target away: x_PA = g_com(c_P) (Eq. 2).

    Args:
        encoder: f.
        common_decoder: g_com.
    """

    output_type = "image"

    def __init__(self, encoder: GenSegEncoder, common_decoder: GenSegDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.common_decoder = common_decoder

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Images (B, C, H, W) to the same without the target."""
        # type: (Tensor) -> Tensor
        common, _, skips = self.encoder(image)
        absent: Tensor = self.common_decoder(common, skips)
        return absent


class AbsenceToPresence(nn.Module):
    """What puts a target in, of several pathologies all: x_AP = g_com(c_A) + g_res(c_A, u) (Eq. 6).

    Args:
        encoder: f.
        common_decoder: g_com.
        residual_decoder: g_res.
    """

    output_type = "image"

    def __init__(
        self,
        encoder: GenSegEncoder,
        common_decoder: GenSegDecoder,
        residual_decoder: GenSegResidualDecoder | GenSegResidualDecoders,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.common_decoder = common_decoder
        self.residual_decoder = residual_decoder

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Images (B, C, H, W) to the same with a target; another one each time, u being drawn from N(0, I)."""
        # type: (Tensor) -> Tensor
        common, unique, skips = self.encoder(image)
        code = torch.cat((common, drawn_like(unique)), dim=1)
        absent: Tensor = self.common_decoder(common, skips)
        residual: Tensor = self.residual_decoder(code, skips)
        return absent + residual


def drawn_like(unique: Tensor) -> Tensor:
    """A code u ~ N(0, I) of the shape of a unique one (Eq. 6)."""
    # Drawn on the CPU: one sequence on every device, and the one random state that every checkpoint restores.
    return torch.randn(unique.shape).to(unique)


class DownBlock(nn.Module):
    """The encoder's conv block (Figure 9): instance norm, ReLU, 3×3 convolution of stride 2, then the short skip.

    Args:
        before: channels in.
        after: channels out.
        spectral: spectral norm of the convolutions.
    """

    def __init__(self, before: int, after: int, spectral: bool) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(before, affine=True)
        self.convolution = Convolution(before, after, 3, stride=2, spectral=spectral)
        self.short_skip = Convolution(before, after, 1, stride=2, spectral=spectral)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, before, H, W) to (B, after, H/2, W/2)."""
        convolved: Tensor = self.convolution(functional.relu(self.norm(features)))
        short: Tensor = self.short_skip(features)
        return convolved + short


class UpBlock(nn.Module):
    """A decoder's conv block behind the long skip that joins it (Figures 5 and 9).

    Norm, ReLU, twofold upsampling by repetition, convolution; then the short skip, where the kernel is 3×3.

    Args:
        before: channels in, of the features and of the long skip.
        after: channels out.
        kernel: 3, or 5 in the residual decoder, which has no short skips.
        skips: how the long skip joins.
        segmentation_norm: None, or how else than by layer norm features may be normalised.
        spectral: spectral norm of the convolutions.
    """

    def __init__(
        self, before: int, after: int, kernel: int, skips: Skips, segmentation_norm: str | None, spectral: bool
    ) -> None:
        super().__init__()
        self.skips = skips
        joined = _joined(skips, before)
        self.compress = Convolution(before, 1, 1, spectral=spectral) if skips == "compress" else nn.Identity()
        skipped = 1 if skips == "compress" else before
        self.skip_norm = nn.Identity() if skips == "none" else nn.InstanceNorm2d(skipped, affine=True)
        self.norm = _layer_norm(joined)
        self.segmentation_norm = _layer_norm(joined) if segmentation_norm == "own" else None
        self.adapted = nn.InstanceNorm2d(joined)
        self.convolution = Convolution(joined, after, kernel, spectral=spectral)
        self.short_skip = Convolution(joined, after, 1, spectral=spectral) if kernel == 3 else None

    def forward(self, features: Tensor, skip: Tensor, parameters: Tensor | None) -> Tensor:
        """Shape (B, before, H, W), both, to (B, after, 2H, 2W); with `parameters` as it is when segmenting."""
        # type: (Tensor, Tensor, Optional[Tensor]) -> Tensor
        if self.skips == "sum":
            features = features + self.skip_norm(skip)
        elif self.skips != "none":
            features = torch.cat((features, self.skip_norm(self.compress(skip))), dim=1)
        if parameters is None:
            normed = self.norm(features)
        elif self.segmentation_norm is not None:
            normed = self.segmentation_norm(features)
        else:
            scale, shift = parameters.chunk(2, dim=1)
            normed = self.adapted(features) * (1 + scale) + shift
        convolved: Tensor = self.convolution(_upsampled(functional.relu(normed)))
        if self.short_skip is None:
            return convolved
        short: Tensor = self.short_skip(_upsampled(features))
        return convolved + short


class Convolution(nn.Conv2d):
    """A convolution with reflected border, Kaiming normal weights and, if asked for, spectral norm.

    Torch's own spectral norm (Miyato et al. 2018) cannot be compiled to TorchScript, which what users run has to be.

    Args:
        before: channels in.
        after: channels out.
        kernel: its side; odd, or give the padding.
        stride: of the convolution.
        padding: pixels on each side; None keeps the size at stride 1.
        spectral: divide the weight by its largest singular value, followed by one power iteration a training step.
    """

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, padding: int | None = None, spectral: bool = True
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        # A border of 0 pixels has no mode.
        mode: Literal["reflect", "zeros"] = "reflect" if padding else "zeros"
        super().__init__(before, after, kernel, stride=stride, padding=padding, padding_mode=mode)
        nn.init.kaiming_normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.spectral = spectral
        self.left: Tensor
        self.right: Tensor
        self.register_buffer("left", functional.normalize(torch.randn(after), dim=0), persistent=spectral)
        self.register_buffer("right", functional.normalize(torch.randn(before * kernel**2), dim=0), spectral)
        # A weight of no values has no singular vectors.
        for _ in range(15 if spectral and not self.weight.is_meta else 0):
            self.follow()

    def follow(self) -> None:
        """One power iteration towards the weight's first singular vectors."""
        with torch.no_grad():
            matrix = self.weight.flatten(1)
            # New tensors: those of an earlier pass are still needed by its gradient. Products are written out: under
            # autocast those of torch would come in half precision.
            self.left = functional.normalize((matrix * self.right).sum(1), dim=0)
            self.right = functional.normalize((matrix * self.left[:, None]).sum(0), dim=0)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (B, before, H, W) to (B, after, H', W')."""
        weight: Tensor = self.weight
        if self.spectral:
            if self.training:
                self.follow()
            largest = (self.left * (weight.flatten(1) * self.right).sum(1)).sum()
            weight = weight / largest.clamp_min(1e-12)
        convolved: Tensor = self._conv_forward(features, weight, self.bias)
        return convolved


def _perceptron(before: int, after: int, spectral: bool) -> nn.Sequential:
    """Four layers of 256 units, then one that makes the parameters; as 1×1 convolutions of a code of one pixel."""
    layers: list[nn.Module] = []
    for units in (before, *[MLP_UNITS] * (MLP_LAYERS - 1)):
        layers += [Convolution(units, MLP_UNITS, 1, spectral=spectral), nn.ReLU()]
    return nn.Sequential(*layers, Convolution(MLP_UNITS, after, 1, spectral=spectral))


def _layer_norm(channels: int) -> nn.GroupNorm:
    """Over channels and pixels of each sample, with a scale and shift for each channel."""
    return nn.GroupNorm(1, channels)


def _total(filters: int | Sequence[int]) -> int:
    return filters if isinstance(filters, int) else sum(filters)


def _joined(skips: str, channels: int) -> int:
    """How many channels a stage has once its long skip has joined it."""
    return channels + {"compress": 1, "concat": channels, "sum": 0, "none": 0}[skips]


def _upsampled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def _check(name: str, value: str, allowed: object) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} is one of {', '.join(get_args(allowed))}, found {value!r}")
