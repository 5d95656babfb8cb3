#!/usr/bin/env bash
# Train on a Cloud TPU slice, all of its hosts, however often it is preempted.
#
#   ZONE=us-west4-a TYPE=v5litepod-16 launch/tpu_vm.sh NAME \
#     --config mobilenet.py --data.dir /mnt/DISK/imagenet --workdir /mnt/DISK/run
#
# The script asks for a spot slice, and for another one when that is preempted,
# installs this checkout on it, and goes on from the newest checkpoint. Flags
# after the name are those of jaxnas.train. Every host must see the workdir: it
# may be in a bucket that the script named by STARTUP mounts. You must be logged
# in to gcloud. Not run, because it takes a Google Cloud project.
set -euo pipefail

name=${1:?usage: ZONE=... TYPE=... launch/tpu_vm.sh NAME FLAGS...}
shift
zone=(--zone "${ZONE:?such as us-west4-a}")
tpu=(gcloud compute tpus)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

state() { # Prints the state of the slice; nothing where there is none.
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
  # If the slice is still there, the run failed, not the slice.
  sleep 60
  if [ "$(state)" = READY ]; then
    echo "the run failed on a slice that is up: see above" >&2
    exit 1
  fi
done
