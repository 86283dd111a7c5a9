"""What is done to a scan before the network sees it, and undone on the way out.

The scan itself is never changed by these steps: they make the *view* that the network is shown, and bring its change
back to the scan's grid and units, where it is added.
"""

from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its users know it so)
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from pipeline.errors import ScanError
from pipeline.preprocessing.labels import brain_voxels
from pipeline.preprocessing.window import air_level
from pipeline.scans import Scan, check_same_grid, on_grid_of

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# N4 (Tustison et al. 2010) looks for a field that changes over centimetres: voxels of this size are enough.
FIELD_MM = 4.0
FIELD_ITERATIONS = (50, 50, 30, 20)
SEED = 1
# Mattes mutual information of scans that lie on each other: heads of two people, contrasts and scanners have 0.19 to
# 0.38, a head and noise 0.01 at most.
LEAST_INFORMATION = 0.05


@dataclass(frozen=True)
class View:
    """The scan as a network is shown it.

    Args:
        scan: what it sees; on its own grid where the scan was registered, on the input's else.
        source: the scan itself.
        field: what the scan's intensities were divided by, shape of `scan`; None where they were not.
        pose: from points of `scan` to points of `source` (LPS, millimetres); None where their grids are one.
    """

    scan: Scan
    source: Scan
    field: NDArray[np.float32] | None = None
    pose: sitk.Transform | None = None

    def mask(self, mask: Scan) -> Scan:
        """A mask on the source's grid, brought to the view's."""
        mask = on_grid_of(self.source, mask)
        if self.pose is None:
            return mask
        check_same_grid(self.source, mask, "mask")
        stored = on_grid((mask.intensities() > 0).astype(np.float32), mask.affine, self.scan, self.pose, 0.0) > 0.5
        return replace(mask, stored=stored.astype(np.uint8), slope=1.0, intercept=0.0, header=self.scan.header)

    def back(self, volume: NDArray[np.float32], in_units: bool = True) -> NDArray[np.float32]:
        """A volume on the view's grid, brought to the source's grid and, with `in_units`, to its units.

        Args:
            volume: shape of `scan`; zero where nothing was changed, and zero is what lies beyond the view.
            in_units: multiply by the bias field, by which the view was divided.
        """
        if in_units and self.field is not None:
            volume = volume * self.field
        if self.pose is None:
            return volume
        return on_grid(volume, self.scan.affine, self.source, self.pose.GetInverse(), 0.0)


@dataclass(frozen=True)
class Preparation:
    """Optional steps that a user would otherwise take by hand; none by default.

    Args:
        brain: a brain mask on the scan's grid: the network sees the brain alone, and nothing else is edited.
        bias_correction: N4 (Tustison et al. 2010).
        template: register rigidly to this scan first (mutual information, Mattes et al. 2003), and show the network the
            scan on its grid.
    """

    brain: Scan | None = None
    bias_correction: bool = False
    template: Scan | None = None

    def view(self, scan: Scan) -> tuple[View, list[str], list[dict[str, Any]]]:
        """Take the steps.

        Returns:
            What the network sees, a note for the user on each step, and the steps as a sidecar records them.

        Raises:
            ScanError: if the brain mask is refused or lies elsewhere, or no registration is found.
        """
        view = View(scan, scan)
        notes: list[str] = []
        record: list[dict[str, Any]] = []
        if self.brain is not None:
            inside, assumed = self._inside(self.brain, scan)
            view = replace(view, scan=_seen(scan, np.where(inside, scan.intensities(), _air(scan))))
            notes += assumed
            notes.append(f"the network saw the brain alone ({self.brain.origin.name})")
            record.append({"Step": "brain mask", "File": self.brain.origin.name})
        if self.bias_correction:
            field = bias_field(view.scan)
            view = replace(view, scan=_seen(view.scan, view.scan.intensities() / field), field=field)
            low, high = (float(value) for value in np.percentile(field, (1, 99)))
            notes.append(f"N4 bias correction before inference: factors of {low:.2f} to {high:.2f}")
            record.append({"Step": "N4 bias correction", "Field": [low, high], "FieldMm": FIELD_MM})
        if self.template is not None:
            pose, turned, moved = rigid_pose(self.template, view.scan)
            seen = _resampled(view.scan, self.template, pose)
            moved_field = (
                None if view.field is None else on_grid(view.field, view.scan.affine, self.template, pose, 1.0)
            )
            view = View(seen, scan, moved_field, pose)
            notes.append(
                f"registered to {self.template.origin.name} before inference: turned by {turned:.1f}°, moved by "
                f"{moved:.1f} mm"
            )
            record.append(
                {
                    "Step": "rigid registration",
                    "Template": self.template.origin.name,
                    "Degrees": turned,
                    "Mm": moved,
                    "Parameters": list(pose.GetParameters()),
                    "Center": list(pose.GetFixedParameters()[:3]),
                }
            )
        return view, notes, record

    def like(self, view: View, scan: Scan) -> Scan:
        """Another sequence on the same grid, as the network sees it beside a view.

        Raises:
            ScanError: if N4 finds no bias field in it.
        """
        if self.brain is not None:
            inside, _ = self._inside(self.brain, view.source)
            scan = _seen(scan, np.where(inside, scan.intensities(), _air(scan)))
        if self.bias_correction:
            scan = _seen(scan, scan.intensities() / bias_field(scan))
        return scan if self.template is None or view.pose is None else _resampled(scan, self.template, view.pose)

    @staticmethod
    def _inside(mask: Scan, scan: Scan) -> tuple[NDArray[np.bool_], list[str]]:
        brain = on_grid_of(scan, mask)
        check_same_grid(scan, brain, "brain mask")
        return brain_voxels(brain, scan)


def bias_field(scan: Scan) -> NDArray[np.float32]:
    """The smooth field by which a coil brightens a scan, mean 1 over what is brighter than the mean; shape (X, Y, Z).

    N4 on voxels of about `FIELD_MM`, inside Otsu's threshold.

    Raises:
        ScanError: if the scan is too small for it.
    """
    image = to_sitk(scan.intensities(), scan.affine)
    shrink = [
        max(1, min(round(FIELD_MM / mm), size // 4)) for mm, size in zip(scan.spacing_mm, scan.shape, strict=True)
    ]
    small = sitk.Shrink(image, shrink)
    if min(small.GetSize()) < 4:
        raise ScanError(
            f"{scan.origin}: found {' × '.join(map(str, scan.shape))} voxels, expected at least 4 along each axis for "
            "N4; leave --n4 out"
        )
    head = sitk.OtsuThreshold(small, 0, 1)
    correct = sitk.N4BiasFieldCorrectionImageFilter()
    correct.SetMaximumNumberOfIterations(list(FIELD_ITERATIONS))
    try:
        correct.Execute(sitk.Cast(small, sitk.sitkFloat32), head)
        field = np.exp(sitk.GetArrayFromImage(correct.GetLogBiasFieldAsImage(image)).T)
    except RuntimeError as error:
        raise ScanError(f"{scan.origin}: N4 finds no bias field in this scan; leave --n4 out") from error
    inside = scan.intensities() > scan.intensities().mean()
    scaled: NDArray[np.float32] = (field / field[inside].mean()).astype(np.float32)
    return scaled


def rigid_pose(fixed: Scan, moving: Scan) -> tuple[sitk.Euler3DTransform, float, float]:
    """The rigid transform from points of `fixed` to points of `moving`, by mutual information on three resolutions.

    Returns:
        The transform, the angle of its rotation in degrees, and how far it moves the centre of `fixed` in millimetres.

    Raises:
        ScanError: if none is found.
    """
    target = to_sitk(fixed.intensities(), fixed.affine)
    image = to_sitk(moving.intensities(), moving.affine)
    try:
        start = sitk.CenteredTransformInitializer(
            target, image, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        register = sitk.ImageRegistrationMethod()
        register.SetMetricAsMattesMutualInformation(32)
        register.SetMetricSamplingStrategy(register.RANDOM)
        register.SetMetricSamplingPercentage(0.2, SEED)
        register.SetInterpolator(sitk.sitkLinear)
        register.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200)
        register.SetOptimizerScalesFromPhysicalShift()
        register.SetShrinkFactorsPerLevel([8, 4, 2])
        register.SetSmoothingSigmasPerLevel([4, 2, 1])
        register.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        register.SetInitialTransform(start, inPlace=True)
        register.Execute(target, image)
        if -register.GetMetricValue() < LEAST_INFORMATION:
            raise _unrelated(moving, fixed)
    except RuntimeError as error:
        raise _unrelated(moving, fixed) from error
    pose = sitk.Euler3DTransform(start)
    turn = np.reshape(pose.GetMatrix(), (3, 3))
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
    centre = target.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in target.GetSize()])
    moved = float(np.linalg.norm(np.subtract(pose.TransformPoint(centre), centre)))
    return pose, degrees, moved


def to_sitk(voxels: NDArray[Any], affine: NDArray[np.float64]) -> sitk.Image:
    """An image on the same grid for SimpleITK, whose space is LPS."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _seen(scan: Scan, intensities: NDArray[np.float32]) -> Scan:
    return replace(scan, stored=intensities, slope=1.0, intercept=0.0, padding=None)


def _resampled(scan: Scan, template: Scan, pose: sitk.Transform) -> Scan:
    """The scan on the template's grid, linear; air where it has no voxels."""
    _check_overlap(scan, template, pose)
    header = nib.Nifti1Header()
    header.set_data_shape(template.shape)
    header.set_xyzt_units("mm")
    header.set_qform(template.affine, 1)
    header.set_sform(template.affine, 1)
    seen = on_grid(scan.intensities(), scan.affine, template, pose, _air(scan))
    return replace(scan, stored=seen, slope=1.0, intercept=0.0, header=header, padding=None)


def on_grid(
    voxels: NDArray[np.float32], affine: NDArray[np.float64], template: Scan, pose: sitk.Transform, beyond: float
) -> NDArray[np.float32]:
    """A volume on the template's grid, linear, with `beyond` where it has no voxels."""
    reference = to_sitk(template.stored, template.affine)
    image = sitk.Resample(to_sitk(voxels, affine), reference, pose, sitk.sitkLinear, beyond)
    moved: NDArray[np.float32] = sitk.GetArrayFromImage(image).T
    return moved


def _air(scan: Scan) -> float:
    """What lies around a head: 0, what CT shows below it, or what was added to the whole scan."""
    intensities = scan.intensities()
    return min(0.0, float(intensities.min())) or air_level(intensities)


def _check_overlap(scan: Scan, template: Scan, pose: sitk.Transform) -> None:
    """Refuse a pose that takes the template's middle out of the scan: such a registration went astray."""
    middle = apply_affine(LPS @ template.affine, [(size - 1) / 2 for size in template.shape])
    point = np.asarray(pose.TransformPoint(middle.tolist()))
    index = apply_affine(np.linalg.inv(LPS @ scan.affine), point)
    if (index < 0).any() or (index > np.subtract(scan.shape, 1)).any():
        raise _unrelated(scan, template)


def _unrelated(scan: Scan, template: Scan) -> ScanError:
    return ScanError(
        f"{scan.origin}: no registration to {template.origin.name} was found, expected scans of the same part of the "
        "body; leave --register-to out"
    )
