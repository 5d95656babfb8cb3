"""Train with several samplers under one budget, and hold them side by side.

For instance `python -m jaxnas.compare --config quickstart.py --samplers
uniform,uniform+debias,tree:iterative,tree:iterative+debias`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxnas.config import Config, flags, validation
from jaxnas.many import flags as many
from jaxnas.runtime import errors, files, streams

# The file that says what is compared.
COMPARES = 'compare.json'

# Used where neither the flags nor what is resumed say it.
DEFAULTS = {'seeds': 3, 'budget': 'paths'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(many.Labelled):
  """Flags of the command."""

  samplers: str | None = None
  """Samplers to compare, separated by commas: NAME or NAME:VARIANT, with
  +debias behind it to debias it as the config says."""
  seeds: int | None = None
  """Runs of each, from the config's seed on. None: 3, or as before."""
  budget: Literal['paths', 'steps'] | None = None
  """Unit that all spend alike: path-gradients, or steps (sampler.budget). None:
  paths, or as before."""


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Compare, argv)
  results, workdir = compare(args)
  from jaxnas.many import labelled

  return labelled.show(results, workdir, args)


def compare(
  args: Compare, ends: errors.Ends = errors.COMMAND
) -> tuple[dict[str, list[dict[str, Any]]], Path]:
  """Compares as the flags say; returns results by label, and their folder."""
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.data import DataSet
  from jaxnas.experiment import comparison
  from jaxnas.many import labelled
  from jaxnas.report import figures

  def request(args: Compare, base: Config) -> labelled.Request:
    asked = requested(args, args.workdir)

    def configs(loaded: DataSet) -> labelled.Labelled:
      return {
        label: comparison.checked(
          comparison.configure(base, label, asked['budget']), label, loaded
        )
        for label in asked['samplers']
      }, range(base.seed, base.seed + asked['seeds'])

    return labelled.Request(COMPARES, asked, configs, comparison.by_label)

  results, workdir = labelled.do('compare', args, request, ends)
  if results and not args.gather:
    figures.comparison(results, workdir / 'compare.png')
  return results, workdir


def requested(args: Compare, workdir: Path | None) -> dict[str, Any]:
  """Returns samplers, seeds and budget, by flags or by what is resumed.

  Raises ValueError where neither says what to compare, or where runs that are
  done had another budget.
  """
  file = workdir and workdir / COMPARES
  kept = {}
  if file and args.resume and file.exists():
    kept = kept_request(file)
  given = {
    'samplers': None if args.samplers is None else args.samplers.split(','),
    'seeds': args.seeds,
    'budget': args.budget,
  }
  asked = DEFAULTS | kept | {k: v for k, v in given.items() if v is not None}
  if 'samplers' not in asked:
    raise ValueError(
      'say what to compare: --samplers uniform,uniform+debias for instance.'
    )
  validation.at_least_one('--seeds', asked['seeds'])
  if kept and kept['budget'] != asked['budget']:
    raise ValueError(
      f'{workdir} compares under --budget {kept["budget"]}, not '
      f'{asked["budget"]}: choose another --workdir.'
    )
  labels = asked['samplers']
  if twice := {label for label in labels if labels.count(label) > 1}:
    raise ValueError(f'--samplers has {min(twice)!r} twice: name it once.')
  return asked


def kept_request(file: Path) -> dict[str, Any]:
  """Reads what an earlier call compared.

  Raises Damaged where its file does not say it.
  """
  kept = files.read_json(file, {'samplers': list, 'seeds': int, 'budget': str})
  from jaxnas.experiment.comparison import BUDGETS

  labels, budget = kept['samplers'], kept['budget']
  if budget not in BUDGETS:
    raise errors.Damaged(
      f'{file} compares under the budget {budget!r:.80}, none of '
      f'{", ".join(BUDGETS)}: choose another --workdir.'
    )
  if not labels or not all(isinstance(label, str) for label in labels):
    raise errors.Damaged(
      f'{file} compares {labels!r:.80}, no names of samplers: choose another '
      '--workdir.'
    )
  return kept


if __name__ == '__main__':
  streams.run(main)
