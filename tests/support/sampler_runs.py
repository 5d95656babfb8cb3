"""Every sampler as a config builds it, for some steps of made-up feedback.

`python -m support.sampler_runs FILE LABEL...` saves the architectures drawn.
"""

import functools
import sys
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas import config, density, samplers, spaces, supernets
from jaxnas.experiment import debias, sampling
from jaxnas.experiment.parts import Experiment
from jaxnas.runtime import devices, rng

STEPS_PER_EPOCH, STEPS = 2, 6
# The first step after the warm-up, before which trees and densities are made.
DUE = STEPS_PER_EPOCH
MEMBERS, TAU = 2, 0.5
# Programs run for a blink: what counts is how long they take to compile.
QUICKLY = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}

GIVEN = {
  'uniform': {},
  'balanced': {},
  'fair': {'paths': 1},
  'boltzmann': {},
  'importance': {},
  'importance, path': {'variant': 'path'},
  'importance, data': {'variant': 'data'},
  'novelty': {},
  'tree': {},
  'tree, prioritized': {'variant': 'prioritized'},
  'tree, iterative': {'variant': 'iterative'},
  'tree, hierarchical': {'variant': 'hierarchical'},
  'mixture': {'members': MEMBERS},
}
# Both halves of importance draw architectures by what others here do.
DISTINCT = [label for label in GIVEN if not label.startswith('importance, ')]
UNLISTED = 'mobilenet', 'mobilenet_strict'
REFUSED = {
  ('balanced', 'pooling'),
  ('fair', 'pooling'),
  ('fair', 'mobilenet_strict'),
  ('importance', 'pooling'),
  ('importance', 'mobilenet_strict'),
  ('importance, path', 'pooling'),
  ('importance, path', 'mobilenet_strict'),
  ('tree, hierarchical', 'nas_bench_201'),
} | {
  (label, on)
  for label in (
    'boltzmann',
    'tree',
    'tree, prioritized',
    'tree, iterative',
    'tree, hierarchical',
    'mixture',
  )
  for on in UNLISTED
}
PAIRS = [
  (label, on)
  for label in GIVEN
  for on in spaces.SPACES
  if (label, on) not in REFUSED
]


def fields(label: str) -> dict[str, Any]:
  """Returns the fields of the config's sampler section."""
  return {'name': label.partition(',')[0], 'paths': 2, **GIVEN[label]}


RULES = 'eq8', 'self_consistent'


def experiment(
  label: str, *, debias: bool, rule: str = 'eq8', **density: Any
) -> config.Config:
  """Returns the config of a run of three epochs, one of them the warm-up."""
  return config.Config(
    warmup_epochs=1,
    epochs=2,
    sampler=config.Sampler(**fields(label)),
    debias=config.Debias(temperature=TAU, rule=rule)
    if debias
    else config.Debias(),
    density=config.Density(**density),
  )


def build(given: config.Config, on: str) -> samplers.Sampler:
  space = spaces.get(on)
  return sampling.sampler(given, space, supernets.build(space), STEPS_PER_EPOCH)


def feedback(space: spaces.Space, arch_F: Any, number: Any) -> Any:
  """Gradients of ops at the first position and the last, and some rewards."""
  ops_of = {e: space.counts[e] for e in (0, space.positions - 1)}
  gradient = {
    f'position_{e}': {
      f'op_{o}': {'kernel': jnp.where(arch_F[e] == o, jnp.array([o, 2.0]), 0)}
      # As where the first is the identity.
      for o in range(1, ops)
    }
    for e, ops in ops_of.items()
  }
  if len(arch_F) > space.positions:
    of_member_M = jnp.arange(MEMBERS) == arch_F[-1]
    gradient = jax.tree.map(lambda leaf: of_member_M[:, None] * leaf, gradient)
  accuracy = (1 + arch_F[0]) / (1 + arch_F.sum())
  reward = jnp.where(number % 3 == 1, jnp.nan, accuracy)
  return samplers.Feedback(arch_F, gradient, reward.astype(jnp.float32))


def measured(size: int) -> samplers.Measurements:
  """Returns made-up measurements, from which a tree is built."""
  rng = np.random.default_rng(1)
  return samplers.Measurements(
    lambda: rng.uniform(size=size), lambda: rng.normal(size=(size, 2))
  )


def alpha_of(size: int) -> np.ndarray:
  return np.random.default_rng(0).uniform(1.0, 3.0, size)


def units_of(size: int) -> np.ndarray:
  """Unit vectors of which many are alike."""
  units_AxD = 1 + np.random.default_rng(0).normal(size=(size, 8))
  return units_AxD / np.linalg.norm(units_AxD, axis=1, keepdims=True)


def evidence_of(space: spaces.Space) -> samplers.Evidence:
  """Returns made-up densities, and similarities that are not of them."""
  return samplers.Evidence(
    space.enumerate(),
    alpha_of(space.size),
    density.of_vectors({'head': units_of(space.size).astype(np.float32)}),
  )


class Run(NamedTuple):
  """Record of a sampler's steps, debiased and rebuilt after the warm-up."""

  sampler: samplers.Sampler
  step: Any
  """(state, number of the step) -> (state, archs_PxF)"""
  log_probs: Any
  """(state) -> logp_A, and that of the proposal inside."""
  warm: Any
  """The state at the end of the warm-up."""
  state: Any
  archs_TxPxF: np.ndarray
  traces: list


def run(
  label: str, on: str, place: Any = lambda state: state, rule: str = 'eq8'
) -> Run:
  """Debiased where the space is listed."""
  space, traces = spaces.get(on), []
  given = experiment(label, debias=space.enumerable, rule=rule)
  sampler = build(given, on)
  proposal = sampling.proposal(given, space, STEPS_PER_EPOCH)

  @functools.partial(jax.jit, compiler_options=QUICKLY)
  def program(state, number):
    traces.append(1)
    archs_PxF = sampler.sample(state, rng.key(0, 'archs', number))

    def path(state, arch_F):
      return sampler.update(state, feedback(space, arch_F, number)), None

    after, _ = jax.lax.scan(path, state, archs_PxF)
    within = samplers.archs_state(state).proposal
    log_probs = sampler.log_prob(state), proposal.log_prob(within)
    return (after, archs_PxF), log_probs

  def step(state, number):
    return program(state, jnp.int32(number))[0]

  def log_probs(state):
    # Compiled anyway.
    return program(state, jnp.int32(0))[1]

  state = warm = place(sampler.init())
  archs = []
  for number in range(STEPS):
    if number == DUE:
      warm, state = state, after_warmup(given, space, sampler, state)
    state, archs_PxF = step(state, number)
    archs.append(np.asarray(archs_PxF))
  return Run(sampler, step, log_probs, warm, state, np.stack(archs), traces)


def after_warmup(given, space, sampler, state):
  """Rebuilds and debiases as a run does, from made-up measurements."""
  if sampler.rebuild is not None:
    state = sampler.rebuild(state, measured(space.size))
  if not given.debiases:
    return state
  experiment = mock.Mock(spec=Experiment, config=given, sampler=sampler)
  return debias.apply_density(experiment, state, evidence_of(space)).state


ran = functools.cache(run)


if __name__ == '__main__':
  np.savez(
    sys.argv[1],
    devices=jax.local_device_count(),
    **{
      label: run(label, 'digits', devices.everywhere).archs_TxPxF
      for label in sys.argv[2:]
    },
  )
