"""Figures of rankings: rank against rank, and how often each was trained."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from jaxnas.report import charts
from jaxnas.report.folders import OWN_IMAGES, Run

# Ringed: the truly best.
BEST = 10


def ranks(runs: Sequence[Run]) -> list[charts.Figure]:
  """Supernet rank against true rank, a chart a run (the paper's figure 1)."""
  out: list[charts.Figure] = []
  for colour, run in enumerate(runs):
    if run.predictions is None or run.truth is None:
      continue
    archs_AxE = run.predictions['archs_AxE']
    accuracy_A = run.predictions['accuracy_A']
    truth_A = run.truth.accuracy(archs_AxE)
    out.append(
      charts.Chart(
        name=f'ranks-{slug(run.label)}',
        title=f'Rank against rank: {run.label}',
        xlabel='rank alone',
        ylabel='rank in the supernet',
        marks=[
          charts.Dots(
            label=run.label,
            colour=colour,
            x_N=rank_of(truth_A),
            y_N=rank_of(accuracy_A),
            texts=texts(run, archs_AxE, accuracy_A, truth_A),
            ringed_M=np.argsort(-truth_A, kind='stable')[:BEST],
          )
        ],
        diagonal=True,
        ranks=True,
        note=_figures(run)
        + f'Ringed: the {min(BEST, len(truth_A))} truly best; the best is at '
        'the top right.',
      )
    )
  return out


def rank_of(values_A: Float[np.ndarray, ' A']) -> Float[np.ndarray, ' A']:
  """From 1, the largest; ties at their mean."""
  return np.asarray(scipy.stats.rankdata(-values_A, 'average'), float)


def texts(
  run: Run,
  archs_AxE: Int[np.ndarray, 'A E'],
  accuracy_A: Float[np.ndarray, ' A'] | None = None,
  truth_A: Float[np.ndarray, ' A'] | None = None,
  **more_A: Float[np.ndarray, ' A'] | Int[np.ndarray, ' A'],
) -> list[str]:
  """What is known of each architecture, a line a fact."""
  space = run.space
  lines = [[space.format(arch_E)] for arch_E in archs_AxE]

  def add(form: str, values_A) -> None:
    for line, value in zip(lines, values_A, strict=True):
      line.append(form.format(value))

  if accuracy_A is not None:
    add('supernet {:.2%}', accuracy_A)
  if truth_A is not None:
    add('alone {:.2%}', truth_A)
  for name, values_A in more_A.items():
    add(f'{name} {{:.4g}}', values_A)
  if run.config.data.name in OWN_IMAGES:
    costs = space.costs(archs_AxE)
    add('{:,} parameters', costs.params_A)
    add('{:,} multiply-adds', costs.macs_A)
  return ['\n'.join(line) for line in lines]


def sampling(runs: Sequence[Run]) -> list[charts.Figure]:
  """How often each was trained, against how often its probability says."""
  marks = []
  for colour, run in enumerate(runs):
    expected_A = expected(run)
    if expected_A is None or run.samples is None:
      continue
    marks.append(
      charts.Dots(
        label=run.label,
        colour=colour,
        x_N=expected_A,
        y_N=run.samples['samples_A'].astype(float),
        texts=texts(
          run,
          run.samples['archs_AxE'],
          expected=expected_A,
          trained=run.samples['samples_A'],
        ),
      )
    )
  if not marks:
    return []
  return [
    charts.Chart(
      name='sampling',
      title='How often each architecture was trained',
      xlabel='times, by its probability',
      ylabel='times trained',
      marks=marks,
      diagonal=True,
      note=(
        'By its probability: uniform in the warm-up, then by the density and '
        'the temperature of the run.'
      ),
    )
  ]


def expected(run: Run) -> Float[np.ndarray, ' A'] | None:
  """Times that each architecture of the space should have been trained.

  None where probabilities change along the run, or are not known.
  """
  given = run.config
  known = (
    given.sampler.name == 'uniform'
    and given.sampler.cost_bins is None
    and given.density.estimator != 'prototypes'
    and given.density.refresh_epochs is None
  )
  if not known or run.samples is None or 'samples_A' not in run.samples:
    return None
  total, count = run.samples['samples_A'].sum(), run.space.size
  p_A = np.full(count, 1 / count)
  if given.debiases:
    if run.density is None:
      return None
    # It brings JAX along.
    from jaxnas import debiasing

    alpha_A, _ = debiasing.scaled(given, run.density['alpha_A'])
    tau = debiasing.temperature(given, np.log(p_A), alpha_A)
    p_A = np.exp(-(alpha_A - alpha_A.min()) / tau)
    p_A /= p_A.sum()
  warmup = given.warmup_epochs / max(given.total_epochs, 1)
  return total * (warmup / count + (1 - warmup) * p_A)


def slug(label: str) -> str:
  """A part of a file's name."""
  return ''.join(c if c.isascii() and c.isalnum() else '-' for c in label)


def _figures(run: Run) -> str:
  found = run.correlation or {}
  parts = [
    f'{name} {found[key]:.3f}'
    for name, key in (('tau', 'kendall'), ('top tau', 'top_kendall'))
    if found.get(key) is not None
  ]
  return f'{", ".join(parts)}. '.capitalize() if parts else ''
