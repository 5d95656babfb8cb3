"""Measure what a part of jaxnas costs, beside what it replaces.

For instance `python -m jaxnas.bench ranking --space nas_bench_macro`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tyro

from jaxnas import cli, runs


@dataclasses.dataclass(frozen=True)
class Bench:
  """Flags of the command."""

  what: tyro.conf.Positional[Literal['ranking']]
  """ranking: by a walk of the prefix tree against path by path."""
  space: str = 'nas_bench_macro'
  """Whose architectures."""
  images: int = 64
  """How many, in one batch."""
  archs: int | None = None
  """How many architectures. Default: all."""
  seed: int = 0
  """Of weights, images and architectures."""
  out: Path | None = None
  """A JSON file to write the result to, with machine and versions."""


def main(argv: Sequence[str] | None = None) -> int:
  args = tyro.cli(Bench, args=argv, use_underscores=True, description=__doc__)
  from jaxnas.bench.ranking import ranking

  cli.keep_compiled()
  with cli.usage_errors():
    result = ranking(
      args.space, images=args.images, archs=args.archs, seed=args.seed
    )
  for name, value in result.items():
    shown = f'{value:.3f}' if isinstance(value, float) else value
    print(f'{name:>26}  {shown}')
  if args.out is not None:
    runs.write_text(
      args.out, json.dumps(runs.environment(**result), indent=2) + '\n'
    )
  return 0


if __name__ == '__main__':
  sys.exit(main())
