"""Reads the text of compiled programs: scheduled HLO."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {'pred': 8, 'bf16': 16, 'token': 0, 'opaque': 0}


_COMPUTATION = re.compile(r'(ENTRY )?%([\w.-]+) \(')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)')
_SHAPE = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_CALLED = re.compile(
  r'(calls|to_apply|body|condition|true_computation|false_computation'
  r'|branch_computations)=(?:%([\w.-]+)|\{([^}]*)\})'
)


class Instruction(NamedTuple):
  """A line of a program."""

  name: str
  type: str
  op: str
  operands: list[str]
  attributes: str
  """The rest of the line, operands included."""
  root: bool

  @property
  def called(self) -> dict[str, list[str]]:
    """Names of the computations that the instruction calls, by role."""
    return {
      role: [one] if one else re.findall(r'%([\w.-]+)', many)
      for role, one, many in _CALLED.findall(self.attributes)
    }


# Instructions of a computation by name, in the order they run.
Body = dict[str, Instruction]


def computations(text: str) -> tuple[dict[str, Body], str]:
  """Returns the computations of a program by name, and which one is run.

  Raises ValueError where the text is no such program.
  """
  out: dict[str, Body] = {}
  entry, body = None, {}
  for line in text.splitlines():
    if found := _INSTRUCTION.match(line):
      root, name, type, op, rest = found.groups()
      operands = re.findall(r'%([\w.-]+)', rest.partition(')')[0])
      body[name] = Instruction(name, type, op, operands, rest, bool(root))
    elif found := _COMPUTATION.match(line):
      body = out[found[2]] = {}
      entry = found[2] if found[1] else entry
  if entry is None:
    raise ValueError('the text has no ENTRY computation: give scheduled HLO.')
  return out, entry


def op_name(one: Instruction) -> str:
  """Returns where in the model an instruction comes from."""
  found = re.search(r'op_name="([^"]*)"', one.attributes)
  return found[1] if found else ''


def elements_bytes(type: str) -> float:
  """Bytes of arrays without padding."""
  return math.fsum(
    math.prod(map(int, filter(None, lengths.split(',')))) * _bits(dtype) / 8
    for dtype, lengths, _ in _SHAPE.findall(type)
  )


def arrays(type: str) -> Iterator[tuple[int, list[int], int]]:
  """Yields (bits an element, padded lengths, memory space) of each array."""
  for dtype, lengths, layout in _SHAPE.findall(type):
    shape = [int(length) for length in lengths.split(',') if length]
    order, _, rest = layout.partition(':')
    # The first tile pads the most minor axes, which the order names first.
    if shape and (tile := re.match(r'T\(([\d,]+)\)', rest)):
      minor = [int(axis) for axis in order.split(',')]
      sides = [int(side) for side in tile[1].split(',')]
      for axis, side in zip(minor, reversed(sides), strict=False):
        shape[axis] = -(-shape[axis] // side) * side
    space = re.search(r'S\((\d+)\)', rest)
    yield _bits(dtype), shape, int(space[1]) if space else 0


def _bits(dtype: str) -> int:
  """Bits of an element: f32 has 32, f8e4m3fn 8."""
  known = _BITS.get(dtype)
  return int(re.sub(r'^\D+(\d+).*', r'\1', dtype)) if known is None else known


def group_size(attributes: str, devices: int) -> int:
  """Number of devices that a collective joins."""
  if found := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
    return found[1].count(',') + 1
  if found := re.search(r'replica_groups=\[\d+,(\d+)\]', attributes):
    return int(found[1])
  if found := re.search(
    r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', attributes
  ):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r'\w+', found[2]))
  return devices
