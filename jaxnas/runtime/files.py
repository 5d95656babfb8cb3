"""Writes files whole or not at all, and reads them strictly.

Every file of a run is written and read here: what is written never goes through
a link, and what is read is a regular file of the size and the kinds that it may
have.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from jaxnas.runtime import (
  errors,
  kinds,
  memory,
  npz,
  places,
  seals,
  strict_json,
)

T = TypeVar('T')

# A text that is larger is none that jaxnas wrote.
LARGEST_TEXT = 2**28

# Python takes so many bytes for one of JSON, about.
EXPANSION = 10


_writes = True


def leave_writing() -> None:
  """Makes this process write nothing more: another one writes for the run."""
  global _writes
  _writes = False


def writes() -> bool:
  """Returns True in a process that writes files."""
  return _writes


# What opens a file without following a link, or waiting at a pipe.
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def whole(file: Path) -> Iterator[IO[bytes]]:
  """Yields a stream to a file beside `file`, renamed once it is complete.

  A link of that name is replaced, and what it leads to stays.

  Raises OSError naming the file, or Damaged where something stands there, or
  on the way, that no run has.
  """
  if not _writes:
    yield io.BytesIO()
    return
  places.check(file.parent)
  with contextlib.suppress(FileNotFoundError):
    mode = os.lstat(file).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
      raise errors.Damaged(f'{file} is no regular file: take it away.')
  part = places.part_of(file)
  try:
    with naming(file):
      fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, 0o666)
      with os.fdopen(fd, 'wb') as stream:
        yield stream
        stream.flush()
        # Without this a power cut could leave the name without the content.
        os.fsync(stream.fileno())
    places.check(file.parent)
    part.replace(file)
  finally:
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
  """Adds the file's name to errors of the disk, which writing leaves out."""
  try:
    yield
  except OSError as error:
    if error.filename is None and error.errno is not None:
      raise OSError(error.errno, error.strerror, str(file)) from error
    raise


def write_text(file: Path, text: str) -> None:
  """Writes a text, whole or not at all; what is no letter, with escapes."""
  with whole(file) as stream:
    stream.write(text.encode(errors='backslashreplace'))


def write_json(file: Path, value: Any) -> None:
  """Writes a JSON value, whole or not at all; `read_json` reads objects."""
  write_text(file, json.dumps(value, indent=2, allow_nan=False) + '\n')


def append(file: Path, content: bytes) -> None:
  """Adds to a file. Raises OSError naming the file, or Damaged."""
  if not _writes:
    return
  places.check(file.parent)
  flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFELY
  with naming(file), os.fdopen(os.open(file, flags, 0o666), 'ab') as stream:
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
      raise errors.Damaged(f'{file} is no regular file: take it away.')
    stream.write(content)


def write_result(
  file: Path, value: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
  """Writes a JSON object with what it was made of, sealed.

  `read_result` reads it.
  """
  write_json(file, seals.sealed({**value, seals.FACTS: dict(facts)}))


def read_bytes(file: Path, largest: int = LARGEST_TEXT) -> bytes:
  """Reads a regular file of at most so many bytes.

  Raises OSError, or ValueError where it is something else.
  """
  with opened(file) as stream:
    size = os.fstat(stream.fileno()).st_size
    if size > largest:
      raise ValueError(f'it has {size / 1e9:.3g} GB')
    memory.check(EXPANSION * size)
    return stream.read(largest + 1)


@contextlib.contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
  """Yields a regular file to read. Raises OSError, or ValueError for others."""
  # Without this a pipe would be waited at.
  fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  mode = os.fstat(fd).st_mode
  if not stat.S_ISREG(mode):
    os.close(fd)
    if stat.S_ISDIR(mode):
      raise IsADirectoryError(errno.EISDIR, 'Is a directory', str(file))
    raise ValueError('it is no regular file')
  with os.fdopen(fd, 'rb') as stream:
    yield stream


def digest(file: Path) -> str:
  """Returns a digest of a file's content.

  Raises as `opened`, and ValueError for one that is larger than memory.
  """
  found = hashlib.sha256()
  with opened(file) as stream:
    memory.check(os.fstat(stream.fileno()).st_size)
    while part := stream.read(2**20):
      found.update(part)
  return found.hexdigest()


def read_json(file: Path, kind: Mapping[str, Any]) -> dict[str, Any]:
  """Reads a JSON object of a kind of `runtime.kinds`.

  Raises FileNotFoundError, or Damaged where the file holds something else.
  """
  return parsed(file, lambda content: json_object(content, kind))


def read_result(
  file: Path, kind: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads what `write_result` wrote, without what it was made of.

  Raises FileNotFoundError, or Damaged where the file changed since, is of
  another kind, or was made of something else.
  """

  def parse(content: bytes) -> dict[str, Any]:
    try:
      value = seals.opened(json_object(content, kind))
    except kinds.Lacks as error:
      raise of_another_version(f'{file} lacks {error.name}') from error
    seals.check_facts(value.pop(seals.FACTS, None), facts)
    return value

  return parsed(file, parse)


def json_object(content: bytes, kind: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the JSON object of a kind. Raises ValueError for anything else."""
  value = strict_json.loads(content)
  if not isinstance(value, dict):
    raise ValueError(f'it is {value!r:.40}, no object')
  kinds.check_json(value, kind)
  return value


def parsed(file: Path, parse: Callable[[bytes], T]) -> T:
  """Returns the result of `parse` on a file's content.

  Raises FileNotFoundError, and Damaged where `parse` raises that or ValueError
  or the file is larger than memory.
  """
  try:
    return parse(read_bytes(file))
  except FileNotFoundError:
    raise FileNotFoundError(f'{file} does not exist.') from None
  except errors.Damaged:
    raise
  except (OSError, ValueError) as error:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    raise errors.Damaged(
      f'{file} cannot be read ({str(reason).rstrip(".")}): put back what '
      'jaxnas wrote, or give another folder.'
    ) from error


def write_npz(
  file: Path,
  arrays: Mapping[str, np.ndarray],
  facts: Mapping[str, Any] | None = None,
) -> None:
  """Writes arrays to an npz file, whole or not at all; `read_npz` reads it.

  Args:
    file: an npz file.
    arrays: by name.
    facts: JSON, what they were made of.
  """
  arrays = dict(arrays)
  if facts is not None:
    arrays[seals.FACTS] = np.array(json.dumps(facts))
  with whole(file) as stream:
    np.savez(stream, allow_pickle=False, **arrays)


def read_npz(
  file: Path,
  keys: Collection[str] | None = None,
  optional: Collection[str] = (),
) -> dict[str, np.ndarray]:
  """Reads the arrays of an npz file, or only `keys`; never unpickles.

  Of those that are `optional` it reads what there is.

  Raises FileNotFoundError, or Damaged naming the file: it lacks one of `keys`,
  is no npz, or larger than memory. Memory that runs out by itself is nobody's
  damage: that MemoryError is left as it is.
  """
  if not file.exists():
    raise FileNotFoundError(f'{file} does not exist.')
  try:
    with opened(file) as stream:
      found = npz.read(stream, None if keys is None else {*keys, *optional})
  except MemoryError:
    raise
  except memory.TooLarge as error:
    raise errors.Damaged(
      f'{file} cannot be read ({error}): put back what was written, or take a '
      'machine with more memory.'
    ) from error
  except Exception as error:
    # numpy raises many kinds of errors for damaged zip files and headers.
    raise errors.Damaged(
      f'{file} is not a readable npz without pickled objects '
      f'({errors.reason(error)}): put back what was written, or take it away.'
    ) from error
  if missing := [key for key in keys or () if key not in found]:
    raise errors.Damaged(
      f'{file} lacks {", ".join(missing)}: it is no such file, or incomplete.'
    )
  return found


def read_arrays(
  file: Path,
  kind: Mapping[str, str],
  facts: Mapping[str, Any] | None = None,
  sizes: Mapping[str, int] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Reads arrays of known types and shapes, and what they were made of.

  Args:
    file: an npz file that `write_npz` wrote.
    kind: of `kinds.check_arrays`; one whose name ends in ? may be missing.
    facts: what the file must say that they were made of.
    sizes: lengths of axes, by letter.

  Raises FileNotFoundError, or Damaged naming the file.
  """
  allowed = {name.removesuffix('?'): letters for name, letters in kind.items()}
  arrays = read_npz(file, (), optional=(*allowed, seals.FACTS))
  needed = [name for name in kind if not name.endswith('?')]
  if missing := [name for name in needed if name not in arrays]:
    lacks = f'{file} lacks {", ".join(missing)}'
    if seals.FACTS in arrays:
      raise of_another_version(lacks)
    raise errors.Damaged(f'{lacks}: it is no such file, or incomplete.')
  try:
    found = strict_json.loads(str(arrays.pop(seals.FACTS, '{}')))
    kinds.check_json(found, {})
    kinds.check_arrays(arrays, {name: allowed[name] for name in arrays}, sizes)
    seals.check_facts(found, facts or {})
  except ValueError as error:
    raise not_so(file, error) from error
  return arrays, found


def of_another_version(lacks: str) -> errors.Damaged:
  """Returns the error of a result that lacks what results now have."""
  return errors.Damaged(
    f'{lacks}: an older version of jaxnas wrote it, '
    'or it was cut. Take it away, and go on with --resume, which makes it anew '
    'or does without; or read it with that version.'
  )


def not_so(file: Path, reason: object) -> errors.Damaged:
  """Returns the error of a result that is not what it must be."""
  return errors.Damaged(
    f'{file} is not what it must be ({str(reason).rstrip(".")}): take it away, '
    'or put back what jaxnas wrote.'
  )
