"""A MONAI Deploy application: of each study that comes in, the chosen MR series goes out as its pseudo-healthy twin.

    python docs/deploy/app.py -i STUDY_FOLDER -o OUT

The SDK's operators load the studies and choose a series by rules; ours makes the twin and writes it as a new DICOM
series in the same study, marked as synthetic. For research, not for diagnosis.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator

from pipeline import load_predictor
from pipeline.inference import Request, predict_scans
from pipeline.inference.outputs import Form
from pipeline.reports import ScanPage
from pipeline.scans.sources import open_sources

BUNDLE = os.environ.get("PHS_DEPLOY_BUNDLE", "lesion+fill")
# The shipped weights know FLAIR of the brain.
RULES = '{"selections": [{"name": "FLAIR", "conditions": {"Modality": "MR", "SeriesDescription": "(?i).*flair.*"}}]}'

logger = logging.getLogger(__name__)


class PseudoHealthyOperator(Operator):
    """Makes the pseudo-healthy twin of each selected series, and writes it as DICOM with a page to look at.

    Named input:
        study_selected_series_list: of `DICOMSeriesSelectorOperator`.

    Args:
        fragment: the application.
        bundle: a translator with weights: a name, the folder of a run, or `SEGMENTER+FILLER`.
        output_folder: where series and pages go.
        device: `auto`, `cpu` or `cuda`.
    """

    def __init__(
        self, fragment: Fragment, *args: Any, bundle: str, output_folder: Path, device: str = "auto", **kwargs: Any
    ) -> None:
        self.bundle, self.output_folder, self.device = bundle, Path(output_folder), device
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Declare the input; the result is what lies in the output folder."""
        spec.input("study_selected_series_list")

    def start(self) -> None:
        """Load the networks once, before the first study."""
        self.loaded = load_predictor(self.bundle, self.device)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:  # noqa: ARG002
        """Make and write the twins.

        Raises:
            RuntimeError: if a series cannot be used; its text says which and why.
        """
        for study in op_input.receive("study_selected_series_list"):
            for selected in study.selected_series:
                self.write_twin(Path(file) for file in files_of(selected.series))

    def write_twin(self, files: Any) -> None:
        """The twin of a series that lies in files, possibly beside others."""
        with tempfile.TemporaryDirectory() as alone:
            for number, file in enumerate(files):
                (Path(alone) / f"{number:05d}.dcm").symlink_to(file.resolve())
            with open_sources([Path(alone)]) as sources:
                outcome = predict_scans(
                    sources,
                    self.loaded.predictor,
                    self.loaded.provenance,
                    self.output_folder,
                    lambda name, said: logger.info("%s: %s", name, said),
                    Request(Form(page=ScanPage())),
                    self.loaded.metadata,
                )
        for record in outcome.of("failed").values():
            raise RuntimeError(record.error)


def files_of(series: Any) -> list[str]:
    """The files of a series of the SDK, which keeps pydicom's datasets."""
    return [instance.get_native_sop_instance().filename for instance in series.get_sop_instances()]


class PseudoHealthyApp(Application):
    """Load, select, make the twin."""

    def compose(self) -> None:
        """Connect the operators."""
        context: AppContext = Application.init_app_context(self.argv)
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=Path(context.input_path), name="loader"
        )
        selector = DICOMSeriesSelectorOperator(self, rules=RULES, all_matched=True, name="selector")
        twins = PseudoHealthyOperator(self, bundle=BUNDLE, output_folder=Path(context.output_path), name="twins")
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, twins, {("study_selected_series_list", "study_selected_series_list")})


if __name__ == "__main__":
    PseudoHealthyApp().run()
