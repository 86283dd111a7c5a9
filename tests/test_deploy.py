"""The operator of docs/deploy/app.py, on stand-ins of the SDK's classes: what it takes, writes, refuses."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

APP = Path(__file__).parents[1] / "docs/deploy/app.py"
NAMES = {
    "monai.deploy": (),
    "monai.deploy.conditions": ("CountCondition",),
    "monai.deploy.core": ("AppContext", "Application", "Fragment", "OperatorSpec"),
    "monai.deploy.operators": (),
    "monai.deploy.operators.dicom_data_loader_operator": ("DICOMDataLoaderOperator",),
    "monai.deploy.operators.dicom_series_selector_operator": ("DICOMSeriesSelectorOperator",),
}

pytestmark = pytest.mark.slow


class Operator:
    """As the SDK's: it is given the application."""

    def __init__(self, fragment: Any, *args: Any, **kwargs: Any) -> None:
        self.fragment = fragment


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path) -> Any:
    """The operator with a run's weights, started."""
    for name, classes in NAMES.items():
        module = ModuleType(name)
        for each in classes:
            setattr(module, each, type(each, (), {}))
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["monai.deploy.core"].Operator = Operator  # type: ignore[attr-defined]
    made = runpy.run_path(str(APP))["PseudoHealthyOperator"](
        None, bundle=str(trained), output_folder=tmp_path / "out", device="cpu"
    )
    made.start()
    return made


def received(files: list[Path]) -> Any:
    """What the SDK's selector hands on: a study with a selected series of pydicom's datasets."""
    instances = [SimpleNamespace(get_native_sop_instance=lambda file=file: pydicom.dcmread(file)) for file in files]
    series = SimpleNamespace(get_sop_instances=lambda: instances)
    study = SimpleNamespace(selected_series=[SimpleNamespace(series=series)])
    return SimpleNamespace(receive={"study_selected_series_list": [study]}.__getitem__)


def head() -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (40, 48, 8)), indexing="ij"))
    return (((grid**2).sum(axis=0) < 0.8) * 400).astype(np.int16)


def test_the_selected_series_alone_gets_a_twin_marked_as_synthetic(operator: Any, tmp_path: Path) -> None:
    chosen = write_series(tmp_path / "study", head(), SeriesDescription="FLAIR")
    write_series(tmp_path / "study", head() // 2, SeriesDescription="T1")
    operator.compute(received(chosen), None, None)
    (twin,) = (tmp_path / "out").glob("*_desc-pseudohealthy")
    slices = [pydicom.dcmread(file) for file in twin.iterdir()]
    assert len(slices) == 8
    assert {each.SyntheticData for each in slices} == {"YES"}
    assert {each.StudyInstanceUID for each in slices} == {pydicom.dcmread(chosen[0]).StudyInstanceUID}
    assert len(list((tmp_path / "out").glob("*.html"))) == 1


def test_a_series_that_cannot_be_used_ends_the_application_with_the_reason(operator: Any, tmp_path: Path) -> None:
    files = write_series(tmp_path / "study", head())
    with pytest.raises(RuntimeError, match="missing or unevenly spaced"):
        operator.compute(received(files[:3] + files[5:]), None, None)
