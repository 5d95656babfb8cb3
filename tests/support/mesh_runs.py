"""Some steps of training on every mesh that there are devices for.

`python -m support.mesh_runs FILE CASE...` saves what they end with.
"""

import contextlib
import dataclasses
import itertools
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from jaxnas import config, spaces, supernets
from jaxnas.bench import end_to_end
from jaxnas.experiment import build
from jaxnas.experiment.sampling import sampler
from jaxnas.runtime import rng
from jaxnas.training import mesh, step
from support import small_run

STEPS = 3
COLLECTIVE = re.compile(
  r' (all-reduce|all-gather|all-to-all|collective-\w+|reduce-scatter)'
  r'(?:-start)?\('
)

GIVEN = config.Config(
  space='small',
  data=config.Data(batch_size=32, crop_padding=1, flip=True),
  optimizer=config.Optimizer(peak_lr=0.05),
)


def given(groups=1, affine=False, bn_running=False, **sections):
  """The config of a case."""
  shared = config.Supernet(
    affine=affine, bn_running=bn_running, bn_groups=groups
  )
  return dataclasses.replace(GIVEN, supernet=shared, **sections)


# Config and meshes (data, paths), which train alike.
GROUPS = given(groups=4, sampler=config.Sampler(paths=2))
CASES = {
  'groups': (GROUPS, [(1, 1), (4, 2)]),
  'fewer devices': (GROUPS, [(1, 1), (2, 1), (1, 2), (2, 2)]),
  'synchronised': (given(groups=2), [(1, 1), (4, 1)]),
  'mixture': (
    given(
      groups=2,
      affine=True,
      bn_running=True,
      sampler=config.Sampler(name='mixture', paths=4, reward_every=2),
    ),
    [(1, 1), (2, 2)],
  ),
  'importance': (
    # Of seed 0 an activation is 0 but for rounding: its ReLU differs.
    given(groups=2, seed=1, sampler=config.Sampler(name='importance', paths=2)),
    [(1, 1), (2, 1), (2, 2)],
  ),
  'distilled': (
    given(
      groups=2,
      bn_running=True,
      sampler=config.Sampler(paths=2),
      # A larger epsilon, for what has hardly a gradient.
      optimizer=config.Optimizer(
        name='adamw', peak_lr=0.01, epsilon=0.01, distill=0.5
      ),
    ),
    [(1, 1), (2, 1), (2, 2)],
  ),
  # Spaces of 32x32 images, on noise: one step, beyond which rounding grows.
  **{
    on: (
      given(
        groups=4,
        space=on,
        data=config.Data(name='arrays', batch_size=16),
        sampler=config.Sampler(paths=2),
      ),
      [(1, 1), (2, 2)],
    )
    for on in ('pooling', 'nas_bench_macro', 'nas_bench_201')
  },
}


def name_of(case, data, paths):
  return f'{case} {data}x{paths}'


def trained(case, data, paths):
  """Leaves of the last state, metrics, and collectives of a step."""
  wanted = dataclasses.replace(CASES[case][0], mesh=config.Mesh(data, paths))
  if wanted.data.name == 'arrays':
    file = Path(tempfile.mkdtemp()) / 'noise.npz'
    end_to_end.write_noise(file, spaces.get(wanted.space), 100, 0)
    images = dataclasses.replace(wanted.data, dir=str(file))
    wanted = dataclasses.replace(wanted, data=images)
  experiment = build.experiment(wanted)
  state, rows, step_fn = experiment.init_state(), [], experiment.step_fn
  feed = experiment.training.feed(0, 0)
  with contextlib.closing(feed):
    compiled = None
    for inputs in itertools.islice(feed, 1 if case in spaces.SPACES else STEPS):
      if compiled is None:
        compiled = step_fn.lower(state, inputs).compile()
      state, row = compiled(state, inputs, step_fn.numbers)
      rows.append([float(getattr(row, name)) for name in step.LOGGED])
  assert compiled is not None
  text = compiled.as_text()
  counts = Counter(COLLECTIVE.findall(text))
  sides = ','.join(map(str, experiment.space.image_shape))
  return {
    # Arrays of all images of a batch, in a program of one device.
    'whole': np.array(
      re.findall(rf'\b\w+\[{wanted.data.batch_size},{sides}\]', text)
    ),
    'metrics': np.array(rows),
    'collectives': np.array([f'{k} {v}' for k, v in counts.items()]),
    **{
      jax.tree_util.keystr(path): np.asarray(leaf)
      for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    },
  }


def drawn(on, devices):
  """Architectures of some steps, where the state lies on so many devices."""
  space, paths = spaces.get(on), 4
  given = config.Config(space=on, sampler=config.Sampler(paths=paths))
  draws = sampler(given, space, supernets.build(space), 1)
  layout = mesh.layout(1, devices, 1)
  place, within = (
    (layout.everywhere, layout.within) if layout else (lambda x: x,) * 2
  )

  @jax.jit
  def sample(state, step):
    return within(draws.sample(state, rng.key(0, 'archs', step)))

  state = place(draws.init())
  return np.stack([sample(state, step) for step in range(STEPS)])


if __name__ == '__main__':
  found = {'devices': np.array(jax.device_count())}
  for on in spaces.SPACES if 'draws' in sys.argv else ():
    for devices in (1, 2, 4, 8):
      found[f'{on} {devices}'] = drawn(on, devices)
  with small_run.registered():
    for case in {*sys.argv} & {*CASES}:
      for data, paths in CASES[case][1]:
        for key, value in trained(case, data, paths).items():
          found[f'{name_of(case, data, paths)} {key}'] = value
  np.savez(sys.argv[1], **found)
