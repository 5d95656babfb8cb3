"""Samplers side by side: each trained under one budget, with several seeds."""

import dataclasses
import gc
import sys
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from jaxnas import data, spaces, truth
from jaxnas.config import (
  Config,
  Debias,
  Sampler,
  digest,
  run_files,
  types,
  validation,
)
from jaxnas.config.registry import SAMPLERS
from jaxnas.experiment import build, contents, warm_up
from jaxnas.experiment import run as training
from jaxnas.runtime import errors, files, lock, places
from jaxnas.runtime.errors import Stopped
from jaxnas.runtime.preemption import Preemption

# The end of a label whose sampler is debiased.
DEBIAS = '+debias'

Budget = Literal['paths', 'steps']
BUDGETS: tuple[Budget, ...] = typing.get_args(Budget)

# The keys that a result must have to be shown.
RESULT = {
  **run_files.CORRELATION,
  'compute': run_files.CORRELATION['compute?'],
}


def configure(base: Config, label: str, budget: Budget) -> Config:
  """Returns the experiment with a label's sampler, its options among them.

  Raises ValueError where the label names no sampler.
  """
  name, plus, tail = label.partition('+')
  if plus and plus + tail != DEBIAS:
    raise ValueError(
      f'--samplers: {label!r} ends in {plus + tail!r}; only {DEBIAS} can '
      'stand behind a sampler.'
    )
  if plus and not base.debiases:
    raise ValueError(
      f'--samplers: {label} needs debias.effective_fraction or '
      'debias.temperature.'
    )
  name, _, variant = name.partition(':')
  SAMPLERS.check(name, '--samplers')
  given: dict[str, Any] = dataclasses.asdict(base.sampler)
  given |= {'name': name, 'variant': variant or None, 'budget': budget}
  if name == 'fair':
    # It has as many as it needs.
    given['paths'] = Sampler.paths
  config = validation.without_unused(
    dataclasses.replace(base, sampler=types.make(Sampler, given, 'sampler.')),
    'sampler',
  )
  if variant and config.sampler.variant is None:
    raise ValueError(f'--samplers: {label!r}: {name} has no variants.')
  if name != 'fair' and spaces.get(base.space).enumerable:
    # Nobody else chooses among candidates.
    exact = dataclasses.replace(base.debias, candidates=Debias.candidates)
    config = dataclasses.replace(config, debias=exact)
  if not plus:
    config = config.undebiased()
  validation.validate(config)
  return config


def checked(config: Config, label: str, loaded: data.DataSet) -> Config:
  """Returns the config, without rewards that its sampler does not read.

  Raises ValueError where the sampler cannot serve the experiment.
  """
  every_step = dataclasses.replace(config.sampler, reward_every=1)
  try:
    plain = dataclasses.replace(config, sampler=every_step)
    rewards = build.experiment(plain, loaded).sampler.rewards
  except ValueError as error:
    raise ValueError(f'{label}: {error}') from error
  return config if rewards else plain


class Runs(NamedTuple):
  """Runs that are held side by side: labels, with several seeds each."""

  configs: Mapping[str, Config]
  """The experiments by label."""
  seeds: Sequence[int]
  place: Callable[[str, Config], Path]
  """(label, config with its seed) -> the folder of a run."""

  def wanted(self) -> dict[tuple[str, int], Config]:
    """Returns the experiment of each label and seed."""
    return {
      (label, seed): dataclasses.replace(config, seed=seed)
      for seed in self.seeds
      for label, config in self.configs.items()
    }

  def folder(self, label: str, seed: int) -> Path:
    config = dataclasses.replace(self.configs[label], seed=seed)
    return self.place(label, config)

  def warmed_up(self, label: str, seed: int) -> list[Path]:
    """Returns the folders of others that may have the warm-up of a run."""
    others = {label.removesuffix(DEBIAS): None, **dict.fromkeys(self.configs)}
    return [
      self.folder(other, seed)
      for other in others
      if other in self.configs
      and other != label
      # It starts from that of the plain one itself.
      and not other.endswith(DEBIAS)
    ]


def by_label(workdir: Path) -> Callable[[str, Config], Path]:
  """Places runs in folders of their labels, for `Runs`."""
  return lambda label, config: run_of(workdir, label, config.seed)


def compare(
  runs: Runs,
  workdir: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
  preemption: Preemption,
  failed: Mapping[tuple[str, int], str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
  """Trains every label with every seed; returns results by label.

  A result is the content of correlation.json.

  Runs that are done are read, those begun go on. A run that fails does not
  lose the others: its result is its 'error', and its trace is in error.txt.

  Args:
    runs: what to train.
    workdir: the folder of all of them.
    table: ground truth, where there is one.
    loaded: the images of all of them.
    preemption: an active one; signals end the comparison by Stopped.
    failed: errors of runs that others have tried to train; none is trained
      here. None: they are.
  """
  results: dict[str, list[dict[str, Any]]] = {
    label: [] for label in runs.configs
  }
  wanted = runs.wanted()
  # All of them before any work.
  known = {
    pair: _known(runs.folder(*pair), config) for pair, config in wanted.items()
  }
  for (label, seed), config in wanted.items():
    result = known[label, seed]
    if result is None and failed is not None:
      result = {'error': failed.get((label, seed), 'it is not finished')}
    if result is None:
      print(f'{label}, seed {seed}')
      result = attempt(
        config,
        runs.folder(label, seed),
        table,
        loaded,
        preemption,
        warmup_from=runs.warmed_up(label, seed),
        group=workdir,
      )
    results[label].append({'seed': seed, **result})
  return results


def result_of(run: Path, config: Config) -> dict[str, Any] | None:
  """Returns the result of a run that is over, else None.

  Raises Damaged where it is the result of another experiment.
  """
  file = run / 'correlation.json'
  if not file.exists():
    return None
  return files.read_result(file, RESULT, {'config': digest(config)})


def _known(run: Path, config: Config) -> dict[str, Any] | None:
  """Does the same, and where it would raise returns that error as the result:
  the other runs do not depend on it."""
  try:
    return result_of(run, config)
  except errors.Damaged as error:
    again = 'Where it is taken away, --resume finishes the run anew.'
    return {'error': f'{errors.line_of(error)} {again}'}


def attempt(
  config: Config,
  run: Path,
  table: truth.Table | None,
  loaded: data.DataSet,
  preemption: Preemption,
  *,
  warmup_from: Sequence[Path],
  group: Path,
) -> dict[str, Any]:
  """Trains one run; returns its result, or the error that ended it.

  It takes over the first warm-up of `warmup_from` that is the same. Trackers
  show it with the others of `group`.
  """
  # The programs of other runs are of no use to this one.
  jax.clear_caches()
  gc.collect()
  places.make(run)
  (run / 'error.txt').unlink(missing_ok=True)
  try:
    experiment = build.experiment(config, loaded)
    contents.open_run(run, config, experiment.images, resume=True)
    alike = (
      warm_up.same(other, config, experiment.warmup_steps, experiment.images)
      for other in warmup_from
    )
    return training.train(
      experiment,
      run,
      table,
      warmup_from=next(filter(None, alike), None),
      preemption=preemption,
      group=group,
    )
  except (Stopped, lock.Lost):
    raise
  except Exception as error:
    # The other runs do not depend on this one, whatever ended it.
    files.write_text(run / 'error.txt', traceback.format_exc())
    first = next(iter(str(error).splitlines()), '')
    print(f'error: {type(error).__name__}: {first}', file=sys.stderr)
    return {'error': f'{type(error).__name__}: {first}'}


def run_of(workdir: Path, label: str, seed: int) -> Path:
  """Returns the folder of a run."""
  return workdir / label.replace(':', '-') / f'seed_{seed}'
