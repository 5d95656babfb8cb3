"""A share of a list of tasks, one after the other: `LIST SHARE SHARES`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jaxnas.many import local, tasks
from jaxnas.many.tasks import Ended
from jaxnas.runtime import errors, files, signals, streams


def main(argv: Sequence[str] | None = None) -> int:
  """Does every SHARES-th task; returns 1 where some failed."""
  name, share, shares = sys.argv[1:] if argv is None else argv
  with errors.usage_errors():
    if not Path(name).exists():
      raise ValueError(tasks.not_shared(Path(name)))
    work = tasks.from_json(files.read_json(Path(name), tasks.KIND))
    if problem := tasks.unseen(work):
      raise ValueError(problem)
  work = work._replace(tasks=work.tasks[int(share) :: int(shares)])
  asked: list[int] = []
  failed: list[str] = []

  def tell(ended: Ended) -> None:
    print(f'{ended.task.name}: {ended.state} {ended.line}', flush=True)
    if ended.state == 'failed':
      failed.append(ended.task.name)

  with signals.handled(lambda number, frame: asked.append(number)):
    local.run(work, tell, lambda: bool(asked))
  if asked:
    return errors.code_of_stop()
  return 1 if failed else 0


if __name__ == '__main__':
  streams.run(main)
