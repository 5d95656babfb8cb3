"""Measure the speed of jaxnas beside that of PyTorch.

Both sides of a case live in processes of their own, on the cores this one is
given, and measure in turns. For instance
`taskset -c 0,1 python -m jaxnas.bench step density --out bench.json`.
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from jaxnas.bench import clocks, rivals, rows
from jaxnas.bench.cases import Case, Options
from jaxnas.config import flags, validation
from jaxnas.runtime import environment, errors, files, outputs, streams

Part = Literal[
  'step',
  'products',
  'rank',
  'density',
  'data',
  'end_to_end',
  'compile',
  'startup',
]
PARTS: tuple[Part, ...] = get_args(Part)
# Modules of a part, where its name is not theirs; `compile` is a built-in.
MODULES = {'step': ('step', 'switch'), 'compile': ('compiling',)}
DEFAULTS = Options()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench(flags.Writes):
  """Flags of the command."""

  parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
  """Parts to measure. Default: all of them, which takes hours."""
  out: Path | None = None
  """A JSON file for the rows, written after each. STEM.environment.json beside
  it tells machine and versions, and of a GPU clocks and power of each case."""
  check: Path | None = None
  """An earlier file: exit code 1 where a row fell. Only rows with a baseline
  can be compared with those of another machine."""
  tolerance: float = 0.85
  """With `check`, a row fell where it is below this share of what it was."""
  only: str | None = None
  """Only cases whose name contains this, for instance nas_bench_macro."""
  options: Annotated[Options, flags.UNPREFIXED] = DEFAULTS


def main(argv: Sequence[str] | None = None) -> int:
  args = flags.read(
    Bench, argv, prog='python -m jaxnas.bench', description=__doc__
  )
  with errors.usage_errors():
    if importlib.util.find_spec('torch') is None:
      raise ValueError("baselines need PyTorch: pip install 'jaxnas[torch]'.")
    check(args)
    earlier = None if args.check is None else rows.read(args.check)
    cases = find(args)
  # A disk may be full, and memory run out.
  with errors.outcome(args.out or Path(), 'stopped'):
    return measure(args, cases, earlier)


def measure(
  args: Bench, cases: Sequence[Case], earlier: Sequence[rows.Row] | None
) -> int:
  """Measures cases, one after the other; returns the exit code."""
  environment = where()
  for name, value in environment.items():
    print(f'{name}: {value}')
  if args.out is not None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(beside(args.out), environment)
  done, failed, seen = [], [], {}
  for number, case in enumerate(cases, 1):
    print(f'{number} of {len(cases)}: {case.part}, {case.case}', flush=True)
    with clocks.watched() as of_case:
      try:
        done.append(rivals.run(case))
      except rivals.Failed as error:
        failed.append(f'failed: {error}')
        print(failed[-1], file=sys.stderr)
    if of_case:
      print(', '.join(f'{name} {value:g}' for name, value in of_case.items()))
      seen[f'{case.part}, {case.case}'] = of_case
    if args.out is not None:
      files.write_json(args.out, done)
      if seen:
        files.write_json(beside(args.out), {**environment, 'clocks': seen})
  print(f'\n{rows.table(done)}')
  if earlier is not None:
    failed += [
      f'fell: {line}' for line in rows.check(done, earlier, args.tolerance)
    ]
  for line in failed:
    print(line, file=sys.stderr)
  return 1 if failed else 0


def check(args: Bench) -> None:
  """Raises ValueError or FileNotFoundError for flags that can't be."""
  validation.within('--tolerance', args.tolerance, 0, validation.LARGEST)
  options = args.options
  validation.within('--seed', options.seed, 0, 2**32 - 1)
  for name in ('archs', 'batch_size', 'images'):
    if (value := getattr(options, name)) is not None:
      validation.at_least_one(f'--{name}', value)
  if options.data_dir is not None and not options.data_dir.is_dir():
    raise FileNotFoundError(
      f'--data_dir {options.data_dir} is no folder: give one with CIFAR-10.'
    )
  if args.out is not None:
    for file, ours in (
      (args.out, rows.read),
      (beside(args.out), lambda file: files.read_json(file, {'device': str})),
    ):
      outputs.check_file(file, '--out', ours, overwrite=args.overwrite)


def beside(out: Path) -> Path:
  """Returns the file of machine and versions beside that of the rows."""
  return out.with_name(f'{out.stem}.environment.json')


def find(args: Bench) -> list[Case]:
  """Raises ValueError where nothing is left to measure."""
  cases = [
    case
    for part in dict.fromkeys(args.parts)
    for module in MODULES.get(part, (part,))
    for case in importlib.import_module(f'jaxnas.bench.{module}').cases(
      args.options
    )
    if args.only is None or args.only in case.case
  ]
  if not cases:
    raise ValueError(f'no case of {", ".join(args.parts)} has {args.only!r}.')
  return cases


def where() -> dict[str, object]:
  """Returns the machine and the versions of what is measured."""
  platform, kind = rivals.device()
  given = environment.environment(
    device=f'{platform}, {kind}', cores=len(os.sched_getaffinity(0))
  )
  given['versions']['torch'] = importlib.metadata.version('torch')
  return given


if __name__ == '__main__':
  streams.run(main)
