#!/usr/bin/env bash
# A Slurm cluster of two simulated nodes on this machine, and on it what docs/how_to/slurm.md shows.
#   bash tests/slurm.sh
# Needs Debian's slurmctld, slurmd, slurm-client and munge (it installs nothing, and starts its own daemons), and
# phs-pipeline with the extra `slurm`, in .venv or on the PATH. Takes some minutes, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
[ ! -d .venv ] || PATH="$root/.venv/bin:$PATH"
export PATH="$PATH:/usr/sbin" PYTHONPATH="$root" OMP_NUM_THREADS=1

fail() { echo "FAILED: $*" >&2; exit 1; }
for program in munged slurmctld slurmd sbatch srun squeue scancel scontrol; do
  command -v "$program" >/dev/null || fail "found no $program; apt-get install slurmctld slurmd slurm-client munge"
done
command -v phs-pipeline torchrun >/dev/null || fail "found no phs-pipeline; make .venv/.installed"

work=$(mktemp -d)
export SLURM_CONF="$work/slurm.conf"
stop() {
  ! [ -s "$work/slurmctld.pid" ] || scancel --user "$(id -un)" 2>/dev/null || true
  for pid in "$work"/*.pid; do [ ! -s "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true; done
  for _ in $(seq 100); do [ -n "$(find "$work" -name '*.pid')" ] || break; sleep 0.1; done
  rm -rf "$work"
}
trap stop EXIT
chmod 755 "$work"

host=$(hostname -s)
memory=$(awk '/MemAvailable/ { print int($2 / 1024 / 2) }' /proc/meminfo)
mkdir "$work"/{state,spool.node1,spool.node2,user}
head -c 1024 /dev/urandom >"$work/munge.key"
chmod 400 "$work/munge.key"
cat >"$SLURM_CONF" <<EOF
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$work/munge.socket
StateSaveLocation=$work/state
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdSpoolDir=$work/spool.%n
SlurmdPidFile=$work/slurmd.%n.pid
SlurmdLogFile=$work/slurmd.%n.log
# Without cgroups, which containers do not have.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName=node[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[16821-16822] CPUs=1 RealMemory=$memory Gres=gpu:1
PartitionName=both Nodes=ALL Default=YES MaxTime=30 DefMemPerCPU=$((memory / 2)) State=UP
EOF
# In name only: torch finds none, and trains on the processor.
echo "Name=gpu File=/dev/null" >"$work/gres.conf"

munged --force --socket="$work/munge.socket" --key-file="$work/munge.key" --pid-file="$work/munged.pid" \
  --log-file="$work/munged.log" --seed-file="$work/munged.seed" 2>/dev/null
slurmctld
slurmd -N node1
slurmd -N node2
for _ in $(seq 100); do [ "$(sinfo --noheader --format '%t %D')" = "idle 2" ] && break; sleep 0.2; done
[ "$(sinfo --noheader --format '%t %D')" = "idle 2" ] || { tail -n 5 "$work"/*.log >&2; fail "the nodes are not idle"; }
sinfo

cd "$work/user"
volumes() { (cd "$1" && find . -name '*.nii.gz' -exec sha256sum {} + | sort -k 2); }
same() { diff <(volumes "$1") <(volumes "$2") || fail "$1 and $2 hold other volumes"; }

echo "== a cohort: an array of two, and a job after them"
phs-pipeline --quiet phantom -o scans --subjects 6
phs-pipeline --quiet preprocess scans -o whole --slices 4 --workers 1
one=(--cpus-per-task=1 --mem=2G --time=20)
sbatch --array=0-1 "${one[@]}" "$root/docs/slurm/shares.sbatch" preprocess scans -o cohort --slices 4
sbatch --wait --dependency=singleton --job-name=shares "${one[@]}" \
  --wrap "phs-pipeline preprocess scans -o cohort --slices 4" || { cat shares_*.log slurm-*.out >&2; fail preprocess; }
diff -r whole cohort || fail "shares made another cohort"

echo "== train.sbatch: torchrun on two nodes"
tiny=(--epochs 1 --set filters=4 --set segmentor_filters=4 --set spacing_mm=4 --set 'size=[64,64]')
sbatch --wait --gpus-per-node=1 "${one[@]}" "$root/docs/slurm/train.sbatch" gvs --data cohort -o run "${tiny[@]}" ||
  { cat train_*.log >&2; fail training; }
[ -s run/models/model.pt ] || fail "the training left no weights"

echo "== shares.sbatch: an array of two"
sbatch --wait --array=0-1 "${one[@]}" "$root/docs/slurm/shares.sbatch" synthesize scans -b run -o by_recipe --force ||
  { cat shares_*.log >&2; fail "shares"; }

echo "== --executor slurm, of which one share is stopped"
command=(phs-pipeline synthesize scans -b run -o out --force --executor slurm --num-parts 2
  --slurm mem=2G --slurm time=20 --report run.json)
"${command[@]}" >first.log 2>&1 &
first=$!
for _ in $(seq 600); do ! grep -q "is submitted" first.log || break; sleep 0.5; done
array=$(sed -n 's/^job \([0-9]*\) is submitted.*/\1/p' first.log)
scancel "${array}_1"
code=0; wait "$first" || code=$?
cat first.log
[ "$code" = 1 ] || fail "exit code $code, expected 1"
grep -q "share 1 failed (job ${array}_1)" first.log || fail "the share that was stopped is not named"

echo "== --executor slurm again"
"${command[@]}" || fail "the second call"
same out by_recipe
python - <<EOF || fail "the report is not of all scans"
import json
report = json.load(open("run.json"))
assert sorted(report["Counts"].items()) == [("failed", 0), ("skipped", 3), ("written", 3)], report["Counts"]
assert len(report["Scans"]) == 6 and not report["FailedShares"], report
EOF
for subject in 1 2 3 4 5 6; do
  grep -q "sub-00$subject" out/index.html || fail "sub-00$subject is not in the index"
done
echo "== all well, in $SECONDS s"
