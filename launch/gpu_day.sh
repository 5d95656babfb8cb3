#!/usr/bin/env bash
# Everything that a first hour on a GPU should measure, most valuable first.
#
#   OUT=out launch/gpu_day.sh        in the repository's root
#   DRY=1 OUT=out launch/gpu_day.sh  prints the commands and runs none
#   LIMIT=590 ONLY='macro|nb201' OUT=out launch/gpu_day.sh
#                                    where a command may take ten minutes only
#
# The machine may be bare and reach no registry. What is missing is installed
# from wheels in .whl/, where there are some: flax, optax, orbax-checkpoint,
# grain, tyro, jaxtyping, array-record, jax_cuda12_plugin and jax_cuda12_pjrt of
# the version of jax, and torch for the bench. DATA is a folder with
# nas-bench-macro_cifar10.json and arrays.npz (x_train y_train x_test y_test);
# without the images there is noise, which gives images a second and no accuracy.
#
# NAME.log in OUT holds the output of each step, steps.txt how each ended.
# Nothing here is fatal: a step that fails or takes too long leaves the next.
set -uo pipefail
if [ -z "${OUT:-}" ]; then
  echo "usage: OUT=FOLDER [DRY=1] [ONLY=REGEX] [LIMIT=SECONDS] [DATA=FOLDER] $0" >&2
  exit 2
fi
DATA=${DATA:-data} LIMIT=${LIMIT:-3500} ONLY=${ONLY:-.} DRY=${DRY:-}
PYTHON=${PYTHON:-python3}
began=$SECONDS
scratch=$(mktemp -d)
watch=
trap '[ -z "$watch" ] || kill "$watch" 2>/dev/null; rm -rf "$scratch"' EXIT
mkdir -p "$OUT"
: >"$OUT/steps.txt"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD:$scratch/site" TF_CPP_MIN_LOG_LEVEL=1
# Choices of kernels are kept with the programs.
export JAX_COMPILATION_CACHE_DIR="$scratch/compiled"

step() { # NAME SECONDS COMMAND...
  local name=$1 most=$2 left=$((LIMIT - SECONDS + began)) code=0 start=$SECONDS
  shift 2
  [[ $name =~ $ONLY|install|versions ]] || return 0
  if [ -n "$DRY" ]; then
    printf '%s (%s s): %s\n' "$name" "$most" "$*"
    return 0
  fi
  if [ "$left" -lt 30 ]; then
    echo "$name: skipped, $left s left" | tee -a "$OUT/steps.txt"
    return 0
  fi
  [ "$left" -ge "$most" ] || most=$left
  timeout -k 10 "$most" "$@" >"$OUT/$name.log" 2>&1 || code=$?
  echo "$name: exit $code, $((SECONDS - start)) of $most s" |
    tee -a "$OUT/steps.txt"
}

# The pace of a step, its first call and its memory; with a folder also a trace,
# of which it prints the kernels that take longest.
cat >"$scratch/probe.py" <<'PYTHON'
import collections, glob, json, sys, time

import jax
import numpy as np

from jaxnas import spaces
from jaxnas.bench import inputs, step
from jaxnas.runtime import graphs, startup

startup.prepare_process()
name, batch, *trace = sys.argv[1:]
space, batch = spaces.get(name), int(batch)
archs = inputs.archs(space, 64, 0)
state, run, images = step.training_step(
  space, archs, batch_size=batch, seed=0, dtype='bfloat16'
)


def time_of(count):
  global state
  start = time.perf_counter()
  for _ in range(count):
    state, _ = run(state, images)
  jax.block_until_ready(state)
  return (time.perf_counter() - start) / count


first_s = time_of(1)
time_of(64)
ms = [1e3 * time_of(192) for _ in range(5)]
flop = 6 * batch * float(space.costs(archs).macs_A.mean())
best = float(np.median(ms))
print(json.dumps({
  'space': name, 'batch': batch, 'first_s': first_s, 'ms': ms,
  'images_per_s': 1e3 * batch / best, 'tflops_per_s': flop / best / 1e9,
  'graphs': graphs.reason() or 'on', 'memory': jax.devices()[0].memory_stats(),
}))
if trace:
  with jax.profiler.trace(trace[0]):
    time_of(20)
  file = glob.glob(trace[0] + '/**/*.xplane.pb', recursive=True)[0]
  us = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(file).planes:
    for line in plane.lines if 'GPU' in plane.name else ():
      for event in line.events if 'Stream' in line.name else ():
        us[event.name] += event.duration_ns / 20e3
  print('us a step', sum(us.values()))
  for kernel, time_us in us.most_common(40):
    print(f'{time_us:9.1f} {kernel[:150]}')
PYTHON

wheels=(.whl/*.whl)
[ ! -e "${wheels[0]}" ] || step install 90 "$PYTHON" -m pip install --quiet \
  --no-index --no-deps --no-compile --target "$scratch/site" "${wheels[@]}"
step machine 20 nvidia-smi -q -d CLOCK,POWER,TEMPERATURE,ECC,PERFORMANCE,MEMORY
step versions 60 "$PYTHON" -c \
  'import jax; print(jax.devices(), jax.devices()[0].client.platform_version)'
if [ -z "$DRY" ]; then
  if ! grep -qi cuda "$OUT/versions.log"; then
    echo 'JAX sees no GPU:'
    cat "$OUT/versions.log"
    exit 1
  fi
  nvidia-smi -lms 500 --format=csv --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu \
    >"$OUT/clocks.csv" 2>&1 &
  watch=$!
fi

probe() { step "$1" "$2" "$PYTHON" "$scratch/probe.py" "${@:3}"; }
waiting() { # the same, with branches that wait for the host
  step "$1" "$2" env JAXNAS_GRAPHS=0 "$PYTHON" "$scratch/probe.py" "${@:3}"
}
waiting macro_waiting 150 nas_bench_macro 512 "$scratch/trace_waiting"
probe macro_graphs 150 nas_bench_macro 512 "$scratch/trace_graphs"
waiting nb201_waiting 90 nas_bench_201 64
kernels() { # the same, with kernels of ours between pointwise convolutions
  step "$1" "$2" env JAXNAS_KERNELS=1 "$PYTHON" "$scratch/probe.py" "${@:3}"
}
kernels macro_kernels 150 nas_bench_macro 512 "$scratch/trace_kernels"
probe nb201_graphs 90 nas_bench_201 64
waiting pooling_waiting 90 pooling 512
probe pooling_graphs 90 pooling 512
probe macro_64 90 nas_bench_macro 64

if [ ! -f "$DATA/arrays.npz" ]; then
  DATA=$scratch
  step noise_train 60 "$PYTHON" -c "
import numpy as np
r = np.random.default_rng(0)
x = lambda n: r.integers(0, 256, (n, 32, 32, 3), np.uint8)
y = lambda n: r.integers(0, 10, n)
np.savez('$DATA/arrays.npz', x_train=x(50000), y_train=y(50000),
         x_test=x(10000), y_test=y(10000))"
fi
table=()
[ ! -f "$DATA/nas-bench-macro_cifar10.json" ] ||
  table=(--table "$DATA/nas-bench-macro_cifar10.json")
# The paper's 70 epochs, density and ranking of all 6,561, if the pace allows it.
step train 900 "$PYTHON" -m jaxnas.train --config macro.py --data.name arrays \
  --data.dir "$DATA/arrays.npz" "${table[@]}" --workdir "$scratch/macro"
for name in metrics.jsonl correlation.json ledger.json environment.json; do
  [ ! -f "$scratch/macro/$name" ] || cp "$scratch/macro/$name" "$OUT/"
done
step bench_step 400 "$PYTHON" -m jaxnas.bench step --only bfloat16 \
  --archs 64 --out "$OUT/step.json"
step bench_density 100 "$PYTHON" -m jaxnas.bench density --out "$OUT/density.json"
for n in 1 2; do
  step "bits$n" 60 "$PYTHON" -m jaxnas.train --config quickstart.py \
    --deterministic --workdir "$scratch/bits$n"
done
step bits_same 20 "$PYTHON" -c "
import json
rows = [[{k: v for k, v in json.loads(line).items() if '_s' not in k}
         for line in open(f'$scratch/bits{n}/metrics.jsonl')] for n in (1, 2)]
print(rows[0] == rows[1])"
step tests 300 env XLA_PYTHON_CLIENT_PREALLOCATE=false "$PYTHON" -m pytest -n 0 \
  --on_gpu -m gpu
[ -n "$DRY" ] || cat "$OUT/steps.txt"
