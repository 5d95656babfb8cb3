"""Measure what jaxnas costs, beside what one would use instead.

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

from jaxnas import cli, runs, validation
from jaxnas.bench import rivals, rows
from jaxnas.bench.cases import Case, Options

Part = Literal[
  'step', 'rank', 'density', 'data', 'end_to_end', 'compile', 'startup'
]
PARTS: tuple[Part, ...] = get_args(Part)
# Of a part, where they are not called as it is; `compile` is a built-in.
MODULES = {'step': ('step', 'switch'), 'compile': ('compiling',)}
DEFAULTS = Options()


@dataclasses.dataclass(frozen=True)
class Bench:
  """Flags of the command."""

  parts: tyro.conf.Positional[tuple[Part, ...]] = PARTS
  """What to measure. Default: everything, which takes an hour and a half."""
  out: Path | None = None
  """A JSON file for the rows, written after each. Where they come from stands
  beside it, in STEM.environment.json."""
  check: Path | None = None
  """An earlier file: exit code 1 where a row fell. Only rows with a baseline
  can be compared with those of another machine."""
  tolerance: float = 0.85
  """How low a row may be, of what it was."""
  only: str | None = None
  """Only cases whose name contains this, for instance nas_bench_macro."""
  options: Annotated[Options, cli.UNPREFIXED] = DEFAULTS


def main(argv: Sequence[str] | None = None) -> int:
  args = cli.read(
    Bench, argv, prog='python -m jaxnas.bench', description=__doc__
  )
  with cli.usage_errors():
    if importlib.util.find_spec('torch') is None:
      raise ValueError("baselines need PyTorch: pip install 'jaxnas[torch]'.")
    check(args)
    earlier = None if args.check is None else rows.read(args.check)
    cases = find(args)
  environment = where()
  for name, value in environment.items():
    print(f'{name}: {value}')
  if args.out is not None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(
      args.out.with_name(f'{args.out.stem}.environment.json'), environment
    )
  done, failed = [], []
  for number, case in enumerate(cases, 1):
    print(f'{number} of {len(cases)}: {case.part}, {case.case}', flush=True)
    try:
      done.append(rivals.run(case))
    except rivals.Failed as error:
      failed.append(f'failed: {error}')
      print(failed[-1], file=sys.stderr)
    if args.out is not None:
      runs.write_json(args.out, done)
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
    if args.out.is_dir():
      raise ValueError(f'--out {args.out} is a folder: give a file in it.')
    runs.check_folder(args.out.parent, '--out')


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
  """Machine and versions."""
  platform, kind = rivals.device()
  given = runs.environment(
    device=f'{platform}, {kind}', cores=len(os.sched_getaffinity(0))
  )
  given['versions']['torch'] = importlib.metadata.version('torch')
  return given


if __name__ == '__main__':
  sys.exit(main())
