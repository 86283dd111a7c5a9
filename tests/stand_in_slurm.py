"""Slurm's commands, as far as the program calls them, for machines without Slurm: jobs run at once, side by side.

`tests/slurm.sh` tries the real ones.
"""

import sys
from pathlib import Path

SBATCH = """
given = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", pathlib.Path(sys.argv[1]).read_text(), re.MULTILINE))
if given.get("partition") == "nowhere":
    sys.exit("sbatch: error: invalid partition specified: nowhere")
number = str(len(list(here.glob("submitted-*"))) + 1)
(here / f"submitted-{number}").write_text(repr(given))
tasks = re.match(r"0-(\\d+)", given.get("array", ""))
for task in range(int(tasks[1]) + 1) if tasks else [None]:
    name = number if task is None else f"{number}_{task}"
    array = {} if task is None else {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}
    log = given["output"].strip("'").replace("%j", name).replace("%A", number).replace("%a", str(task))
    entry = here / f"queued-{name}"
    entry.write_text("RUNNING")
    subprocess.Popen(
        ["sh", "-c", 'bash "$1"; rm "$2"', "job", sys.argv[1], entry],
        stdout=open(log, "a"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **array, "SLURM_JOB_ID": number},
        start_new_session=True,
    )
print(f"Submitted batch job {number}")
"""
SQUEUE = """
array = sys.argv[sys.argv.index("--jobs") + 1]
if (here / "silent").exists():
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
if not (here / f"submitted-{array}").exists():
    sys.exit("slurm_load_jobs error: Invalid job id specified")
for entry in here.glob("queued-*"):
    name = entry.name.removeprefix("queued-")
    if name.partition("_")[0] == array:
        print(name, entry.read_text())
"""


def install(folder: Path) -> None:
    """Write the commands into a folder, which keeps what was submitted, too."""
    folder.mkdir()
    start = f"#!{sys.executable} -S\nimport os, pathlib, re, subprocess, sys\nhere = pathlib.Path(__file__).parent\n"
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": ""}.items():
        (folder / name).write_text(start + text)
        (folder / name).chmod(0o755)
