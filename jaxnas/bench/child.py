"""A side in its process: one JSON line in, one JSON line out.

The first line is a `Side`, answered once it is prepared; each line after it
asks for a measurement. The process ends with its input.
"""

import importlib
import json
import os
import sys

from jaxnas.runtime import allocator


def main() -> None:
  # Answers have a pipe of their own: libraries print to standard output, and
  # what they start would inherit standard input.
  questions, answers = (
    os.fdopen(os.dup(fd), mode) for fd, mode in ((0, 'r'), (1, 'w'))
  )
  os.dup2(2, 1)
  nothing = os.open(os.devnull, os.O_RDONLY)
  os.dup2(nothing, 0)
  os.close(nothing)

  def answer(value: float | None) -> None:
    print(json.dumps(value), file=answers, flush=True)

  # Both sides tune it, before their libraries start threads.
  allocator.tune()
  function, kwargs = json.loads(questions.readline())
  module, _, name = function.partition(':')
  measure = getattr(importlib.import_module(module), name)(**kwargs)
  answer(None)
  for _ in questions:
    answer(float(measure()))


if __name__ == '__main__':
  sys.exit(main())
