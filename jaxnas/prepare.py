"""Download data sets and benchmarks, and write them as jaxnas reads them.

  python -m jaxnas.prepare cifar10 --dir D          then: --data.dir D
  python -m jaxnas.prepare nas_bench_macro --dir D  then: --table D/FILE

Nothing stands under its final name before it is complete. The public downloads:
not run; the tests prepare archives of the same format from a local server.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from jaxnas import cli

# The functions import jaxnas.data, and so JAX, late: --help answers at once.


class Source(NamedTuple):
  """A public file and what it is known by."""

  url: str
  sha256: str


CIFAR10 = Source(
  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
  'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)
NAS_BENCH_MACRO = Source(
  'https://raw.githubusercontent.com/xiusu/NAS-Bench-Macro/master/data/'
  'nas-bench-macro_cifar10.json',
  '686dee8363cc21cca8c1f321ad5749454f2d9b9ca5972682e137e539bc522297',
)


class Prepared(NamedTuple):
  """What is ready to use."""

  path: Path
  made: bool
  """False where it was there already, and was left alone."""


def cifar10(
  dir: Path | str, url: str = CIFAR10.url, sha256: str = CIFAR10.sha256
) -> Prepared:
  """Writes DIR/cifar10/3.0.2, an ArrayRecord data set that tfds reads too.

  Args:
    dir: the folder for `data.load('cifar10', dir)`.
    url: of the official binary archive or a copy; http, https or file.
    sha256: of that archive, where it is not a copy of the official one.

  Raises:
    OSError: the download or the disk failed.
    ValueError: the archive, or what stands in its place, is not as it must be.
  """
  from jaxnas.data import cifar, download

  final = Path(dir) / 'cifar10' / cifar.VERSION
  shards = [
    f'cifar10-{split}.array_record-00000-of-00001' for split in cifar.MEMBERS
  ]
  if final.exists():
    if all((final / n).is_file() for n in (*shards, 'dataset_info.json')):
      return Prepared(final, made=False)
    raise ValueError(
      f'{final} is in the way and no complete ArrayRecord set: move it away.'
    )
  with _scratch(final.parent) as scratch:
    archive = scratch / 'cifar-10-binary.tar.gz'
    download.fetch(url, sha256, archive)
    complete = scratch / 'complete'
    complete.mkdir()
    cifar.write_tfds(complete, cifar.read_archive(archive))
    final.parent.mkdir(parents=True, exist_ok=True)
    os.rename(complete, final)
  return Prepared(final, made=True)


def nas_bench_macro(
  dir: Path | str,
  url: str = NAS_BENCH_MACRO.url,
  sha256: str = NAS_BENCH_MACRO.sha256,
) -> Prepared:
  """Fetches the benchmark's table (Su et al. 2021) into DIR.

  Arguments and errors are those of `cifar10`.
  """
  from jaxnas.data import download

  final = Path(dir) / 'nas-bench-macro_cifar10.json'
  if final.exists():
    if download.sha256_of(final) == sha256.lower():
      return Prepared(final, made=False)
    raise ValueError(
      f'{final} is in the way and has another sha256: move it away.'
    )
  with _scratch(final.parent) as scratch:
    complete = scratch / final.name
    download.fetch(url, sha256, complete)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.rename(complete, final)
  return Prepared(final, made=True)


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
  """A folder that goes again, on the same disk, so that renaming is atomic.

  It stands in the nearest parent that exists: a failure leaves no folders.
  """
  parent = parent.absolute()
  there = next(path for path in (parent, *parent.parents) if path.exists())
  with tempfile.TemporaryDirectory(prefix='.jaxnas-', dir=there) as name:
    yield Path(name)


@dataclasses.dataclass(frozen=True)
class Prepare:
  """The flags."""

  dataset: tyro.conf.Positional[Literal['cifar10', 'nas_bench_macro']]
  """What to prepare."""
  dir: Path
  """The folder to write to."""
  url: str | None = None
  """Where to fetch it instead of the official place; file:// is fine."""
  sha256: str | None = None
  """Of the file at --url, where it is not a copy of the official one."""


PREPARERS: dict[str, tuple[Callable[..., Prepared], Source]] = {
  'cifar10': (cifar10, CIFAR10),
  'nas_bench_macro': (nas_bench_macro, NAS_BENCH_MACRO),
}


def main(argv: Sequence[str] | None = None) -> None:
  args = tyro.cli(
    Prepare,
    prog='python -m jaxnas.prepare',
    args=argv,
    use_underscores=True,
    description=__doc__,
  )
  prepare, source = PREPARERS[args.dataset]
  given = {'url': args.url, 'sha256': args.sha256}
  source = source._replace(**{k: v for k, v in given.items() if v is not None})
  with _stoppable():
    from jaxnas.data import download

    with cli.usage_errors():
      download.check(*source)
    try:
      path, made = prepare(args.dir, *source)
    except (OSError, ValueError) as error:
      print(f'error: {error}', file=sys.stderr)
      raise SystemExit(1) from error
  print(f'{path}: {"written" if made else "there already, left alone"}')


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
  """SIGTERM becomes an exception, as SIGINT is: the scratch folder goes."""
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    yield
  except KeyboardInterrupt:
    print('stopped, nothing written', file=sys.stderr)
    raise SystemExit(cli.STOPPED) from None
  finally:
    signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
  main()
