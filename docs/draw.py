"""Draws the figure of the concepts, and keeps what README quotes.

`python docs/draw.py` trains quickstart.py in a temporary folder, which takes a
minute; `python docs/draw.py RUN` takes a run of it. Beside the figure it writes
figures/quickstart.json: both rankings, and by what they were computed.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import MDS

import jaxnas
from jaxnas.experiment import origin
from jaxnas.report import palette
from jaxnas.runtime import files

FIGURES = Path(__file__).parent / 'figures'
KEPT = (
  'best_arch', 'best_arch_true_accuracy', 'kendall', 'kendall_interval',
  'spearman', 'top_kendall', 'baselines',
)  # fmt: skip


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    run = (
      jaxnas.open_run(sys.argv[1])
      if sys.argv[1:]
      else jaxnas.run_experiment('quickstart.py', f'{folder}/run')
    )
    assert run.undebiased is not None  # the config asks for it
    made_by = json.loads((run.workdir / origin.FILE).read_text())
    kept = {
      name: {key: of.correlation[key] for key in KEPT}
      for name, of in (('debiased', run), ('undebiased', run.undebiased))
    }
    kept['made_by'] = {
      'processor': processor(), 'cpus': made_by['cpus'],
      'jax': made_by['versions']['jax'],
    }  # fmt: skip
    files.write_text(
      FIGURES / 'quickstart.json', json.dumps(kept, indent=2) + '\n'
    )
    (found,) = run.measure(workdir=f'{folder}/measure', batch_size=250).values()
    draw(run, found, FIGURES / 'density-digits.png')


def processor() -> str:
  """Names the kind of processor."""
  found = re.search(
    r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text('utf-8')
  )
  return found[1] if found else 'unknown'


def draw(run: jaxnas.Run, found, file: Path) -> None:
  """Draws a map of the architectures, and what their densities decide."""
  probabilities_A = run.probabilities
  assert probabilities_A is not None and run.densities is not None
  distance_AxA = square(found.distance_P, len(found.alpha_A))
  place_AxC = MDS(
    2, metric='precomputed', init='random', n_init=4, random_state=0
  ).fit_transform(distance_AxA)
  rows_A = run.space.index(found.archs_AxE)
  alpha_A, chance_A = np.empty(len(rows_A)), np.empty(len(rows_A))
  ranked_A = run.space.index(
    np.array([run.space.parse(arch) for arch in run.archs])
  )
  alpha_A[ranked_A], chance_A[ranked_A] = run.densities, probabilities_A
  alpha_A, chance_A = alpha_A[rows_A], chance_A[rows_A]
  ink, soft = palette.LIGHT['ink'], palette.LIGHT['soft']
  figure = Figure((10, 4.2), layout='constrained', facecolor='white')
  left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
  shown = left.scatter(
    *place_AxC.T, c=alpha_A, s=12 + 2400 * chance_A, cmap=palette.SCALE,
    alpha=0.85, linewidths=0.5, edgecolors='white',
  )  # fmt: skip
  for a in (np.argmin(alpha_A), np.argmax(alpha_A)):
    left.annotate(
      f'{run.space.format(found.archs_AxE[a])}: {alpha_A[a]:.2f}',
      place_AxC[a], xytext=(9, 7), textcoords='offset points', color=ink,
      bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': 0.8, 'pad': 1},
    )  # fmt: skip
  left.set(xticks=[], yticks=[], aspect='equal')
  left.set_title(
    'Architectures by distance of gradients', loc='left', fontsize=12
  )
  left.spines[:].set_color(palette.LIGHT['rule'])
  figure.colorbar(shown, ax=left, label='density', shrink=0.85)
  right.axhline(100 / len(alpha_A), color=soft, ls=(0, (5, 4)), lw=1)
  right.text(
    alpha_A.max(), 100 / len(alpha_A) + 0.1, 'uniform', color=soft, ha='right'
  )
  right.scatter(
    alpha_A, 100 * chance_A, color=palette.series(0), s=22, alpha=0.7,
    linewidths=0,
  )  # fmt: skip
  right.set_title('What their densities decide', loc='left', fontsize=12)
  right.set(xlabel='density', ylabel='probability of being trained, %')
  right.spines[['top', 'right']].set_visible(False)
  with files.whole(file) as stream:
    figure.savefig(stream, format='png', dpi=110)


def square(distance_P: np.ndarray, count: int) -> np.ndarray:
  """Returns distances of every two as a symmetric matrix."""
  out_AxA = np.zeros((count, count))
  out_AxA[np.triu_indices(count, 1)] = distance_P
  return out_AxA + out_AxA.T


if __name__ == '__main__':
  main()
