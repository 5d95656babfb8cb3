"""Data sets of images, downloaded or converted to what `data.load` reads.

A function leaves alone what is there already, and puts nothing under its final
name before it is complete. The public downloads and the real batches: not run;
the tests prepare archives and pickles of the same format.
"""

from collections.abc import Callable
from pathlib import Path

from jaxnas.data import cifar, cifar_records, imagenet16, npz
from jaxnas.runtime import download, pickles
from jaxnas.runtime.download import Source
from jaxnas.runtime.once import Conversion, Prepared, npz_once, once

CIFAR10 = Source(
  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
  'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
)
CIFAR100 = Source(
  'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
  '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
)


def cifar10(
  dir: Path | str, url: str = CIFAR10.url, sha256: str = CIFAR10.sha256
) -> Prepared:
  """Writes DIR/cifar10/3.0.2, an ArrayRecord data set that tfds reads too.

  Args:
    dir: the folder for `data.load('cifar10', dir)`.
    url: the address of the official binary archive or a copy; http, https or
      file.
    sha256: the archive's, where it is not a copy of the official one.

  Raises:
    OSError: the download or the disk failed.
    ValueError: the archive, or what stands in the data set's place, is not as
      it must be.
  """
  return _cifar('cifar10', dir, url, sha256)


def cifar100(
  dir: Path | str, url: str = CIFAR100.url, sha256: str = CIFAR100.sha256
) -> Prepared:
  """Writes DIR/cifar100/3.0.2; arguments and errors are those of `cifar10`."""
  return _cifar('cifar100', dir, url, sha256)


def _cifar(name: str, dir: Path | str, url: str, sha256: str) -> Prepared:
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


def imagenet16_120(
  dir: Path | str, source: Path | str, *, trust_pickle: bool
) -> Prepared:
  """Writes DIR/imagenet16_120.npz.

  Args:
    dir: the folder for `data.load('imagenet16_120', dir)`.
    source: the folder with train_data_batch_1 to _10 and val_data.
    trust_pickle: must be true, since a pickle can run code.

  Raises:
    OSError: a batch is missing, or the disk failed.
    ValueError: a batch, or what stands in the npz's place, is not as it must
      be.
  """
  source = Path(source)
  pickles.check_trusted(source, trust_pickle)
  return npz_once(
    Path(dir) / imagenet16.FILE, npz.ARRAYS, lambda: imagenet16.read(source)
  )


# Each name, with the function that prepares it and the file that it fetches.
DOWNLOADS: dict[str, tuple[Callable[..., Prepared], Source]] = {
  'cifar10': (cifar10, CIFAR10),
  'cifar100': (cifar100, CIFAR100),
}
CONVERSIONS = {
  'imagenet16_120': Conversion(
    imagenet16_120, imagenet16.FILE, imagenet16.find, imagenet16.TAKEN
  )
}
