#!/usr/bin/env bash
# The whole chain in containers, each command with the options that docker-compose.yml gives it. Needs a Docker engine.
#   bash tests/containers.sh
# As root it runs the containers as user 12345, whom no machine knows; otherwise as whoever calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{data,cohorts,runs,out}
chmod 755 "$work"
uid=$(id -u) gid=$(id -g)
if [ "$uid" = 0 ]; then
  uid=12345 gid=12346
  chown "$uid:$gid" "$work"/*
fi

# `env`, because a shell does not let its own UID be set.
compose() {
  env UID="$uid" GID="$gid" DATA="$work/data" COHORTS="$work/cohorts" RUNS="$work/runs" OUT="$work/out" \
    docker compose "$@"
}
run() { echo "== $*"; compose run --rm "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
refused() {
  local reason=$1; shift
  ! run "$@" >"$work/refusal" 2>&1 || fail "went through: $*"
  grep -q "$reason" "$work/refusal" || fail "refused for another reason than '$reason': $(cat "$work/refusal")"
}

compose build

[[ "$(run bundles)" == *"gvs ("* ]] || fail "the image holds no bundle gvs"
run phantom
cp -r "$work/out/phantom" "$work/data/"
run preprocess data/phantom --slices 10
run train gvs --preset laptop --epochs 1 --set filters=4 --set segmentor_filters=4 --set 'size=[64,64]'
run synthesize data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz
run synthesize data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz -b runs/run -o out/by_run
run enhance data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz -b runs/run
run evaluate --judge-iterations 2
run verify "out/pseudohealthy/sub-001/anat/sub-001_desc-pseudohealthy_FLAIR.nii.gz"
run doctor
if [ -d ../shared/data/dicom_t1 ]; then
  cp -r ../shared/data/dicom_t1 "$work/data/"
  run synthesize data/dicom_t1 -b runs/run --force
  series=$(find "$work/out/pseudohealthy" -maxdepth 1 -type d -name 'dicom-*_desc-pseudohealthy')
  [ "$(find "$series" -name '*.dcm' | wc -l)" = "$(find "$work/data/dicom_t1" -type f | wc -l)" ] || fail "slices are missing"
  run verify "out/pseudohealthy/${series##*/}" --source data/dicom_t1
fi

for made in runs/run/models/model.pt runs/run/curves.png out/evaluation/report.md; do
  [ -s "$work/$made" ] || fail "$made is missing"
done
for made in pseudohealthy by_run enhanced; do
  [ -n "$(find "$work/out/$made" -name '*.nii.gz')" ] || fail "out/$made holds no scan"
done
[ -z "$(find "$work"/{cohorts,runs,out} ! \( -uid "$uid" -gid "$gid" \))" ] || fail "something made belongs to another user"

refused 'Read-only' --entrypoint touch synthesize /data/x
refused 'Read-only' --entrypoint touch synthesize /runs/x
refused 'Read-only' --entrypoint touch train /cohorts/x
refused 'unreachable' --entrypoint python train -c 'import socket; socket.create_connection(("1.1.1.1", 53), 3)'
mv "$work/data" "$work/elsewhere"
refused "$work/data" preprocess data/phantom
[ ! -e "$work/data" ] || fail "a missing folder was made"

echo "== all well; image of $(docker image inspect --format '{{.Size}}' phs-pipeline | numfmt --to=si)B"
