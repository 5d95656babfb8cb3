"""Download or convert data sets and benchmarks to what jaxnas reads.

  python -m jaxnas.prepare cifar10 --dir D          then: --data.dir D
  python -m jaxnas.prepare cifar100 --dir D         then: --data.dir D
  python -m jaxnas.prepare nas_bench_macro --dir D  then: --table D/FILE

What has no public address, or only as pickles, is converted from --from:

  imagenet16_120  the folder with ImageNet's batches at 16x16
                  (train_data_batch_1 to _10, val_data); then: --data.dir D
  nas_bench_201   NATS-tss-v1_0-3ffb9.pickle.pbz2, or the folder
                  NATS-tss-v1_0-3ffb9-simple; then: --table D/FILE

Nothing stands under its final name before it is complete. The public downloads,
the real batches and the real single file: not run; the tests prepare archives
and pickles of the same format.
"""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from jaxnas import cli, runs
from jaxnas.prepared import Prepared, npz_once, once

# The functions import jaxnas.data, and so JAX, late: --help answers at once.


class Source(NamedTuple):
  """A public file and what it is known by."""

  url: str
  sha256: str


CIFAR10 = Source(
  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
  'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)
CIFAR100 = Source(
  'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
  '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
)
NAS_BENCH_MACRO = Source(
  'https://raw.githubusercontent.com/xiusu/NAS-Bench-Macro/master/data/'
  'nas-bench-macro_cifar10.json',
  '686dee8363cc21cca8c1f321ad5749454f2d9b9ca5972682e137e539bc522297',
)


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
  return _cifar('cifar10', dir, url, sha256)


def cifar100(
  dir: Path | str, url: str = CIFAR100.url, sha256: str = CIFAR100.sha256
) -> Prepared:
  """Writes DIR/cifar100/3.0.2, as `cifar10` does."""
  return _cifar('cifar100', dir, url, sha256)


def _cifar(name: str, dir: Path | str, url: str, sha256: str) -> Prepared:
  from jaxnas.data import cifar, cifar_records, download

  kind = cifar.KINDS[name]
  final = Path(dir) / name / cifar_records.VERSION
  files = [f'{name}-{s}.array_record-00000-of-00001' for s in kind.files]
  files.append('dataset_info.json')

  def write(complete: Path, scratch: Path) -> None:
    archive = scratch / 'archive.tar.gz'
    download.fetch(url, sha256, archive)
    complete.mkdir()
    cifar_records.write_tfds(complete, kind, cifar.read_archive(archive, kind))

  return once(
    final,
    write,
    whole=lambda: all((final / file).is_file() for file in files),
    otherwise='no complete ArrayRecord set',
  )


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
  return once(
    final,
    lambda complete, _: download.fetch(url, sha256, complete),
    whole=lambda: download.sha256_of(final) == sha256.lower(),
    otherwise='has another sha256',
  )


def imagenet16_120(
  dir: Path | str, source: Path | str, *, trust_pickle: bool
) -> Prepared:
  """Writes DIR/imagenet16_120.npz.

  Args:
    dir: the folder for `data.load('imagenet16_120', dir)`.
    source: the folder with train_data_batch_1 to _10 and val_data.
    trust_pickle: must be true: a pickle can run code.

  Raises:
    OSError: a batch is missing, or the disk failed.
    ValueError: a batch, or what stands in the npz's place, is not as it must
      be.
  """
  from jaxnas.data import imagenet16, images

  source = Path(source)
  _check_source(source, trust_pickle)
  return npz_once(
    Path(dir) / imagenet16.FILE, images.ARRAYS, lambda: imagenet16.read(source)
  )


def nas_bench_201(
  dir: Path | str, source: Path | str, *, trust_pickle: bool
) -> Prepared:
  """Writes DIR/nas_bench_201.npz, a table: see `tables.nats.read`.

  Arguments and errors are those of `imagenet16_120`, but for the source: the
  file NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder
  NATS-tss-v1_0-3ffb9-simple.
  """
  from jaxnas import spaces
  from jaxnas.tables import files, nats

  source = Path(source)
  _check_source(source, trust_pickle)
  return npz_once(
    Path(dir) / 'nas_bench_201.npz',
    ('ops', 'op_names', *files.COLUMNS.values()),
    lambda: nats.read(source, spaces.get('nas_bench_201')),
  )


def _check_source(source: Path, trust_pickle: bool) -> None:
  if not source.exists():
    raise FileNotFoundError(f'--from {source} does not exist.')
  if not trust_pickle:
    raise ValueError(
      f'{source} is read as pickles, and a pickle can run code: add '
      '--trust_pickle, for files that you trust only.'
    )


# By name, what prepares it and where it comes from.
DOWNLOADS: dict[str, tuple[Callable[..., Prepared], Source]] = {
  'cifar10': (cifar10, CIFAR10),
  'cifar100': (cifar100, CIFAR100),
  'nas_bench_macro': (nas_bench_macro, NAS_BENCH_MACRO),
}
CONVERSIONS: dict[str, tuple[Callable[..., Prepared], str]] = {
  'imagenet16_120': (
    imagenet16_120,
    'the folder with train_data_batch_1 to _10 and val_data',
  ),
  'nas_bench_201': (
    nas_bench_201,
    'NATS-tss-v1_0-3ffb9.pickle.pbz2 or the folder NATS-tss-v1_0-3ffb9-simple',
  ),
}


@dataclasses.dataclass(frozen=True)
class Prepare:
  """The flags."""

  dataset: tyro.conf.Positional[
    Literal[
      'cifar10',
      'cifar100',
      'imagenet16_120',
      'nas_bench_macro',
      'nas_bench_201',
    ]
  ]
  """What to prepare."""
  dir: Path
  """The folder to write to."""
  url: str | None = None
  """Where to fetch it instead of the official place; file:// is fine."""
  sha256: str | None = None
  """Of the file at --url, where it is not a copy of the official one."""
  from_: Annotated[Path | None, tyro.conf.arg(name='from')] = None
  """What to convert, for imagenet16_120 and nas_bench_201."""
  trust_pickle: tyro.conf.FlagCreatePairsOff[bool] = False
  """Read it, though a pickle can run code: only files that you trust."""


def main(argv: Sequence[str] | None = None) -> None:
  args = cli.read(
    Prepare, argv, prog='python -m jaxnas.prepare', description=__doc__
  )
  with _stoppable():
    with cli.usage_errors():
      prepare = _chosen(args)
    try:
      path, made = prepare()
    except (OSError, ValueError) as error:
      print(f'error: {error}', file=sys.stderr)
      raise SystemExit(1) from error
  print(f'{path}: {"written" if made else "there already, left alone"}')


def _chosen(args: Prepare) -> Callable[[], Prepared]:
  """Raises ValueError or FileNotFoundError for flags that can't be."""
  name = args.dataset
  runs.check_folder(args.dir, '--dir')
  unused = (
    {'--from': args.from_ is not None, '--trust_pickle': args.trust_pickle}
    if name in DOWNLOADS
    else {'--url': args.url is not None, '--sha256': args.sha256 is not None}
  )
  for flag, given in unused.items():
    if given:
      how = 'downloaded' if name in DOWNLOADS else 'converted'
      raise ValueError(
        f'{name} is {how} and does not use {flag}: leave it out.'
      )
  if name in CONVERSIONS:
    convert, what = CONVERSIONS[name]
    if args.from_ is None:
      raise ValueError(f'{name} needs --from: {what}.')
    _check_source(args.from_, args.trust_pickle)
    return partial(
      convert, args.dir, args.from_, trust_pickle=args.trust_pickle
    )
  from jaxnas.data import download

  fetch, source = DOWNLOADS[name]
  given = {'url': args.url, 'sha256': args.sha256}
  source = source._replace(**{k: v for k, v in given.items() if v is not None})
  download.check(*source)
  return partial(fetch, args.dir, *source)


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
