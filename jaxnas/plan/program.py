"""Counts the bytes that a compiled step moves, to memory and between devices.

The counts are read from the program's text. XLA's own count takes the costliest
branch of a switch; here each branch counts by how often it is taken.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jaxnas.plan import hlo
from jaxnas.plan.hlo import Instruction

COLLECTIVES = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
)
# Operations that move nothing: their values are there already.
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
# Operations that move what those do which they call.
_CALLING = {'async-start', 'call', 'conditional', 'while'}
# Operations that read only as much of their first operand as comes out.
_PARTS = {'dynamic-slice', 'gather', 'slice'}


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Bytes that one device moves in one step."""

  memory: float = 0.0
  """Bytes read from or written to the device's memory."""
  collectives: float = 0.0
  """Bytes handed to collectives."""
  sent: float = 0.0
  """Bytes that leave the device for them, if each goes round in a ring."""
  count: float = 0.0
  """Number of collectives."""

  def __add__(self, other: 'Traffic') -> 'Traffic':
    return Traffic(*map(sum, zip(_fields(self), _fields(other), strict=True)))

  def __mul__(self, times: int | float) -> 'Traffic':
    return Traffic(*(times * value for value in _fields(self)))


def _fields(traffic: Traffic) -> tuple[float, ...]:
  return dataclasses.astuple(traffic)


# Shares of the architectures that take each branch, by position.
Taken = Mapping[int, Sequence[float]]


class Moved(NamedTuple):
  """An instruction that moves bytes, and how often a step runs it."""

  instruction: Instruction
  times: float
  memory: float
  """Bytes of a single time."""
  inner: tuple[Instruction, ...]
  """Instructions of a fusion; of others none."""


class Program:
  """The computations of a program by name, and the traffic of each.

  Args:
    text: the compiled program, as scheduled HLO.
    devices: how many run it, for collectives over all of them.
    taken: how often branches are taken; those of other switches alike.

  Raises ValueError where the text is no such program.
  """

  def __init__(
    self, text: str, devices: int = 1, taken: Taken | None = None
  ) -> None:
    self._devices, self._taken = devices, taken or {}
    # Only TPUs' layouts have tiles; there, spaces other than 0 are on the
    # chip. On GPUs all spaces are memory.
    self._tiled = ':T(' in text
    self._computations, self._entry = hlo.computations(text)
    self._of = functools.cache(self._sum)

  def traffic(self) -> Traffic:
    """Counts the traffic of a step."""
    return self._of(self._entry)

  def moved(self) -> Iterator[Moved]:
    """Yields what moves bytes in the device's memory, in the order it runs."""
    for one, body, times in self._run(self._entry, 1.0):
      if one.op in _CALLING:
        continue
      if memory := self._memory(one, body).memory:
        inner = (
          self._computations[one.called['calls'][0]]
          if (one.op == 'fusion')
          else {}
        )
        yield Moved(one, times, memory, tuple(inner.values()))

  def switches(self) -> float:
    """Counts how many branches a step takes."""
    run = self._run(self._entry, 1.0)
    return math.fsum(times for one, _, times in run if one.op == 'conditional')

  def loops(self) -> list[int]:
    """Returns the rounds of each loop, in the order they run."""
    return [
      self._trips(one, one.called['condition'][0])
      for one, _, _ in self._run(self._entry, 1.0)
      if one.op == 'while'
    ]

  def _run(
    self, computation: str, times: float
  ) -> Iterator[tuple[Instruction, dict[str, Instruction], float]]:
    """Yields instructions outside of fusions, and how often they run."""
    body = self._computations[computation]
    for one in body.values():
      yield one, body, times
      called = one.called
      if one.op == 'while':
        rounds = self._trips(one, called['condition'][0])
        yield from self._run(called['body'][0], times * rounds)
      elif one.op == 'conditional':
        for name, share in self._branches(one):
          yield from self._run(name, times * share)
      elif one.op in ('call', 'async-start'):
        for names in called.values():
          for name in names:
            yield from self._run(name, times)

  def _branches(self, one: Instruction) -> list[tuple[str, float]]:
    """Returns names of the branches, and the share of times of each."""
    names = [
      name
      for role, names in one.called.items()
      if role != 'condition'
      for name in names
    ]
    where = re.findall(r'position_(\d+)', hlo.op_name(one))
    shares = self._taken.get(int(where[-1]), ()) if where else ()
    if len(shares) != len(names):
      shares = [1 / len(names)] * len(names)
    return [*zip(names, shares, strict=True)]

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
      return sum(
        (self._of(name) * share for name, share in self._branches(one)),
        Traffic(),
      )
    if one.op in ('call', 'async-start'):
      return sum(
        (self._of(name) for names in called.values() for name in names),
        Traffic(),
      )
    inside = Traffic()
    if one.op == 'fusion':
      # Within a fusion, only what leaves the device counts.
      (name,) = called['calls']
      inside = dataclasses.replace(self._of(name), memory=0.0)
    return inside + self._collective(one, body) + self._memory(one, body)

  def _collective(
    self, one: Instruction, body: dict[str, Instruction]
  ) -> Traffic:
    op = one.op.removesuffix('-start')
    if op not in COLLECTIVES:
      return Traffic()
    size = math.fsum(
      hlo.elements_bytes(body[name].type) for name in one.operands
    )
    group = hlo.group_size(one.attributes, self._devices)
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
    """Counts less where a part of an operand is read, or a part is new."""
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
    """Number of rounds of a loop from 0 to a constant, as scans are."""
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
    """Bytes of arrays in the device's memory, padding included."""
    return math.fsum(
      math.prod(shape) * bits / 8
      for bits, shape, space in hlo.arrays(type)
      if space == 0 or not self._tiled
    )
