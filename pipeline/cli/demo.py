"""`phs-pipeline demo`: the whole chain on a phantom cohort."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.say import say

SUBJECTS = 14
# The laptop preset on the phantom's field of view, for as long as its lesions need, which are easily found.
TRAINING: dict[str, Any] = {"epochs": 8, "size": [96, 112], "average_decay": 0.98}
JUDGE_ITERATIONS = 200


@click.command()
@click.option("-o", "--output", default=Path("demo"), show_default=True, metavar="DIR", type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
def demo(output: Path, device: str) -> None:
    """Run every step on synthetic brains: cohort, training, synthesis, enhancement, evaluation.

    A network is trained to find the lesions; the filler that comes with phs-pipeline fills them.
    It takes minutes on a CPU and ends with the paths of what it made. Started again, it continues.
    """
    from pipeline.bundles import find_bundle
    from pipeline.cli.enhance import enhancement
    from pipeline.evaluation import Settings as EvaluationSettings
    from pipeline.inference import Request, load_parts, predict_scans
    from pipeline.inference.outputs import Form
    from pipeline.launch import train
    from pipeline.phantoms.cohort import write_phantom_cohort
    from pipeline.preprocessing.cohort import Settings, preprocess
    from pipeline.preprocessing.cohort_format import read_cohort
    from pipeline.preprocessing.slab import Slab
    from pipeline.reports import ScanPage
    from pipeline.reports.cohort_evaluation import evaluate_and_report
    from pipeline.reports.cohort_summary import cohort_summary
    from pipeline.scans.sources import open_sources

    scans, cohort, run, report = (output / name for name in ("scans", "cohort", "run", "report"))

    say(f"1/5 {SUBJECTS} synthetic brains with lesions: {scans}")
    write_phantom_cohort(scans, SUBJECTS, seed=0)

    say(f"2/5 preprocessing: {cohort}")
    prepared = preprocess(scans, cohort, Settings(slab=Slab(thickness_mm=90)))
    cohort_summary(cohort, prepared.subjects)

    say(f"3/5 training a network that finds lesions: {run}")
    started = (run / "configs" / "train.json").is_file()
    overrides = {"device_name": device, **({} if started else TRAINING)}
    train(find_bundle("lesion"), cohort, run, () if started else ("laptop",), overrides, resume=started)

    say("4/5 pseudo-healthy and enhanced scans of a test patient")
    loaded = load_parts([find_bundle(str(run)), find_bundle("fill")], "translator", device)
    subject = read_cohort(cohort).of("test")[0].subject
    scan = scans / subject / "anat" / f"{subject}_FLAIR.nii.gz"
    for finish in (None, enhancement(0.7)):
        request = Request(Form(page=ScanPage()), finish)
        with open_sources([scan]) as sources:
            outcome = predict_scans(
                sources, loaded.predictor, loaded.provenance, output / "out", lambda *_: None, request
            )
        for record in outcome.of("failed").values():
            raise click.ClickException(str(record.error))

    say(f"5/5 evaluation on the test patients: {report}")
    settings = EvaluationSettings(loaded.name, loaded.provenance, judge_iterations=JUDGE_ITERATIONS)
    evaluate_and_report(loaded.predictor, cohort, report, settings, overwrite=True)

    say("Look at:")
    for path in (
        cohort / "summary.png",
        run / "curves.png",
        max((run / "panels").iterdir()),
        *sorted((output / "out").rglob("*.html")),
        *sorted((output / "out").rglob("*.png")),
        report / "report.md",
        report / "cases.png",
    ):
        say(f"  {path}")
