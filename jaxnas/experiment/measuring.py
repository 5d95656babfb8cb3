"""Densities of a trained supernet, by one measure after the other."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxnas import config as sections
from jaxnas import density, samplers, spaces
from jaxnas.config import Config
from jaxnas.config.validation import at_most
from jaxnas.experiment import densities, updates
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import errors, files, seals
from jaxnas.runtime.rng import generator
from jaxnas.training.step import TrainState

# Distances between more architectures than these make no picture.
DRAWN = 2000


def choose(
  space: spaces.Space, count: int | None, seed: int
) -> Int[np.ndarray, 'A E']:
  """Returns all architectures, or `count` of them, drawn by the seed.

  Raises ValueError where there are not so many, or too many for all.
  """
  if count is not None and not 2 <= count <= space.size:
    raise ValueError(
      f'--archs is {count}; {space.name} has {space.size:.6g} architectures, '
      'of which at least 2 are compared.'
    )
  if count is None:
    if space.enumerable:
      return space.enumerate()
    raise ValueError(
      f'{space.name} has {space.size:.2g} architectures: set --archs to how '
      'many to compare.'
    )
  return space.subset(generator(seed, 'measure'), count)


def seen_with(run: Config, given: sections.Density) -> Config:
  """Returns a run's config for its net, its state and these held-out images.

  The density of the run itself, and its logging, are not checked again.
  """
  return dataclasses.replace(
    run.undebiased(),
    logging=sections.Logging(),
    density=dataclasses.replace(
      run.density,
      file=None,
      log_epochs=None,
      batches=given.batches,
      batch_size=given.batch_size,
    ),
  )


def check(
  experiment: Experiment,
  archs_AxE: Int[np.ndarray, 'A E'],
  given: Mapping[str, sections.Density],
) -> None:
  """Raises ValueError for densities that cannot be had, before any work.

  Args:
    experiment: whose net and held-out images are looked at.
    archs_AxE: the architectures to compare.
    given: what to measure, by name.
  """
  of_run = experiment.config.density
  at_most(
    'density.batches * density.batch_size',
    of_run.batches * of_run.batch_size,
    len(experiment.held_out.density),
    'validation images',
  )
  sampler = experiment.sampler
  routed_AxF = sampler.route(sampler.init(), archs_AxE)
  for one in given.values():
    densities.check_archs(one, experiment.net, routed_AxF)


@errors.memory_of('density.memory_gb', 'density.batch_size')
def measure(
  experiment: Experiment,
  state: TrainState,
  given: Mapping[str, sections.Density],
  archs_AxE: Int[np.ndarray, 'A E'],
  workdir: Path,
  *,
  draw: Callable[[str, Float[np.ndarray, 'A A']], None],
  poll: Callable[[], None] = lambda: None,
) -> tuple[dict[str, density.Density], dict[str, list[updates.Updates]]]:
  """Returns densities and effective updates by measure.

  Each is saved as soon as it is known. Updates are those under uniform
  sampling and under the rules of debiasing; they are left out where the
  distances are not at hand that they come from.

  Args:
    experiment: from `build.experiment`; its held-out images are looked at.
    state: a state of its training.
    given: what to measure, by name; each with the experiment's batches.
    archs_AxE: the architectures to compare.
    workdir: a folder for density-MEASURE-ESTIMATOR.npz and
      updates-MEASURE.npz.
    draw: receives a measure's name and its distances, densest first, where
      they are few enough to be drawn.
    poll: called before each block; may raise.
  """
  snapshot = densities.snapshot(experiment, state, archs_AxE)
  out, of_rules = {}, {}
  uniform_A = np.full(len(archs_AxE), -np.log(len(archs_AxE)))
  for name, one in given.items():
    drawn = features_to_draw(name, one, snapshot, poll)
    features, similarity = drawn, None
    if features is None:
      features = densities.vectors(one, snapshot, poll)
    out[name] = densities.estimate(one, snapshot, poll, features=features)
    facts = densities.facts(experiment, state, one)
    file = workdir / f'density-{name}-{one.estimator}.npz'
    density.save(out[name], file, facts)
    if drawn is not None:
      compared = densities.measure(
        one, snapshot.net, snapshot.params, snapshot.archs_AxE
      )
      distance_AxA = density.matrix(compared.distance, drawn, poll=poll)
      similarity = density.of_matrix(1 - distance_AxA.astype(np.float64))
      order_A = np.argsort(-out[name].alpha_A, kind='stable')
      draw(name, distance_AxA[np.ix_(order_A, order_A)])
    elif features is not None:
      similarity = density.of_vectors(features, poll)
    if similarity is not None:
      evidence = samplers.Evidence(archs_AxE, out[name].alpha_A, similarity)
      of_rules[name] = updates.compare(uniform_A, evidence)
      arrays = updates.arrays(archs_AxE, of_rules[name])
      files.write_npz(workdir / f'updates-{name}.npz', arrays, facts)
  return out, of_rules


def features_to_draw(
  name: str,
  given: sections.Density,
  snapshot: density.Snapshot,
  poll: Callable[[], None],
) -> dict[str, np.ndarray] | None:
  """Returns features of all architectures; None, and why, where too large."""
  net, params, archs_AxE, images, _ = snapshot
  if len(archs_AxE) > DRAWN:
    print(
      f'distances by {name} are not drawn: {len(archs_AxE)} architectures are '
      'many'
    )
    return None
  compared = densities.measure(given, net, params, archs_AxE)
  memory_gb = given.memory_gb
  size = density.feature_bytes(
    compared, net, params, len(archs_AxE), len(images), len(images[0])
  )
  if size > memory_gb * 1e9:
    print(
      f'distances by {name} are not drawn: features take {size / 1e9:.3g} GB, '
      f'more than --density.memory_gb {memory_gb:g}; raise that, or lower '
      '--archs'
    )
    return None
  return density.gather(snapshot, compared, memory_gb=memory_gb, poll=poll)


def comparable(
  workdir: Path,
  run: Path,
  archs_AxE: Int[np.ndarray, 'A E'],
  like: Mapping[str, Any],
) -> dict[str, Float[np.ndarray, ' A']]:
  """Reads densities of just these archs: the folder's, and the run's own.

  One of another run, of another step or of other images is left out, and said
  so.

  Args:
    workdir: of jaxnas.measure, with density-*.npz.
    run: of jaxnas.train.
    archs_AxE: the architectures.
    like: `densities.facts` of one that is measured now.

  Returns densities by name.
  """
  given = like['density']
  seen = {name: like[name] for name in ('config', 'step', 'state')}
  out = {}
  for file in sorted(workdir.glob('density-*.npz')):
    try:
      (others_AxE, alpha_A, _), facts = density.read_file(file, seen)
      fields = facts.get('density', {})
      seals.check_facts(
        fields, {name: given[name] for name in ('batches', 'batch_size')}
      )
    except ValueError as error:
      print(f'left out: {file}: {error}')
      continue
    if np.array_equal(others_AxE, archs_AxE):
      out[file.stem.removeprefix('density-')] = alpha_A
  # The sampler's density may be of other architectures; undebiased runs have
  # none.
  with contextlib.suppress(ValueError, FileNotFoundError):
    (others_AxE, alpha_A, _), facts = density.read_file(
      run / 'density.npz', {'config': like['config']}
    )
    if np.array_equal(others_AxE, archs_AxE):
      out[f'run at step {facts.get("step", "?")}'] = alpha_A
  return out
