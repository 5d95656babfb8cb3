"""Paths as users write them, in flags, in config files and in notebooks."""

import os


def expanded(path: str) -> str:
  """Returns a path with the home that a leading ~ or ~name stands for.

  Raises ValueError where nobody knows that home, and for an empty path, which
  would be the folder of the process: mostly a variable that is not set.
  """
  if not path:
    raise ValueError('a path is empty: give one, or None.')
  out = os.path.expanduser(path)
  if out.startswith('~'):
    raise ValueError(
      f'{path}: nobody here knows the home of {path.partition("/")[0]}; give '
      f'the whole path, or ./{path} for what has this name.'
    )
  return out


def absolute(path: str) -> str:
  """Returns a path that means the same from any folder.

  An address, such as gs://bucket/images, is left as it is.

  Raises as `expanded`.
  """
  return path if '://' in path else os.path.abspath(expanded(path))
