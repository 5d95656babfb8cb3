"""Networks to hand over: part of a supernet, or one that was trained alone.

`inherited` and `retrained` check first, and return what then does the work;
`hand_over` writes it.
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import data, supernets
from jaxnas.config import Config, digest, run_files
from jaxnas.experiment import (
  artifact,
  averages,
  build,
  contents,
  readme,
  stand_alone,
  trained,
)
from jaxnas.experiment.outcomes import RESULT
from jaxnas.runtime import environment, errors, files, places, words
from jaxnas.supernets import recalibration


class Source(NamedTuple):
  """A network to hand over, and what it must be equal to."""

  alone: supernets.StandAlone
  variables: dict[str, Any]
  expected: Callable[[Any], Any]
  """Normalised images -> logits, as the run itself computes them."""
  held_out: data.Split
  split: str
  """The split that the images are from."""
  metadata: dict[str, Any]
  """The origin of the weights, ready for JSON."""


def inherited(
  run: Path, config: Config, arch: str, batches: int | None
) -> Callable[[], Source]:
  """Prepares the part of a supernet that an architecture uses.

  Its normalisation is recalibrated.

  Args:
    run: of jaxnas.train.
    config: of the run.
    arch: in the space's notation.
    batches: training batches that statistics are measured on; None: as many
      as a ranking takes.

  Raises ValueError or FileNotFoundError, one line.
  """
  ranking = dataclasses.replace(
    config.ranking, bn='recalibrate', calibration_batches=batches
  )
  experiment, state = trained.load(run, config, ranking)
  net, space = experiment.net, experiment.space
  images = experiment.held_out.calibration
  params = averages.states(experiment, state, run)[-1].params
  arch_E = space.parse(arch)
  (routed_F,) = np.asarray(
    experiment.sampler.route(state.sampler, arch_E[None])
  )
  indices_NxB = np.arange(len(images)).reshape(-1, config.data.batch_size)
  metadata: dict[str, Any] = {
    'from': 'inherited',
    'run': str(run.absolute()),
    'step': int(state.step),
    'calibration_batches': len(indices_NxB),
    'calibration_images': len(images),
  }
  if len(routed_F) > len(arch_E):
    metadata['member'] = int(routed_F[-1])

  @errors.memory_of('--batches')
  def make() -> Source:
    frozen = jax.jit(functools.partial(recalibration.statistics, net))(
      params,
      routed_F,
      jnp.stack([images.batch(indices_B)[0] for indices_B in indices_NxB]),
    )
    logits = jax.jit(functools.partial(recalibration.logits, net))
    alone = artifact.network(
      space, tuple(arch_E.tolist()), net.dtype, config.supernet.activation
    )
    member, of_member, _ = supernets.of_arch(net, params, routed_F)
    return Source(
      alone,
      artifact.inherit(alone, member, of_member, frozen),
      lambda x_BxHxWxC: logits(params, frozen, x_BxHxWxC, routed_F),
      experiment.held_out.ranking,
      config.ranking.split,
      metadata,
    )

  return make


def retrained(
  run: Path, config: Config, arch: str, seed: int
) -> Callable[[], Source]:
  """Prepares a network that was trained alone, with its running statistics.

  Its weights are the moving average, where the run kept one.

  Args:
    run: of jaxnas.retrain, of one architecture.
    config: of the run.
    arch: in the space's notation.
    seed: which of the run's.

  Raises ValueError or FileNotFoundError, one line.
  """
  if not 0 <= seed < config.retrain.seeds:
    raise ValueError(
      f'--seed is {seed}; {run} has 0 to {config.retrain.seeds - 1}.'
    )
  if not (run / RESULT).exists():
    raise FileNotFoundError(
      f'{run} is not done (no {RESULT}): finish it with python -m '
      f'jaxnas.retrain --workdir {run} --resume.'
    )
  result = files.read_result(
    run / RESULT, run_files.RESULT, {'config': digest(config)}
  )
  if len(result['seeds']) <= seed:
    raise errors.Damaged(
      f'{run / RESULT} has accuracies of '
      f'{words.counted(len(result["seeds"]), "seed")}, none of seed '
      f'{seed}: retrain it, or choose another --seed.'
    )
  built = build.stand_alone(config, arch)
  contents.check(run, built.images)
  state = stand_alone.last_state(built, run, seed)
  logits = jax.jit(functools.partial(artifact.logits, built.net))
  source = Source(
    built.net,
    state.variables,
    lambda x_BxHxWxC: logits(state.variables, x_BxHxWxC),
    built.test,
    'test',
    {
      'from': 'retrained',
      'run': str(run.absolute()),
      'step': int(state.step),
      'seed': seed,
      'moving_average': bool(state.average),
      'test_accuracy': result['seeds'][seed],
    },
  )
  return lambda: source


def hand_over(
  source: Source,
  config: Config,
  arch: str,
  workdir: Path,
  forms: Sequence[Callable[..., tuple[readme.Form, Any]]] = (),
) -> dict[str, Any]:
  """Writes a network whole or not at all; returns what network.json holds.

  What stands at `workdir` is replaced.

  Args:
    source: the network.
    config: the experiment.
    arch: in the space's notation.
    workdir: the folder.
    forms: (folder, network, variables, normalise) -> what was written besides,
      and what says logits of it, as those of `torch_export`.

  Raises ArithmeticError where what was written is another network.
  """
  alone, normalise = source.alone, source.held_out.normalise
  space = alone.space
  arch_E = space.parse(arch)
  costs = space.costs(arch_E[None])
  metadata = {
    'space': space.name,
    'arch': arch,
    'ops': [names[op] for names, op in zip(space.ops, arch_E, strict=True)],
    'image_shape': list(space.image_shape),
    'classes': space.classes,
    'pixels': np.dtype(normalise.pixels).name,
    'mean': normalise.mean_C.tolist(),
    'std': normalise.std_C.tolist(),
    'dtype': str(alone.dtype),
    'activation': config.supernet.activation,
    'data': config.data.name,
    'params': int(costs.params_A[0]),
    'macs': int(costs.macs_A[0]),
    'weights': source.metadata,
    'platforms': list(artifact.PLATFORMS),
    **environment.environment(),
  }
  places.make(workdir.parent)
  with tempfile.TemporaryDirectory(
    dir=workdir.parent, prefix=f'{workdir.name}.part-'
  ) as folder:
    part = Path(folder) / 'network'
    artifact.write(part, alone, source.variables, normalise, metadata)
    written = [form(part, alone, source.variables, normalise) for form in forms]
    metadata |= artifact.check(
      part, source.expected, source.held_out, [say for _, say in written]
    )
    metadata['accuracy_split'] = source.split
    files.write_text(
      part / artifact.README,
      readme.text(metadata, [form for form, _ in written]),
    )
    files.write_text(
      part / artifact.REQUIREMENTS, readme.requirements(metadata['versions'])
    )
    files.write_json(part / artifact.METADATA, metadata)
    places.remove(workdir)
    os.rename(part, workdir)
  return metadata
