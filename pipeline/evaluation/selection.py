"""Choose among the epochs that a training kept, on patients it was not trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.bundles import Bundle, find_bundle
from pipeline.errors import UsageError
from pipeline.evaluation.judge import ITERATIONS, SEED, Judge, load_judge
from pipeline.evaluation.predictions import judged, of_volume, pseudo_healthy
from pipeline.evaluation.probes import Hallucination
from pipeline.evaluation.scores import score_methods, score_rows, score_volumes
from pipeline.evaluation.volumes import HEALTHY, Volume, pathological_subjects, read_volume, subjects_with
from pipeline.files import sha256, write_json
from pipeline.inference import Translator, load_predictor, load_weights
from pipeline.launch import check_unseen
from pipeline.metrics import METRICS, Metric
from pipeline.metrics.metric import metrics_for
from pipeline.training.checkpoint import export_file, kept_epochs, use_epoch

HEALTHY_ENOUGH = 0.9
CLOSE_ENOUGH = 30.0  # dB in normal tissue; below it the image is hardly this person's
RECORD = "selection.json"


def select_epoch(
    run: Path,
    cohort: Path,
    device: str = "auto",
    judge_iterations: int = ITERATIONS,
    progress: Callable[[dict[str, Any], list[Metric]], None] | None = None,
) -> dict[str, Any]:
    """Score each kept epoch on the validation patients and make the best one the run's `model.pt`.

    A game of networks fluctuates: healthier from one epoch to the next, and closer to the input from the next to the
    one after. Among epochs whose pooled healthiness is at least `HEALTHY_ENOUGH` the one with the highest PSNR in
    normal tissue is taken, if that is at least `CLOSE_ENOUGH`; if there is none, the healthiest of those that are close
    enough; if none is, the closest.

    Args:
        run: folder of a training with `keep_every` set.
        cohort: the preprocessed cohort, whose validation patients decide.
        device: where to compute.
        judge_iterations: of the judge's training.
        progress: called with each epoch's row and the metrics in it.

    Returns:
        Content of `RUN/selection.json`: the rule, `epochs` with their scores, and the chosen `epoch`.

    Raises:
        UsageError: if the run kept no epoch, or the cohort has no validation patient with a lesion.
    """
    bundle: Bundle = find_bundle(str(run))
    check_unseen(bundle, cohort, "validation")
    models = bundle.weights.parent
    kept = kept_epochs(models)
    if not kept:
        raise UsageError(f"{run}: kept no epochs to choose from; train with --set keep_every=1")
    records = pathological_subjects(cohort, "validation")
    translator, _ = load_predictor(bundle, "translator", device)
    judge = load_judge(cohort, SEED, judge_iterations, translator.device)
    volumes = [read_volume(cohort, record) for record in records]
    healthy = [read_volume(cohort, record, HEALTHY) for record in subjects_with(cohort, "validation", HEALTHY)]
    rows = []
    for epoch in kept:
        load_weights(translator.runner.network, models / export_file(epoch=epoch))
        scores, metrics = _scores(translator, volumes, judge)
        probe = Hallucination()
        for volume in healthy:
            probe.add("healthy_slices", volume, pseudo_healthy(translator, volume))
        found = probe.summary()["healthy_slices"]
        row = {"epoch": epoch, **scores, "changed_in_healthy_slices": found["changed_share"] if found else None}
        rows.append(row)
        if progress:
            progress(row, metrics)
    best = max(rows, key=_merit)
    use_epoch(models, kept[rows.index(best)])
    record = {
        "rule": (
            f"highest PSNR of normal tissue where healthiness is {HEALTHY_ENOUGH} or more, else the healthiest; "
            f"epochs below {CLOSE_ENOUGH:g} dB only if all are, and then the highest PSNR"
        ),
        "split": "validation",
        "epoch": best["epoch"],
        "weights_sha256": sha256(bundle.weights),
        "judge_weights_sha256": judge.about["weights_sha256"],
        "metrics": [metric.record() for metric in metrics],
        "epochs": rows,
    }
    write_json(bundle.root / RECORD, record)
    return record


def _scores(
    translator: Translator, volumes: list[Volume], judge: Judge
) -> tuple[dict[str, float | None], list[Metric]]:
    """The mean of each metric, by name, and the metrics."""
    rows: list[dict[str, Any]] = []
    available: set[str] = set()
    for volume in volumes:
        given = judged(pseudo_healthy(translator, volume), of_volume(volume), judge)
        available |= set(given)
        keys = {"method": "", "patient": volume.patient, "subject": volume.subject}
        rows += score_rows(keys, volume.places, given, METRICS.values())
    metrics = metrics_for(METRICS, available)
    scores = score_methods(score_volumes(pd.DataFrame(rows), metrics), metrics)[""]["metrics"]
    return {name: score["mean"] for name, score in scores.items()}, metrics


def _merit(row: dict[str, Any]) -> tuple[int, float]:
    # No PSNR: nothing was changed at all, which is as close to the input as can be.
    closeness = float("inf") if row["psnr_normal"] is None else row["psnr_normal"]
    if closeness < CLOSE_ENOUGH:
        return 0, closeness
    if row["healthiness_pooled"] < HEALTHY_ENOUGH:
        return 1, row["healthiness_pooled"]
    return 2, closeness
