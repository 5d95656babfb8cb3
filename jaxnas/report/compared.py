"""Makes the figures of densities, and of the distances between gradients."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from jaxnas.report import charts, ranked
from jaxnas.report.folders import Run
from jaxnas.report.ranked import slug, texts
from jaxnas.truth import correlation


def densities(runs: Sequence[Run]) -> list[charts.Figure]:
  """Histograms of the densities, and the supernet's accuracy against them."""
  found = [
    (colour, run, *alpha)
    for colour, run in enumerate(runs)
    if (alpha := run.alpha()) is not None
  ]
  if not found:
    return []
  edges_M = charts.edges([alpha['alpha_A'] for _, _, alpha, _ in found])
  bars, dots, notes = [], [], []
  for colour, run, alpha, when in found:
    alpha_A, archs_AxE = alpha['alpha_A'], alpha['archs_AxE']
    count_N, _ = np.histogram(alpha_A, edges_M)
    bars.append(
      charts.Bars(
        label=run.label, colour=colour, edges_M=edges_M, count_N=count_N
      )
    )
    accuracy_A = run.accuracy_of(archs_AxE)
    truth_A = None if run.truth is None else run.truth.known(archs_AxE)
    words = []
    if accuracy_A is not None:
      ranked_A = np.isfinite(accuracy_A)
      rho = correlation.spearman(alpha_A[ranked_A], accuracy_A[ranked_A])
      words += [] if rho is None else [f'{rho:.2f} with the supernet']
      dots.append(
        charts.Dots(
          label=run.label,
          colour=colour,
          x_N=alpha_A[ranked_A],
          y_N=accuracy_A[ranked_A] * 100,
          texts=texts(
            run,
            archs_AxE[ranked_A],
            accuracy_A[ranked_A],
            None if truth_A is None else truth_A[ranked_A],
            density=alpha_A[ranked_A],
          ),
        )
      )
    if truth_A is not None:
      known_A = np.isfinite(truth_A)
      rho = correlation.spearman(alpha_A[known_A], truth_A[known_A])
      words += [] if rho is None else [f'{rho:.2f} with the truth']
    tau = ranked.temperature(run)
    words += [] if tau is None else [f'temperature {tau:.3g}']
    notes.append(f'{run.label}, {when}: ' + ', '.join(words))
  out: list[charts.Figure] = [
    charts.Chart(
      name='density',
      title='Density of the architectures',
      xlabel='density',
      ylabel='architectures',
      marks=bars,
    )
  ]
  if dots:
    out.append(
      charts.Chart(
        name='density-accuracy',
        title='Density against supernet accuracy',
        xlabel='density',
        ylabel='accuracy in the supernet, %',
        marks=dots,
        note=f'Spearman of the density. {"; ".join(notes)}.',
      )
    )
  return out + _agreement(runs)


def _agreement(runs: Sequence[Run]) -> list[charts.Figure]:
  """Agreement of densities along a run with its last (the paper's table 6)."""
  lines = []
  for colour, run in enumerate(runs):
    if run.log is None or len(run.log['epoch_L']) < 2:
      continue
    last_A = run.log['alpha_LxA'][-1]
    rho_L = [
      correlation.spearman(alpha_A, last_A) for alpha_A in run.log['alpha_LxA']
    ]
    x_N, y_N = charts.without_gaps(
      run.log['epoch_L'].tolist(),
      [np.nan if rho is None else rho for rho in rho_L],
    )
    lines.append(
      charts.Line(label=run.label, colour=colour, x_N=x_N, y_N=y_N, dotted=True)
    )
  if not lines:
    return []
  return [
    charts.Chart(
      name='density-agreement',
      title='Densities along training, against the last ones',
      xlabel='epoch',
      ylabel='Spearman',
      marks=lines,
    )
  ]


def distances(runs: Sequence[Run]) -> list[charts.Figure]:
  """Mean gradient distance in each weight tensor (the paper's figure 2)."""
  out: list[charts.Figure] = []
  layers: list[charts.Figure] = []
  for run in runs:
    if run.log is None:
      continue
    names = [str(name) for name in run.log['tensors_T']]
    order = sorted(range(len(names)), key=lambda t: depth(names[t]))
    rows = [names[t].removesuffix('/kernel') for t in order]
    epochs = [str(int(epoch)) for epoch in run.log['epoch_L']]
    by_panel = {
      name: run.log[f'{name}_distance_LxT'][:, order].T
      for name in ('training', 'validation')
    }
    every = np.concatenate([*by_panel.values()])
    finite = every[np.isfinite(every)]
    limits = (float(finite.min()), float(finite.max())) if len(finite) else None
    for name, value_RxC in by_panel.items():
      images = (
        'a training batch each'
        if name == 'training'
        else 'the same validation images'
      )
      out.append(
        charts.Grid(
          name=f'distances-{name}-{slug(run.label)}',
          title=f'Gradient distance on {images}: {run.label}',
          xlabel='epoch',
          rows=rows,
          columns=epochs,
          value_RxC=value_RxC,
          unit='mean cosine distance',
          limits=limits,
        )
      )
    layers.append(_by_layer(run, rows, epochs, by_panel['validation']))
  return _between(runs) + out + layers


def _between(runs: Sequence[Run]) -> list[charts.Figure]:
  """Distances between every two architectures, in an order by likeness."""
  squares = []
  for run in runs:
    if run.log is not None and len(run.log.get('some_M', ())) > 1:
      distance_MxM = run.log['distance_LxMxM'][-1]
      order_M = alike(distance_MxM)
      square_MxM = distance_MxM[np.ix_(order_M, order_M)]
      np.fill_diagonal(square_MxM, np.nan)
      archs_MxE = run.log['archs_AxE'][run.log['some_M'][order_M]]
      names = [run.space.format(arch_E) for arch_E in archs_MxE]
      squares.append((run.label, names, square_MxM))
  every = [square_MxM for *_, square_MxM in squares]
  low = min((float(np.nanmin(square_MxM)) for square_MxM in every), default=0.0)
  high = max((float(np.nanmax(square_MxM)) for square_MxM in every), default=1)
  out: list[charts.Figure] = []
  for label, names, square_MxM in squares:
    out.append(
      charts.Grid(
        name=f'pairs-{slug(label)}',
        title=f'Gradient distance of every two: {label}',
        xlabel=f'{len(names)} architectures',
        rows=names,
        columns=names,
        value_RxC=square_MxM,
        unit='cosine distance',
        limits=(low, high),
        note='At the end, in the weight tensors that a density by gradients '
        'compares. What is alike stands side by side: a dense region is a dark '
        'block.',
      )
    )
  return out


def alike(distance_MxM: Float[np.ndarray, 'M M']) -> Int[np.ndarray, ' M']:
  """Returns an order in which neighbours are close, by average linkage."""
  tree = hierarchy.linkage(
    squareform(distance_MxM), 'average', optimal_ordering=True
  )
  return hierarchy.leaves_list(tree)


def _by_layer(
  run: Run, rows: Sequence[str], epochs: Sequence[str], value_RxC: np.ndarray
) -> charts.Figure:
  """Distances from the first layer to the last, at the epochs that matter."""
  # A later name replaces an earlier one, where epochs are few.
  shown = {0: 'first'}
  if str(run.config.warmup_epochs) in epochs:
    shown[epochs.index(str(run.config.warmup_epochs))] = 'turning'
  shown[len(epochs) - 1] = 'last'
  lines = []
  for c, colour in shown.items():
    known_R = np.isfinite(value_RxC[:, c])
    numbers_R = np.arange(1, len(rows) + 1)
    lines.append(
      charts.Line(
        label=f'epoch {epochs[c]}',
        colour=colour,
        x_N=numbers_R[known_R],
        y_N=value_RxC[known_R, c],
        dotted=True,
        texts=[
          f'{row}\nepoch {epochs[c]}\n{value:.4f}'
          for row, value in zip(rows, value_RxC[:, c], strict=True)
          if np.isfinite(value)
        ],
      )
    )
  return charts.Chart(
    name=f'layers-{slug(run.label)}',
    title=f'Gradient distance layer by layer: {run.label}',
    xlabel='layer, from the images on',
    ylabel='mean cosine distance',
    marks=lines,
    note='Distances are on the same validation images. Point at a dot to read '
    'the name of its layer.',
  )


def depth(name: str) -> list[tuple[int, int, int, str]]:
  """Returns a key that sorts parameter paths from the images to the classes."""
  first, *rest = name.split('/')
  word, number = _numbered(first)
  stage = {'stem': 0, 'first': 1, 'head': 3, 'linear': 4}.get(word, 2)
  # A reduction leads to the cells of its number.
  key = [(stage, number, int(word != 'reduce'), word)]
  within = ('expand', 'depthwise', 'squeeze', 'project', 'linear')
  for part in rest:
    word, number = _numbered(part)
    place = within.index(word) + 1 if word in within else 0
    key.append((place, number, 0, word))
  return key


def _numbered(part: str) -> tuple[str, int]:
  """'position_10' and 'conv2' as a word and a number."""
  found = re.fullmatch(r'(.*?)_?(\d*)', part)
  assert found is not None  # it matches anything
  return found[1], int(found[2] or 0)
