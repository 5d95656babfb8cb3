"""Lists the numbers of a run that tables show, and how they are written."""

import dataclasses
from collections.abc import Callable

from jaxnas.reproduce.store import Result


@dataclasses.dataclass(frozen=True)
class Metric:
  """A number of a finished run."""

  key: str
  """Its name in JSON, and in the correlation.json of a run."""
  head: str
  form: str
  """A format such as {:.3f}."""
  note: str = ''
  """A sentence that says what it means, where the head does not."""
  read: Callable[[Result], float | None] | None = None
  """Reads it from a result; None: what was found has it under `key`."""

  def of(self, result: Result) -> float | None:
    """Returns the number; None where the run has none."""
    return self.read(result) if self.read else result['found'].get(self.key)


KENDALL = Metric('kendall', "Kendall's tau", '{:.3f}')
SPEARMAN = Metric('spearman', 'Spearman', '{:.3f}')
TOP_KENDALL = Metric('top_kendall', 'top tau', '{:.3f}')
FOUND = Metric('best_arch_true_accuracy', 'accuracy found', '{:.2%}')
EFFECTIVE = Metric(
  'effective',
  'effective',
  '{:.1f}',
  'Effective: 1 / sum of P squared, architectures.',
)
DENSITY = Metric(
  'density_truth',
  'density',
  '{:.2f}',
  'Density: its Spearman with the accuracy alone; where it is above 0, what '
  'debiasing favours less is better.',
)

RANKING = (KENDALL, SPEARMAN, TOP_KENDALL)
