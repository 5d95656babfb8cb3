"""What may be asked of `jaxnas.search`, and what a search begun was asked."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxnas import cli, runs, strict_json, trained, validation
from jaxnas.config import types

if TYPE_CHECKING:
  from jaxnas.searchers import Limits

# The file that keeps them.
WHAT = 'search.json'

# What numbers of parameters and multiply-adds may end in.
UNITS = {'': 1, 'k': 10**3, 'M': 10**6, 'G': 10**9}

# Of flags; all that a search has scored is in memory.
RANGES = (
  ('seed', 0, 2**32 - 1),
  ('top', 1, validation.MOST),
  ('population', 1, 10**6),
  ('generations', 1, 10**6),
  ('parents', 1, 10**6),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(trained.Command):
  """Flags of the command; those of ranking are as in the run."""

  searcher: Literal['random', 'evolution', 'shifting', 'tree', 'exhaustive'] = (
    'evolution'
  )
  """random; evolution (SPOS); shifting: evolution that trains the shared
  weights along every candidate; tree: walks by UCT; exhaustive: all."""
  max_params: str | None = None
  """Limit on parameters of the network alone, such as 5M."""
  max_macs: str | None = None
  """Limit on multiply-adds of one image, such as 330M."""
  population: int = 50
  """Architectures of a generation."""
  generations: int = 20
  """How many generations; not of exhaustive."""
  parents: int = 10
  """Of evolution and shifting: the best, which have children."""
  mutation: float = 0.1
  """Of evolution and shifting: probability of a position to be drawn anew."""
  select: Literal['accuracy', 'diverse', 'similar', 'pareto'] = 'accuracy'
  """Of evolution and shifting: parents are the most accurate; the most distant
  of accurate ones; those nearest the best; or the front of accuracy,
  parameters and multiply-adds."""
  distance: Literal[
    'encoding', 'gradient', 'representational', 'functional'
  ] = 'encoding'
  """Of select diverse and similar: as density.measure, with the run's other
  density fields."""
  seed: int = 0
  """Of the search."""
  top: int = 10
  """How many architectures to show."""
  resume: bool = False
  """Go on where the search in --workdir stopped."""
  table: Path | None = None
  """Ground truth. Default: what the run was held to."""
  ranking: trained.Ranking


def begun(argv: Sequence[str] | None) -> Search | None:
  """The flags of the search to go on with; None where one starts.

  Raises ValueError where the folder does not say them.
  """
  flags = cli.peek(argv)
  if not (flags.resume and flags.workdir):
    return None
  file = flags.workdir / WHAT
  if not file.exists():
    raise ValueError(
      f'{flags.workdir} holds no search: start one without --resume.'
    )

  def parse(content: bytes) -> Search:
    given = strict_json.loads(content)
    if isinstance(given, dict) and isinstance(given.get('run'), str):
      given['run'] = Path(given['run'])
    return types.make(Search, given)

  return dataclasses.replace(
    runs.parsed(file, parse), workdir=flags.workdir, resume=True
  )


def limits_of(args: Search) -> 'Limits':
  """Raises ValueError where one is no number."""
  from jaxnas.searchers import Limits

  def number(name: str, text: str | None) -> int | None:
    if text is None:
      return None
    # float() takes other scripts' digits, underscores and 'nan' too.
    found = re.fullmatch(r'([0-9.]+(?:e[0-9]{1,2})?)([kMG]?)', text)
    try:
      digits, unit = found.groups() if found else ('', '')
      return round(float(digits) * UNITS[unit])
    except (ValueError, OverflowError) as error:
      raise ValueError(
        f'--{name} is {text!r}; it must be a number, such as 330M.'
      ) from error

  return Limits(
    number('max_params', args.max_params), number('max_macs', args.max_macs)
  )
