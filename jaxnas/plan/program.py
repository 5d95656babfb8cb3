"""What a compiled step moves, read from its text: to and from memory, and
between devices.

XLA's own count takes the costliest branch of a switch; here each branch counts
by how often it is taken, which uniform sampling makes alike.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
)
# Values that are there already, or that nothing is moved for.
_FREE = {
  'add-dependency',
  'after-all',
  'bitcast',
  'constant',
  'get-tuple-element',
  'opt-barrier',
  'parameter',
  'partition-id',
  'replica-id',
  'tuple',
}
# What reads only as much of its first operand as comes out.
_PARTS = {'dynamic-slice', 'gather', 'slice'}
_BITS = {'pred': 8, 'bf16': 16, 'token': 0, 'opaque': 0}

_COMPUTATION = re.compile(r'(ENTRY )?%([\w.-]+) \(')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)')
_SHAPE = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_CALLED = re.compile(
  r'(calls|to_apply|body|condition|true_computation|false_computation'
  r'|branch_computations)=(?:%([\w.-]+)|\{([^}]*)\})'
)


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Of one device in one step, in bytes."""

  memory: float = 0.0
  """Read from or written to the device's memory."""
  collectives: float = 0.0
  """Handed to collectives."""
  sent: float = 0.0
  """That leave the device for them, where each goes round in a ring."""
  count: float = 0.0
  """Collectives."""

  def __add__(self, other: 'Traffic') -> 'Traffic':
    return Traffic(*map(sum, zip(_fields(self), _fields(other), strict=True)))

  def __mul__(self, times: int | float) -> 'Traffic':
    return Traffic(*(times * value for value in _fields(self)))


def _fields(traffic: Traffic) -> tuple[float, ...]:
  return dataclasses.astuple(traffic)


class Instruction(NamedTuple):
  """A line of a program."""

  name: str
  type: str
  op: str
  operands: list[str]
  attributes: str
  """With the operands before them."""
  root: bool

  @property
  def called(self) -> dict[str, list[str]]:
    """Names of the computations that it calls, by their role."""
    return {
      role: [one] if one else re.findall(r'%([\w.-]+)', many)
      for role, one, many in _CALLED.findall(self.attributes)
    }


def traffic(text: str, devices: int) -> Traffic:
  """Of a step.

  Args:
    text: of the compiled program, scheduled HLO.
    devices: that run it, for collectives over all of them.

  Raises ValueError where the text is no such program.
  """
  return _Program(text, devices).traffic()


class _Program:
  """Computations by name, and what each moves."""

  def __init__(self, text: str, devices: int) -> None:
    self._devices = devices
    # Only TPUs' layouts have tiles; there, spaces other than 0 are on the
    # chip. Of GPUs all are memory.
    self._tiled = ':T(' in text
    self._computations: dict[str, dict[str, Instruction]] = {}
    self._entry = None
    body: dict[str, Instruction] = {}
    for line in text.splitlines():
      if found := _INSTRUCTION.match(line):
        root, name, type, op, rest = found.groups()
        operands = re.findall(r'%([\w.-]+)', rest.partition(')')[0])
        body[name] = Instruction(name, type, op, operands, rest, bool(root))
      elif found := _COMPUTATION.match(line):
        body = self._computations[found[2]] = {}
        self._entry = found[2] if found[1] else self._entry
    self._of = functools.cache(self._sum)

  def traffic(self) -> Traffic:
    if self._entry is None:
      raise ValueError('the text has no ENTRY computation: it is no program.')
    return self._of(self._entry)

  def _sum(self, computation: str) -> Traffic:
    body = self._computations[computation]
    return sum(
      (self._instruction(one, body) for one in body.values()), Traffic()
    )

  def _instruction(
    self, one: Instruction, body: dict[str, Instruction]
  ) -> Traffic:
    called = one.called
    if one.op == 'while':
      (condition,) = called['condition']
      return self._of(called['body'][0]) * self._trips(one, condition)
    if one.op == 'conditional':
      branches = [
        name
        for role, names in called.items()
        if role != 'condition'
        for name in names
      ]
      return sum(map(self._of, branches), Traffic()) * (1 / len(branches))
    if one.op in ('call', 'async-start'):
      return sum(
        (self._of(name) for names in called.values() for name in names),
        Traffic(),
      )
    inside = Traffic()
    if one.op == 'fusion':
      # Of what is fused, only what leaves the device counts.
      (name,) = called['calls']
      inside = dataclasses.replace(self._of(name), memory=0.0)
    return inside + self._collective(one, body) + self._memory(one, body)

  def _collective(
    self, one: Instruction, body: dict[str, Instruction]
  ) -> Traffic:
    op = one.op.removesuffix('-start')
    if op not in COLLECTIVES:
      return Traffic()
    size = math.fsum(_elements_bytes(body[name].type) for name in one.operands)
    group = _group_size(one.attributes, self._devices)
    rest = group - 1
    share = {
      'all-gather': float(rest),
      'all-reduce': 2 * rest / group,
      'collective-permute': 1.0,
    }.get(op, rest / group)
    return Traffic(collectives=size, sent=share * size, count=1.0)

  def _memory(self, one: Instruction, body: dict[str, Instruction]) -> Traffic:
    allocates = 'custom_call_target="AllocateBuffer"' in one.attributes
    if one.op in _FREE or one.op.endswith('-done') or allocates:
      return Traffic()
    written = self._bytes(one.type)
    if one.op == 'copy-start':
      # Its type names the source as well as the destination.
      return Traffic(written)
    if one.op in _PARTS:
      return Traffic(2 * written)
    if one.op == 'dynamic-update-slice':
      return Traffic(2 * self._bytes(body[one.operands[1]].type))
    read = [self._bytes(body[name].type) for name in one.operands]
    if one.op == 'fusion':
      written, read = self._fused(one, written, read)
    return Traffic(written + math.fsum(read))

  def _fused(
    self, one: Instruction, written: float, read: list[float]
  ) -> tuple[float, list[float]]:
    """Less, where only a part of an operand is read, or of the result new."""
    body = self._computations[one.called['calls'][0]]
    for inner in body.values():
      if inner.op != 'parameter':
        continue
      uses = [use for use in body.values() if inner.name in use.operands]
      number = int(inner.attributes.partition(')')[0])
      if uses and all(
        use.op in _PARTS and use.operands[0] == inner.name for use in uses
      ):
        read[number] = min(
          read[number], math.fsum(self._bytes(use.type) for use in uses)
        )
      elif any(
        use.root
        and use.op == 'dynamic-update-slice'
        and use.operands[0] == inner.name
        for use in uses
      ):
        read[number] = 0.0
    for inner in body.values():
      if inner.root and inner.op == 'dynamic-update-slice':
        written = min(written, self._bytes(body[inner.operands[1]].type))
    return written, read

  def _trips(self, one: Instruction, condition: str) -> int:
    """Of a loop that counts from 0 to a constant, as scans do."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', one.attributes):
      return int(known[1])
    bounds = [
      int(found[0])
      for inner in self._computations[condition].values()
      if inner.op == 'constant'
      and (found := re.match(r'\d+(?=\))', inner.attributes))
    ]
    return max(bounds, default=1)

  def _bytes(self, type: str) -> float:
    """Of arrays in the device's memory, as they lie there."""
    return math.fsum(
      math.prod(shape) * bits / 8
      for bits, shape, space in _arrays(type)
      if space == 0 or not self._tiled
    )


def _elements_bytes(type: str) -> float:
  """Of arrays without what pads them."""
  return math.fsum(
    math.prod(map(int, filter(None, lengths.split(',')))) * _bits(dtype) / 8
    for dtype, lengths, _ in _SHAPE.findall(type)
  )


def _arrays(type: str) -> Iterator[tuple[int, list[int], int]]:
  """(bits an element, lengths with padding, memory space) of each array."""
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
  """Of an element: f32 has 32, f8e4m3fn 8."""
  known = _BITS.get(dtype)
  return int(re.sub(r'^\D+(\d+).*', r'\1', dtype)) if known is None else known


def _group_size(attributes: str, devices: int) -> int:
  """Devices that a collective joins."""
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
