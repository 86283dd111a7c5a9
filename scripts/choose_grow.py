"""What a segmenter finds is filled from which probability on, and grown by how much: figures of validation patients.

    python scripts/choose_grow.py COHORT -b lesion+fill --threshold 0.2 0.3 --grow 2 4 -o grow.md

COHORT is a preprocessed one, with lesion masks. For each pair: healthiness by the judge of `evaluate`, the lesions'
contrast to their surroundings, and how much normal tissue is bit-identical.
"""

import argparse
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.bundles import find_parts  # noqa: E402
from pipeline.evaluation import Settings, evaluate  # noqa: E402
from pipeline.evaluation.judge import ITERATIONS  # noqa: E402
from pipeline.inference import load_parts  # noqa: E402
from pipeline.inference.found_filler import THRESHOLD  # noqa: E402
from pipeline.metrics import METRICS  # noqa: E402

SHOWN = ("healthiness_pooled", "healthiness", "contrast", "psnr_normal", "bit_identical")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-b", "--bundle", default="lesion+fill", help="SEGMENTER+FILLER")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--grow", type=float, nargs="+", default=[0.0, 2.0, 4.0], help="margins in mm")
    parser.add_argument("--threshold", type=float, nargs="+", default=[THRESHOLD], help="of the probability of lesion")
    parser.add_argument("--judge-iterations", type=int, default=ITERATIONS, help="of the training of the judge")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown")
    given = parser.parse_args()
    predictor = load_parts(find_parts(given.bundle), "translator", "cpu").predictor
    metrics = [METRICS[name] for name in SHOWN]
    settings = Settings("found", split=given.split, judge_iterations=given.judge_iterations)
    lines = [f"| | {' | '.join(metric.heading for metric in metrics)} |", f"|---|{'---:|' * len(metrics)}"]
    rows = {"untouched": "untouched input"}
    for threshold, grow_mm in itertools.product(given.threshold, given.grow):
        predictor.threshold, predictor.grow_mm = threshold, grow_mm
        found = evaluate(predictor, given.cohort, settings).summary["methods"]
        rows[f"from {threshold:g}, {grow_mm:g} mm"] = "found"
        for label, row in rows.items():
            values = [(metric, found[row]["metrics"][metric.name]["mean"]) for metric in metrics]
            lines.append(f"| {label} | {' | '.join(metric.text(mean, 'identical') for metric, mean in values)} |")
        rows = {}
        print(lines[-1], flush=True)
    given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
