#!/usr/bin/env bash
# Train on a Cloud TPU slice, all of its hosts, however often it is preempted.
#
#   ZONE=us-west4-a TYPE=v5litepod-16 launch/tpu_vm.sh NAME \
#     --config mobilenet.py --data.dir /mnt/DISK/imagenet --workdir /mnt/DISK/run
#
# Asks for a spot slice and for another one when that is taken away, installs
# this checkout on it, and goes on from the newest checkpoint. What follows the
# name is for jaxnas.train; the workdir must be one that every host sees, such
# as a bucket that STARTUP, a script, mounts. Needs gcloud, logged in.
# Not run: it takes a Google Cloud project.
set -euo pipefail

name=${1:?usage: ZONE=... TYPE=... launch/tpu_vm.sh NAME FLAGS...}
shift
zone=(--zone "${ZONE:?such as us-west4-a}")
tpu=(gcloud compute tpus)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

state() { # of the slice; nothing where there is none
  "${tpu[@]}" tpu-vm describe "$name" "${zone[@]}" --format='value(state)' \
    2>/dev/null || true
}

create() {
  "${tpu[@]}" queued-resources delete "$name" "${zone[@]}" --force --quiet \
    2>/dev/null || true
  "${tpu[@]}" queued-resources create "$name" "${zone[@]}" --spot \
    --node-id "$name" --accelerator-type "${TYPE:?such as v5litepod-16}" \
    --runtime-version "${RUNTIME:-v2-alpha-tpuv5-lite}" \
    ${STARTUP:+--metadata-from-file="startup-script=$STARTUP"}
  until [ "$(state)" = READY ]; do sleep 30; done
  git archive --prefix=jaxnas/ -o "$folder/jaxnas.tar" HEAD
  "${tpu[@]}" tpu-vm scp "$folder/jaxnas.tar" "$name:" "${zone[@]}" --worker=all
  on_all "tar xf jaxnas.tar && pip install -q -e './jaxnas[tpu]'"
}

on_all() {
  "${tpu[@]}" tpu-vm ssh "$name" "${zone[@]}" --worker=all --command "$1"
}

printf -v flags ' %q' "$@"
while true; do
  [ "$(state)" = READY ] || create
  if on_all "exec python3 -m jaxnas.train$flags --resume"; then
    exit 0
  fi
  # A slice that is still there means that the run failed, not the slice.
  sleep 60
  if [ "$(state)" = READY ]; then
    echo "the run failed on a slice that is up: see above" >&2
    exit 1
  fi
done
