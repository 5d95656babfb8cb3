"""Train once for each combination of values of some fields of a config.

For instance `python -m jaxnas.sweep --config quickstart.py --set
debias.temperature=1,3,7 --set seed=0..4 --workers 2`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxnas.config import Config, flags
from jaxnas.many import flags as many
from jaxnas.runtime import errors, files, streams

# The file that says what is swept.
SWEEPS = 'sweep.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(many.Labelled):
  """Flags of the command."""

  set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
  """A field and its values, as FIELD=A,B,C or FIELD=FIRST..LAST; several times
  for all combinations. Runs of several seeds are shown as one."""


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.parse(Sweep, argv)
  results, workdir = sweep(args)
  from jaxnas.many import labelled

  return labelled.show(results, workdir, args)


def sweep(
  args: Sweep, ends: errors.Ends = errors.COMMAND
) -> tuple[dict[str, list[dict[str, Any]]], Path]:
  """Trains as the flags say; returns results by label, and their folder."""
  # JAX and what needs it come after the flags, so that `--help` is quick.
  from jaxnas.data import DataSet
  from jaxnas.experiment import build
  from jaxnas.many import labelled, runs, values

  def request(args: Sweep, base: Config) -> labelled.Request:
    asked = requested(args)
    configs, seeds = values.combined(base, asked)

    def checked(loaded: DataSet) -> labelled.Labelled:
      for label, config in configs.items():
        try:
          build.experiment(config, loaded)
        except ValueError as error:
          raise ValueError(f'--set {label}: {error}') from error
      return configs, seeds

    return labelled.Request(SWEEPS, {'set': [*asked]}, checked, runs.in_tasks)

  return labelled.do('sweep', args, request, ends)


def requested(args: Sweep) -> tuple[str, ...]:
  """Returns what to sweep, by flags or by what is resumed.

  Raises ValueError where neither says it.
  """
  file = args.workdir and args.workdir / SWEEPS
  if not args.set and file and args.resume and file.exists():
    return tuple(files.read_json(file, {'set': [str]})['set'])
  if not args.set:
    raise ValueError(
      'say what to sweep: --set debias.temperature=1,3,7 for instance.'
    )
  return args.set


if __name__ == '__main__':
  streams.run(main)
