#!/usr/bin/env bash
# The whole chain in containers, each command with the options that docker-compose.yml gives it. Needs a Docker engine.
#   bash tests/containers.sh
#   DOCKER_BUILD="--network host" bash tests/containers.sh    where the engine has no network of its own for builds
# As root it runs the containers as user 12345, whom no machine knows; otherwise as whoever calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'docker rm -f "${work##*/}" >/dev/null 2>&1; rm -rf "$work"' EXIT
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
run() { echo "== $*"; compose run --rm "$@" </dev/null; }
fail() { echo "FAILED: $*" >&2; exit 1; }
refused() {
  local reason=$1; shift
  ! run "$@" >"$work/refusal" 2>&1 || fail "went through: $*"
  grep -qF "$reason" "$work/refusal" || fail "refused for another reason than '$reason': $(cat "$work/refusal")"
}

# A training without a terminal, stopped when it has said something.
stopped_after() {
  local line=$1; shift
  echo "== $*, stopped"
  compose run --rm --name "${work##*/}" "$@" </dev/null >"$work/log" 2>&1 &
  until grep -q "$line" "$work/log"; do
    kill -0 $! 2>/dev/null || fail "ended before '$line': $(cat "$work/log")"
    sleep 0.5
  done
  docker stop "${work##*/}" >/dev/null
  wait $! && fail "a stopped training ended as if it were done" || [ $? = 130 ] || fail "ended with another code than 130"
  grep -q "runs/run: stopped; the same command goes on" "$work/log" || fail "does not say how to go on: $(cat "$work/log")"
}

! command -v hadolint >/dev/null || hadolint Dockerfile Dockerfile.sbom
compose build

# One image, whether GPUs are asked for or not.
gpu=$(env COMPOSE_FILE="${COMPOSE_FILE:-docker-compose.yml}:docker-compose.gpu.yml" docker compose --profile command config train)
[[ "$gpu" == *"image: phs-pipeline"*"capabilities:"* || "$gpu" == *"capabilities:"*"image: phs-pipeline"* ]] || fail "no GPU for train"

[[ "$(run bundles)" == *"gvs ("* ]] || fail "the image holds no bundle gvs"
run phantom
cp -r "$work/out/phantom" "$work/data/"
run preprocess data/phantom --slices 10

small=(--preset laptop --set filters=4 --set segmentor_filters=4 --set spacing_mm=4 --set 'size=[64,64]')
stopped_after '^epoch 2/900: .* left$' train gvs "${small[@]}" --epochs 900
stopped_after '^epoch [3-9][0-9]*/900: .* left$' train gvs "${small[@]}" --epochs 900
grep -q "runs/run: goes on with this training, which was stopped" "$work/log" || fail "does not say that it goes on"
! grep -q "^epoch 1/" "$work/log" || fail "starts over"
refused 'holds another training that was stopped' train gvs "${small[@]}" --epochs 2
rm -r "$work/runs/run"

run train gvs "${small[@]}" --epochs 1 | tee "$work/log"
grep -q "next: docker compose run --rm evaluate -b runs/run --data cohorts/cohort -o out/REPORT" "$work/log" || fail "no hint"
run synthesize data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz
run synthesize data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz -b runs/run -o out/by_run
run enhance data/phantom/sub-001/anat/sub-001_FLAIR.nii.gz -b runs/run
run evaluate --judge-iterations 2
refused 'holds a finished training of gvs; for another one, `docker compose run --rm train gvs -o runs/RUN`' train gvs
run verify "out/pseudohealthy/sub-001/anat/sub-001_desc-pseudohealthy_FLAIR.nii.gz"
run doctor | tee "$work/log"
! grep -q "^warning  current folder" "$work/log" || fail "warns of a folder that no result goes to"
grep -q "^ok       mounted folder: /out can be written" "$work/log" || fail "does not say that results can be written"
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

refused "the container sees data/ (your $work/data), runs/ (your $work/runs), out/ (your $work/out) alone" \
  synthesize /home/me/scan.nii.gz
refused "data/ is your $work/data" synthesize data/missing.nii.gz
refused "data/ is mounted read-only" synthesize data/phantom -o data/results
if [ "$(id -u)" = 0 ]; then
  mv "$work/out" "$work/ours" && mkdir -m 755 "$work/out"    # root's
  refused "out belongs to user 0, and the container runs as user $uid: set UID and GID in .env" phantom
  rmdir "$work/out" && mv "$work/ours" "$work/out"
fi

refused 'Read-only' --entrypoint touch synthesize /data/x
refused 'Read-only' --entrypoint touch synthesize /runs/x
refused 'Read-only' --entrypoint touch train /cohorts/x
refused 'unreachable' --entrypoint python train -c 'import socket; socket.create_connection(("1.1.1.1", 53), 3)'
mv "$work/data" "$work/elsewhere"
refused "$work/data" preprocess data/phantom
[ ! -e "$work/data" ] || fail "a missing folder was made"

make sbom
python3 -c 'import json; parts = json.load(open("phs-pipeline.cdx.json"))["components"]
names = {part["name"] for part in parts}; assert {"phs-pipeline", "torch", "libc6"} <= names, names; print(len(parts), "packages")'

echo "== all well; image of $(docker image inspect --format '{{.Size}}' phs-pipeline | numfmt --to=si)B"
