#!/usr/bin/env bash
# Train on a GKE cluster that xpk made; xpk writes the JobSet and its pods.
#
#   CLUSTER=NAME TYPE=v5litepod-16 IMAGE=IMAGE launch/xpk.sh NAME \
#     --config mobilenet.py --data.dir /data/imagenet --workdir /data/run
#
# Flags after the name are those of jaxnas.train. IMAGE has jaxnas[tpu]
# installed; the workdir is on storage that the cluster mounts in every pod. A
# preempted pod gets SIGTERM and two minutes to save; the JobSet then starts all
# pods again, and they go on from the newest checkpoint.
# Not run, because it takes a cluster.
set -euo pipefail

name=${1:?usage: CLUSTER=... TYPE=... IMAGE=... launch/xpk.sh NAME FLAGS...}
shift
printf -v flags ' %q' "$@"
# With exec the signal reaches Python, not a shell that drops it.
exec xpk workload create \
  --workload "$name" \
  --cluster "${CLUSTER:?name of the cluster}" \
  --tpu-type "${TYPE:?such as v5litepod-16}" \
  --num-slices "${SLICES:-1}" \
  --docker-image "${IMAGE:?an image with jaxnas[tpu]}" \
  --max-restarts "${RESTARTS:-100}" \
  --termination-grace-period-seconds 120 \
  --command "exec python -m jaxnas.train$flags --resume"
