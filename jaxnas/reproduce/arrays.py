"""Keeps the arrays of a run that later questions are answered from.

They lie beside its result as an npz file of at most about two megabytes:
how often each architecture was trained, which images it has right, densities
and the probabilities that follow from them, distances of every two
architectures where they are few, and accuracies along the run.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxnas import spaces
from jaxnas.config import Config, digest, run_files
from jaxnas.experiment import reports, updates
from jaxnas.runtime import files

# Of more architectures than these, the images are not kept.
MOST_KEPT = 10_000

Arrays = dict[str, np.ndarray]


def of_run(config: Config, run: Path) -> Arrays:
  """Gathers the arrays of a finished run.

  Returns those of these that the run has:
    archs_AxE: the architectures ranked; right_AxW: the first thousand images,
      a bit each, 1 where the architecture classifies the image correctly.
    samples_A, or samples_ExO: how often each architecture, or op, was trained.
    alpha_A: densities when debiasing began; distance_P: of every two, in
      scipy's condensed form.
    probability_A: P of the rule, where the proposal is uniform.
    epoch_L, archs_SxE, accuracy_LxS: accuracies along the run.
  """

  def kept(name: str, kind: Mapping[str, str]) -> Arrays:
    """Reads a file of the run; nothing where it left none."""
    if not (run / name).exists():
      return {}
    return files.read_arrays(run / name, kind, {'config': digest(config)})[0]

  ranked = kept('predictions.npz', run_files.PREDICTIONS)
  out: Arrays = {'archs_AxE': ranked['archs_AxE'].astype(np.int8)}
  if len(ranked['archs_AxE']) <= MOST_KEPT:
    out['right_AxW'] = ranked['right_AxW']
  name = 'samples_A' if spaces.get(config.space).enumerable else 'samples_ExO'
  kind = run_files.SAMPLES if name == 'samples_A' else run_files.SAMPLES_OF_OPS
  if samples := kept('samples.npz', kind):
    out[name] = samples[name].astype(np.uint32)
  if config.debiases and (of_archs := kept('density.npz', run_files.DENSITY)):
    out |= _densities(
      config, of_archs, kept(updates.FILE, run_files.UPDATES) or None
    )
  if log := kept(reports.LOG, run_files.RANKING_LOG):
    out['epoch_L'] = log['epoch_L'].astype(np.int32)
    out['archs_SxE'] = log['archs_AxE'].astype(np.int8)
    out['accuracy_LxS'] = log['accuracy_LxA'].astype(np.float32)
  return out


def _densities(config: Config, kept: Arrays, found: Arrays | None) -> Arrays:
  out: Arrays = {'alpha_A': kept['alpha_A'].astype(np.float32)}
  if 'distance_P' in kept:
    out['distance_P'] = kept['distance_P'].astype(np.float16)
  if config.sampler.name != 'uniform' or config.density.refresh_epochs:
    return out
  if (applied := updates.applied(config, kept['alpha_A'], found)) is not None:
    out['probability_A'] = applied[0].astype(np.float32)
  return out
