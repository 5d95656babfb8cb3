"""Help that fits a screen: what people change first, and the way to the rest.

`--help` lists a command's own flags and the first fields of its sections,
`--help SECTION` a section, and `--help_all` everything, as tyro writes it.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tyro

from jaxnas.runtime import suggestions

WIDTH = 79

# Characters before the text of a flag that stands beside it.
INDENT = 26

# Fields of an experiment that people change first.
FIRST = {
  'space',
  'seed',
  'warmup_epochs',
  'epochs',
  'data.name',
  'data.dir',
  'data.batch_size',
  'sampler.name',
  'debias.effective_fraction',
  'optimizer.peak_lr',
  'ranking.split',
  'ranking.images',
  'retrain.epochs',
}

# Lines of a command's docstring, but for its last paragraph.
LONGEST = 14

# Sections whose fields all stand in the help of a command on their own are as
# small as this.
SMALL = 3


class Flag(NamedTuple):
  """A flag of a command."""

  name: str
  """Name without dashes, with its section: data.name."""
  hint: Any
  marks: tuple[Any, ...]
  owner: type
  """The dataclass that has the field."""
  field: str


def flags(kind: Any, unprefixed: Any, prefix: str = '') -> Iterator[Flag]:
  """Yields the flags of a dataclass, and of those in it.

  Args:
    kind: the dataclass.
    unprefixed: marks a dataclass whose flags stand without its name.
    prefix: of the names.
  """
  for name, hint in typing.get_type_hints(kind, include_extras=True).items():
    marks = tuple(getattr(hint, '__metadata__', ()))
    inner = typing.get_args(hint)[0] if marks else hint
    if dataclasses.is_dataclass(inner):
      below = prefix if unprefixed in marks else f'{prefix}{name}.'
      yield from flags(inner, unprefixed, below)
    elif tyro.conf.Suppress not in marks:
      # from_ has the name of a word of Python's.
      yield Flag(f'{prefix}{name.rstrip("_")}', inner, marks, kind, name)


def asked(argv: Sequence[str]) -> tuple[bool, str | None]:
  """Returns if help is asked for, and the section that follows it, if any."""
  for word, after in itertools.pairwise([*argv, '']):
    if word in ('-h', '--help', '--help_all', '--help-all'):
      return True, after if after and not after.startswith('-') else None
    if word.startswith('--help='):
      return True, word.partition('=')[2]
  return False, None


def write(
  kind: Any,
  unprefixed: Any,
  *,
  default: Any,
  section: str | None,
  prog: str,
  description: str | None,
) -> str:
  """Returns the help of a command, or of one of its sections.

  Args:
    kind: the dataclass of the flags.
    unprefixed: as in `flags`.
    default: an instance of it, whose values are shown; None: the class has
      them.
    section: its name; None: the command.
    prog: the command line.
    description: the docstring of the command.

  Raises ValueError, with the nearest name, where there is no such section.
  """
  known = [*flags(kind, unprefixed)]
  sections = _sections(known)
  values = {} if default is None else _values(default, known)
  if section is not None:
    suggestions.check('section', section, [*sections])
    head = [f'{prog}: flags of {section}.', '']
    return '\n'.join(
      [
        *head,
        *(line for flag in sections[section] for line in _long(flag, values)),
      ]
    )
  small = set()
  if not any(flag.owner.__name__ == 'Config' for flag in known):
    small = {name for name, inside in sections.items() if len(inside) <= SMALL}
  shown = []
  for flag in known:
    inside, dot, _ = flag.name.rpartition('.')
    of_config = flag.owner.__name__ == 'Config' or bool(dot)
    if not of_config or flag.name in FIRST or inside in small:
      shown.append(flag)
  shown.sort(key=lambda flag: _place(flag, kind))
  hidden = [name for name in sections if name not in small]
  lines = [*_described(description), '']
  for flag in shown:
    lines += _short(flag, values)
  lines += ['']
  if hidden:
    lines += textwrap.wrap(
      f'More: --help SECTION, of {", ".join(hidden)}; --help_all shows all.',
      WIDTH,
    )
  else:
    lines += ['More: --help_all.']
  return '\n'.join(lines)


def _sections(known: Sequence[Flag]) -> dict[str, list[Flag]]:
  out: dict[str, list[Flag]] = {}
  for flag in known:
    section, dot, _ = flag.name.rpartition('.')
    if dot:
      out.setdefault(section, []).append(flag)
  return out


def _values(default: Any, known: Sequence[Flag]) -> dict[str, Any]:
  """Returns the values of the flags, by name."""
  by_owner: dict[tuple[str, type], Any] = {}

  def collect(given: Any, prefix: str) -> None:
    by_owner[prefix, type(given)] = given
    for field in dataclasses.fields(given):
      value = getattr(given, field.name, None)
      if dataclasses.is_dataclass(value):
        collect(value, f'{prefix}{field.name}.')
        # It may stand without its name.
        collect(value, prefix)

  collect(default, '')
  out = {}
  for flag in known:
    prefix = flag.name[: len(flag.name) - len(flag.field.rstrip('_'))]
    if (given := by_owner.get((prefix, flag.owner))) is not None:
      out[flag.name] = getattr(given, flag.field)
  return out


def _short(flag: Flag, values: Mapping[str, Any]) -> list[str]:
  """Writes a flag in one line if possible: what it is, in few words."""
  text = _docs(flag.owner).get(flag.field, '')
  first = re.split(r'(?<=[^.])\.(?: |$)|(?<=.{12}):(?: |$)', text, maxsplit=1)[
    0
  ]
  value = values.get(flag.name)
  note = '' if value is None or value is False or value == () else f' ({value})'
  room = WIDTH - INDENT
  if len(first) + len(note) <= room:
    first += note
  return _beside(flag, textwrap.shorten(first, room, placeholder=' ...'))


def _long(flag: Flag, values: Mapping[str, Any]) -> list[str]:
  """Writes a flag with all that is said of it, and its value."""
  text = _docs(flag.owner).get(flag.field, '')
  if choices := _choices(flag.hint):
    text += f' One of {", ".join(map(str, choices))}.'
  if flag.name in values:
    text += f' (now {values[flag.name]})'
  return _beside(flag, text)


def _choices(hint: Any) -> tuple[Any, ...]:
  """Returns the values of a Literal, also of one that may be None."""
  if typing.get_origin(hint) is typing.Literal:
    return typing.get_args(hint)
  literals = [
    inner
    for inner in typing.get_args(hint)
    if typing.get_origin(inner) is typing.Literal
  ]
  return typing.get_args(literals[0]) if len(literals) == 1 else ()


def _beside(flag: Flag, text: str) -> list[str]:
  name = flag.name if tyro.conf.Positional in flag.marks else f'--{flag.name}'
  lines = textwrap.wrap(text, WIDTH - INDENT) or ['']
  if len(name) > INDENT - 2:
    return [name, *(' ' * INDENT + line for line in lines)]
  first, *rest = lines
  return [
    f'{name:<{INDENT}}{first}'.rstrip(),
    *(' ' * INDENT + line for line in rest),
  ]


def _place(flag: Flag, kind: type) -> int:
  """Returns what a flag is sorted by: what the command is about comes first."""
  if flag.name in ('config', 'run') or tyro.conf.Positional in flag.marks:
    return 0
  if '.' in flag.name or flag.owner.__name__ == 'Config':
    return 3
  return 1 if flag.field in vars(kind).get('__annotations__', {}) else 2


def _described(description: str | None) -> list[str]:
  """Returns a docstring; of a long one, what stands before the second blank."""
  paragraphs = (description or '').strip().split('\n\n')
  lines = []
  for paragraph in paragraphs:
    if paragraph.startswith(' ') or '\n  ' in paragraph:
      lines += paragraph.splitlines()
    else:
      lines += textwrap.wrap(paragraph, WIDTH)
    if len(lines) > LONGEST:
      break
  return lines


@functools.cache
def _docs(kind: type) -> dict[str, str]:
  """Returns what stands below each field of a dataclass, and of its bases."""
  out: dict[str, str] = {}
  for base in reversed(kind.__mro__):
    if not dataclasses.is_dataclass(base):
      continue
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, tree.body[1:], strict=False):
      if (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
      ):
        out[node.target.id] = ' '.join(str(after.value.value).split())
  return out
