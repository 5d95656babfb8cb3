"""Keeps a script from running again in the processes that it starts."""

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType


def check_main() -> None:
  """Raises ValueError where worker processes would run a script again.

  A worker imports the script that starts it. What a script calls outside of
  `if __name__ == '__main__':` is called in each worker then, which Python
  refuses with many lines, of all of them.
  """
  main = sys.modules.get('__main__')
  file = getattr(main, '__file__', None)
  if file is None or multiprocessing.parent_process() is not None:
    return
  frame: FrameType | None = sys._getframe()
  while frame is not None:
    of_script = frame.f_globals is vars(main)
    if of_script and frame.f_code.co_name == '<module>':
      if not _is_guarded(Path(file), frame.f_lineno):
        raise ValueError(
          f'line {frame.f_lineno} of {file} starts worker processes, which '
          "import that file: put the line below if __name__ == '__main__':, or "
          'set data.workers to 0.'
        )
      return
    frame = frame.f_back


def _is_guarded(file: Path, line: int) -> bool:
  """Returns True where the line of a script is not run when it is imported.

  What is no readable Python is taken to be so.
  """
  try:
    tree = ast.parse(file.read_bytes())
  except (OSError, SyntaxError, ValueError):
    return True
  return any(
    isinstance(node, ast.If)
    and node.lineno <= line <= (node.end_lineno or node.lineno)
    and any(
      isinstance(part, ast.Name) and part.id == '__name__'
      for part in ast.walk(node.test)
    )
    for node in ast.walk(tree)
  )
