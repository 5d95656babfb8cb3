"""A trained run as arrays, with what can be done with it as methods.

A method takes the flags of the command of its name as keywords, and does what
the command does, by the same function.
"""

import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxnas import (
  calibrate,
  density,
  export,
  measure,
  rank,
  retrain,
  samplers,
  search,
  spaces,
  truth,
)
from jaxnas.config import (
  Config,
  digest,
  run_files,
  run_flags,
  run_folder,
  types,
)
from jaxnas.experiment import contents, outcomes, predictions, trained
from jaxnas.experiment.search import BEST
from jaxnas.runtime import errors, files, paths, startup


def open_run(workdir: Path | str) -> 'Run':
  """Opens what `run_experiment` or `python -m jaxnas.train` wrote.

  Raises FileNotFoundError or ValueError where the folder holds no such run.
  """
  folder = Path(paths.expanded(str(workdir)))
  config = run_folder.read_config(folder)
  run_folder.check_command(folder)
  return Run(folder, config)


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of training, as `run_experiment` and `open_run` return it.

  Arrays have a value for each architecture of `archs`, those that were ranked,
  in their order; accuracies are fractions. What the run does not have yet
  raises FileNotFoundError, one line.
  """

  workdir: Path
  config: Config = dataclasses.field(repr=False)

  @functools.cached_property
  def space(self) -> spaces.Space:
    """The space of architectures, for the run's images."""
    return contents.space_of(self.workdir, self.config)

  @functools.cached_property
  def archs(self) -> list[str]:
    """The architectures that were ranked, in the space's notation."""
    return [self.space.format(arch_E) for arch_E in self._ranked.archs_AxE]

  @property
  def accuracies(self) -> Float[np.ndarray, ' A']:
    """Accuracies under the shared weights."""
    return self._ranked.accuracy_A

  @functools.cached_property
  def truth(self) -> Float[np.ndarray, ' A'] | None:
    """Accuracies of the architectures trained alone; None without a table."""
    table = truth.find(
      self.space, self.config.data.name, None, self.workdir, None
    )
    return None if table is None else table.known(self._ranked.archs_AxE)

  @functools.cached_property
  def densities(self) -> Float[np.ndarray, ' A'] | None:
    """Densities that the sampler was given last; None where it was given none.

    They are as they were measured, before `density.scale`.
    """
    file = self.workdir / 'density.npz'
    if not (self.space.enumerable and file.exists()):
      return None
    found, _ = density.read_file(file, {'config': digest(self.config)})
    return self.space.looked_up(
      found.archs_AxE, found.alpha_A, self._ranked.archs_AxE
    )

  @functools.cached_property
  def probabilities(self) -> Float[np.ndarray, ' A'] | None:
    """Probabilities of being drawn after the last step; None if not listed."""
    experiment, state = self._loaded
    if not self.space.enumerable or experiment.sampler.log_prob is None:
      return None
    logp_A = experiment.sampler.log_prob(state.sampler)
    return None if logp_A is None else np.exp(np.asarray(logp_A))[self._rows]

  @property
  def temperature(self) -> float | None:
    """Temperature of the debiased softmax; None where nothing is debiased."""
    if not self.config.debiases:
      return None
    return float(samplers.archs_state(self._loaded[1].sampler).tau)

  @functools.cached_property
  def samples(self) -> Int[np.ndarray, ' A'] | None:
    """Counts of how often each was trained; None if the space isn't listed."""
    return (
      np.asarray(self.state.samples)[self._rows]
      if self.space.enumerable
      else None
    )

  @functools.cached_property
  def correlation(self) -> dict[str, Any]:
    """The agreement of the ranking with the truth: correlation.json."""
    return files.read_result(
      self.workdir / trained.RANKED,
      run_files.CORRELATION,
      {'config': digest(self.config)},
    )

  @functools.cached_property
  def state(self) -> Any:
    """The state after the last step, as a pytree of numpy arrays."""
    return jax.tree.map(np.asarray, self._loaded[1])

  @functools.cached_property
  def undebiased(self) -> 'Run | None':
    """The twin that `debias.baseline` trains from the same warm-up, if any."""
    folder = self.workdir / 'undebiased'
    return open_run(folder) if (folder / 'config.json').exists() else None

  def table(self) -> Any:
    """A row for each architecture, the most accurate first, all that is known.

    It is a pandas DataFrame where pandas is installed, else a dict of arrays.
    """
    costs = self.space.costs(self._ranked.archs_AxE)
    columns = {
      'arch': np.array(self.archs),
      'accuracy': self.accuracies,
      'truth': self.truth,
      'density': self.densities,
      'probability': self.probabilities,
      'samples': self.samples,
      'params': costs.params_A,
      'macs': costs.macs_A,
    }
    order_A = np.argsort(-self.accuracies, kind='stable')
    known = {
      name: values[order_A]
      for name, values in columns.items()
      if values is not None
    }
    try:
      pandas: Any = importlib.import_module('pandas')
    except ImportError:
      return known
    return pandas.DataFrame(known)

  def rank(self, **flags: Any) -> dict[str, Any]:
    """Ranks anew, on other images for instance; see `jaxnas.rank`.

    Fields of the ranking section stand for themselves: `rank(split='test')`.
    Returns what correlation.json holds.
    """
    with errors.CALL.usage():
      given = rank.as_in_run(self.workdir, self.config)
      args, config = self._with(given, flags, 'ranking')
    return rank.rank(args, config, errors.CALL)

  def search(self, **flags: Any) -> dict[str, Any]:
    """Searches for the best architecture; see `jaxnas.search`.

    For instance `search(searcher='evolution', max_macs='330M', images=500)`,
    the last one a field of the ranking section. Returns what best.json holds.
    """
    with errors.CALL.usage():
      given = search.as_in_run(self.workdir, self.config)
      if flags.get('resume'):
        folder = flags.get('workdir') or self.workdir / 'search'
        given = search.begun(Path(paths.expanded(str(folder))))
      args, config = self._with(given, flags, 'ranking')
    searched = search.search(args, config, errors.CALL)
    facts = {'config': digest(self.config)}
    return files.read_result(searched.workdir / BEST, run_files.BEST, facts)

  def measure(self, **flags: Any) -> dict[str, Any]:
    """Measures densities; see `jaxnas.measure`.

    For instance `measure(measure=('gradient', 'functional'))`; fields of the
    density section stand for themselves. Returns by measure a tuple of
    archs_AxE, alpha_A and, in small spaces, distance_P.
    """
    with errors.CALL.usage():
      given = measure.as_in_run(self.workdir, self.config)
      args, config = self._with(given, flags, 'density')
    return measure.measure(args, config, errors.CALL)

  def calibrate(self, **flags: Any) -> dict[str, Any]:
    """Calibrates the ranking by architectures trained alone.

    For instance `calibrate(truths='table.json', suggest=5)`; see
    `jaxnas.calibrate`. Returns what calibration.json holds, and `suggested`.
    """
    with errors.CALL.usage():
      given = calibrate.Calibrate(run=self.workdir)
      args, config = self._with(given, flags)
    return calibrate.calibrate(args, config, errors.CALL)

  def retrain(self, arch: str = 'best', **flags: Any) -> dict[str, Any]:
    """Trains one architecture alone, from scratch; see `jaxnas.retrain`.

    Fields of the retrain section stand for themselves: `retrain(epochs=50)`.
    Other sections are given by those of their fields that change. Returns what
    result.json holds.
    """
    with errors.CALL.usage():
      given = retrain.Retrain(
        experiment=self.config.on_one_device(), run=self.workdir, arch=arch
      )
      inner = 'experiment.retrain', 'experiment'
      args = types.replaced(given, _nested(given, flags, *inner))
    folder = retrain.retrain(args, errors.CALL)
    facts = {'config': digest(args.experiment)}
    return files.read_result(folder / outcomes.RESULT, run_files.RESULT, facts)

  def export(self, arch: str = 'best', **flags: Any) -> dict[str, Any]:
    """Hands an architecture over as a network; see `jaxnas.export`.

    Returns what network.json holds.
    """
    with errors.CALL.usage():
      given = export.as_in_run(self.workdir, self.config)
      args, config = self._with(given, {'arch': arch, **flags})
    return export.export(args, config, errors.CALL)

  @functools.cached_property
  def _ranked(self) -> predictions.Predictions:
    file = self.workdir / 'predictions.npz'
    if not file.exists():
      raise FileNotFoundError(
        f'{self.workdir} has ranked nothing yet: finish it with '
        'run_experiment(run.config, run.workdir, resume=True).'
      )
    return predictions.read(file, self.space, {'config': digest(self.config)})

  @functools.cached_property
  def _rows(self) -> Int[np.ndarray, ' A']:
    """Rows of the ranked architectures in the enumeration of the space."""
    return self.space.index(self._ranked.archs_AxE)

  @functools.cached_property
  def _loaded(self) -> Any:
    startup.prepare_process()
    config = self.config.on_one_device()
    return trained.load(self.workdir, config, run_flags.ranking_of(config))

  def _with(self, given: Any, flags: dict[str, Any], *inner: str) -> Any:
    """Returns the flags with those that a method was given, and the config."""
    args = types.replaced(given, _nested(given, flags, *inner))
    return run_flags.settled(args, self.config.on_one_device())


def _nested(given: Any, flags: dict[str, Any], *inner: str) -> dict[str, Any]:
  """Returns keywords as nested fields.

  Args:
    given: the flags.
    flags: keywords by name.
    inner: sections whose fields stand for themselves, where the flags have no
      such field.
  """
  out: dict[str, Any] = {}
  for name, value in flags.items():
    place = out
    if not hasattr(given, name):
      for section in inner:
        parts = section.split('.')
        found = functools.reduce(getattr, parts, given)
        if hasattr(found, name):
          for part in parts:
            place = place.setdefault(part, {})
          break
    place[name] = value
  return out
