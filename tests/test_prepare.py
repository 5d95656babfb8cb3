import contextlib
import functools
import hashlib
import http.server
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxnas import data, prepare
from jaxnas.data import cifar, preparation
from jaxnas.data.cifar_records import write_tfds
from jaxnas.runtime import loading
from jaxnas.truth import preparation as tables

TRAIN = [f'cifar-10-batches-bin/data_batch_{i}.bin' for i in (1, 2, 3, 4, 5)]
TEST = 'cifar-10-batches-bin/test_batch.bin'
NAMES = 'cifar-10-batches-bin/batches.meta.txt'
TRAIN_100 = ['cifar-100-binary/train.bin']
TEST_100 = 'cifar-100-binary/test.bin'
CLASSES = [
  'airplane',
  'automobile',
  'bird',
  'cat',
  'deer',
  'dog',
  'frog',
  'horse',
  'ship',
  'truck',
]


def records(count, *classes):
  """Labels, then three planes of pixels."""
  rng = np.random.default_rng(sum(classes))
  out = rng.integers(0, 256, (count, len(classes) + 3072), np.uint8)
  for column, values in enumerate(classes):
    out[:, column] %= values
  return out


def batches(count=3):
  """Content of each member of CIFAR-10's archive."""
  everything = records(6 * count, 10).reshape(6, count, -1)
  # No test image is of a class that is not trained.
  everything[-1, :, 0] = everything[0, :, 0]
  return {
    **dict(zip((*TRAIN, TEST), everything, strict=True)),
    # The official one ends so.
    NAMES: '\n'.join([*CLASSES, '', '']).encode(),
  }


def batches_100():
  """Content of each member of CIFAR-100's archive."""
  names = lambda word, count: ''.join(  # noqa: E731
    f'{word}_{i}\n' for i in range(count)
  )
  everything = records(20, 20, 100)
  everything[15:, :2] = everything[:5, :2]
  return {
    TRAIN_100[0]: everything[:15],
    TEST_100: everything[15:],
    'cifar-100-binary/coarse_label_names.txt': names('coarse', 20).encode(),
    'cifar-100-binary/fine_label_names.txt': names('fine', 100).encode(),
  }


def write_archive(file, members, *, extra=()):
  with tarfile.open(file, 'w:gz') as tar:
    for info in extra:
      tar.addfile(info)
    # Backwards: the official archive has them in no order either.
    for name, records in reversed(members.items()):
      content = (
        bytes(records) if isinstance(records, bytes) else (records.tobytes())
      )
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path):
  file = tmp_path / 'cifar.tar.gz'
  return file.as_uri(), write_archive(file, batches())


@pytest.fixture
def archive_100(tmp_path):
  file = tmp_path / 'cifar.tar.gz'
  return file.as_uri(), write_archive(file, batches_100())


@contextlib.contextmanager
def server(handler):
  served = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  thread = threading.Thread(target=served.serve_forever, daemon=True)
  thread.start()
  try:
    yield f'http://127.0.0.1:{served.server_address[1]}'
  finally:
    served.shutdown()
    served.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *args):
    pass


def expected(members, names, labels=1):
  """Images of members, pixel by pixel, and their last label."""
  out = []
  for name in names:
    for record in members[name]:
      pixels = record[labels:]
      image = np.empty((32, 32, 3), np.uint8)
      for channel in range(3):
        plane = pixels[1024 * channel : 1024 * (channel + 1)]
        for row in range(32):
          image[row, :, channel] = plane[32 * row : 32 * (row + 1)]
      out.append((image, record[labels - 1]))
  return [np.array(values) for values in zip(*out, strict=True)]


def failure(capsys, argv, code):
  """The one line that a failing command prints."""
  with pytest.raises(SystemExit) as caught:
    prepare.main(argv)
  assert caught.value.code == code
  out, err = capsys.readouterr()
  lines = [line for line in err.splitlines() if line.strip()]
  assert out == '' and len(lines) == 1
  return lines[0]


def test_archive_over_http_becomes_what_load_reads(tmp_path, archive, capsys):
  folder = tmp_path / 'new' / 'D'
  handler = functools.partial(Quiet, directory=str(tmp_path))
  with server(handler) as url:
    argv = ['cifar10', '--dir', str(folder), '--url', f'{url}/cifar.tar.gz']
    prepare.main([*argv, '--sha256', archive[1]])
  assert capsys.readouterr().out == f'{folder}/cifar10/3.0.2: written\n'
  images = data.load('cifar10', str(folder))
  for names, x, y in (
    (TRAIN, images.x_train, images.y_train),
    ([TEST], images.x_test, images.y_test),
  ):
    expected_x, expected_y = expected(batches(), names)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)


def test_cifar100_becomes_what_load_reads(tmp_path, archive_100, capsys):
  folder = tmp_path / 'D'
  argv = ['cifar100', '--dir', str(folder), '--url', archive_100[0]]
  prepare.main([*argv, '--sha256', archive_100[1]])
  assert capsys.readouterr().out == f'{folder}/cifar100/3.0.2: written\n'
  images = data.load('cifar100', str(folder))
  assert images.classes == 100
  np.testing.assert_array_equal(images.mean_C, [0.5071, 0.4865, 0.4409])
  np.testing.assert_array_equal(images.std_C, [0.2673, 0.2564, 0.2762])
  for names, x, y in (
    (TRAIN_100, images.x_train, images.y_train),
    ([TEST_100], images.x_test, images.y_test),
  ):
    expected_x, expected_y = expected(batches_100(), names, 2)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)
  with pytest.raises(FileNotFoundError, match=r'prepare cifar10 --dir .*/D m'):
    data.load('cifar10', str(folder))


def test_tfds_reads_it_by_name(tmp_path, archive):
  preparation.cifar10(tmp_path / 'D', *archive)
  builder = tfds.builder('cifar10', data_dir=tmp_path / 'D')
  assert builder.info.splits['train'].num_examples == 15
  assert builder.info.features['label'].names == CLASSES
  record = builder.as_data_source('test')[1]
  images, labels = expected(batches(), [TEST])
  np.testing.assert_array_equal(record['image'], images[1])
  assert record['label'] == labels[1] and record['id'] == b'test_00001'


def test_tfds_reads_cifar100_by_name(tmp_path, archive_100):
  preparation.cifar100(tmp_path / 'D', *archive_100)
  # The features of tfds' own class, with the names that are in the folder.
  builder = tfds.builder('cifar100', data_dir=tmp_path / 'D')
  assert builder.info.splits['train'].num_examples == 15
  assert builder.info.features['label'].names[99] == 'fine_99'
  assert builder.info.features['coarse_label'].names[19] == 'coarse_19'
  record = builder.as_data_source('test')[1]
  coarse, fine = batches_100()[TEST_100][1, :2]
  assert record['coarse_label'] == coarse and record['label'] == fine


def test_layout_is_that_of_tfds(data_folder, tmp_path, archive):
  ours = preparation.cifar10(tmp_path / 'D', *archive).path
  theirs = data_folder / 'tfds' / 'cifar10' / '3.0.2'
  names = [path.name for path in sorted(theirs.iterdir())]
  assert [path.name for path in sorted(ours.iterdir())] == names
  for name in ('features.json', 'label.labels.txt'):
    assert (ours / name).read_text() == (theirs / name).read_text()
  read = lambda folder: json.loads(  # noqa: E731
    (folder / 'dataset_info.json').read_text()
  )
  drop = {'description', 'citation', 'moduleName', 'splits', 'location'}
  assert read(ours).keys() == read(theirs).keys()
  assert {k: v for k, v in read(ours).items() if k not in drop} == {
    k: v for k, v in read(theirs).items() if k not in drop
  }
  for a, b in zip(read(ours)['splits'], read(theirs)['splits'], strict=True):
    assert a.keys() == b.keys() and a['name'] == b['name']


def test_complete_data_is_left_alone(tmp_path, archive, capsys):
  path, made = preparation.cifar10(tmp_path / 'D', *archive)
  assert made
  before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
  # Not even the archive is looked at.
  prepare.main(['cifar10', '--dir', str(tmp_path / 'D'), '--url', 'file:///no'])
  assert capsys.readouterr().out.endswith('there already, left alone\n')
  assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_incomplete_data_is_not_overwritten(tmp_path, archive):
  path, _ = preparation.cifar10(tmp_path / 'D', *archive)
  (path / 'cifar10-test.array_record-00000-of-00001').unlink()
  with pytest.raises(ValueError, match=r'3\.0\.2 is in the way .* move it'):
    preparation.cifar10(tmp_path / 'D', *archive)


def test_another_sha256_leaves_nothing_behind(tmp_path, archive, capsys):
  folder = tmp_path / 'D'
  argv = ['cifar10', '--dir', str(folder), '--url', archive[0]]
  line = failure(capsys, argv, 1)
  assert f'has sha256 {archive[1]}, not {preparation.CIFAR10.sha256}' in line
  assert [path.name for path in tmp_path.iterdir()] == ['cifar.tar.gz']


def test_a_download_cut_short_leaves_nothing_behind(tmp_path, capsys):
  class Short(Quiet):
    def do_GET(self):
      self.send_response(200)
      self.send_header('Content-Length', '5000')
      self.end_headers()
      self.wfile.write(b'x' * 1200)

  with server(Short) as url:
    argv = ['cifar10', '--dir', str(tmp_path / 'D'), '--url', f'{url}/c.tar.gz']
    line = failure(capsys, argv, 1)
  assert 'cut short: 1,200 of 5,000 bytes' in line
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('where', ['http://127.0.0.1:9/c.gz', 'file:///no.gz'])
def test_an_address_without_a_file_is_reported(where, tmp_path, capsys):
  argv = ['cifar10', '--dir', str(tmp_path / 'D'), '--url', where]
  assert f'{where} could not be fetched' in failure(capsys, argv, 1)
  assert list(tmp_path.iterdir()) == []


def without_test(members):
  del members[TEST]


def cut_record(members):
  members[TEST] = members[TEST].tobytes()[:-1]


def empty(members):
  members[TEST] = b''


def label_10(members):
  members[TEST][2, 0] = 10


def nine_names(members):
  members[NAMES] = '\n'.join(CLASSES[:9]).encode()


def without_names(members):
  del members[NAMES]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (without_test, f'lacks {TEST}'),
    (cut_record, f'{TEST} has 9,218 bytes; it must have 3,073 an image'),
    (empty, f'{TEST} has 0 bytes'),
    (label_10, f'{TEST}: image 2 has label 10; labels are 0 to 9'),
    (nine_names, f'{NAMES} has 9 names; it must have 10'),
    (without_names, f'lacks {NAMES}'),
  ],
)
def test_archives_of_another_format_are_refused(
  change, message, tmp_path, capsys
):
  file = tmp_path / 'cifar.tar.gz'
  members = batches()
  change(members)
  sha256 = write_archive(file, members)
  argv = ['cifar10', '--dir', str(tmp_path / 'D'), '--url', file.as_uri()]
  assert message in failure(capsys, [*argv, '--sha256', sha256], 1)
  assert list(tmp_path.iterdir()) == [file]


def coarse_20(members):
  members[TEST_100][2, 0] = 20


def fine_100(members):
  members[TEST_100][4, 1] = 100


def one_label(members):
  members[TEST_100] = records(2, 10)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (coarse_20, 'image 2 has coarse_label 20; coarse_labels are 0 to 19'),
    (fine_100, 'image 4 has label 100; labels are 0 to 99'),
    (one_label, 'test.bin has 6,146 bytes; it must have 3,074 an image'),
  ],
)
def test_archives_that_are_no_cifar100_are_refused(change, message, tmp_path):
  file = tmp_path / 'cifar.tar.gz'
  members = batches_100()
  change(members)
  sha256 = write_archive(file, members)
  with pytest.raises(ValueError, match=message):
    preparation.cifar100(tmp_path / 'D', file.as_uri(), sha256)
  assert list(tmp_path.iterdir()) == [file]


def test_a_cut_archive_is_refused(tmp_path):
  file = tmp_path / 'cifar.tar.gz'
  write_archive(file, batches())
  for content in (file.read_bytes()[:-3000], b'no archive'):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r'is no whole tar\.gz'):
      cifar.read_archive(file, cifar.CIFAR10)


def test_a_disk_that_does_not_take_the_records_is_an_oserror(tmp_path):
  images = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 1), np.int32)
  content = cifar.Content({'train': images}, (tuple(CLASSES),))
  with pytest.raises(OSError, match=r'array_record.* could not be written'):
    write_tfds(tmp_path / 'missing', cifar.CIFAR10, content)


def test_links_and_strangers_in_an_archive_are_not_followed(tmp_path):
  secret = tmp_path / 'secret'
  secret.write_bytes(bytes(3073))
  link = tarfile.TarInfo(TEST)
  link.type, link.linkname = tarfile.SYMTYPE, str(secret)
  stranger = tarfile.TarInfo('../../stranger')
  file = tmp_path / 'cifar.tar.gz'
  members = batches()
  del members[TEST]
  sha256 = write_archive(file, members, extra=[link, stranger])
  with pytest.raises(ValueError, match=f'lacks {TEST}'):
    preparation.cifar10(tmp_path / 'a' / 'b' / 'D', file.as_uri(), sha256)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'cifar.tar.gz',
    'secret',
  ]


def test_nas_bench_macro(tmp_path, capsys):
  file = tmp_path / 'table.json'
  file.write_text('{"00000000": {}}')
  sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
  argv = ['nas_bench_macro', '--dir', str(tmp_path / 'D')]
  argv += ['--url', file.as_uri()]
  assert 'has sha256' in failure(capsys, argv, 1)
  assert not (tmp_path / 'D').exists()
  prepare.main([*argv, '--sha256', sha256.upper()])
  final = tmp_path / 'D' / 'nas-bench-macro_cifar10.json'
  assert final.read_bytes() == file.read_bytes()
  assert [path.name for path in final.parent.iterdir()] == [final.name]
  prepare.main([*argv, '--sha256', sha256])
  assert capsys.readouterr().out == (
    f'{final}: written\n{final}: there already, left alone\n'
  )
  assert 'is in the way and has another sha256' in failure(capsys, argv, 1)


def test_every_name_is_prepared():
  names = typing.get_args(typing.get_type_hints(prepare.Prepare)['dataset'])
  prepared = [
    *preparation.DOWNLOADS,
    *preparation.CONVERSIONS,
    *tables.DOWNLOADS,
    *tables.CONVERSIONS,
  ]
  assert sorted(names) == sorted(prepared)


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_checksums_are_the_published_ones(name):
  known = Path(tfds.__file__).parent / 'url_checksums' / f'{name}.txt'
  assert known.read_text().split()[::2][:2] == list(
    preparation.DOWNLOADS[name][1]
  )


def test_checksum_of_nas_bench_macro_is_that_of_the_file(benchmark_file):
  digest = hashlib.sha256(benchmark_file.read_bytes()).hexdigest()
  assert digest == tables.NAS_BENCH_MACRO.sha256


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--url', 'ftp://x/c.gz'], "url 'ftp://x/c.gz' must start with one of"),
    (['--url', ''], "url '' must start with one of"),
    (['--sha256', 'abc'], "sha256 'abc' must be 64 hexadecimal digits"),
    (['--from', '.'], 'cifar10 is downloaded and does not use --from'),
    (['--trust_pickle'], 'does not use --trust_pickle: leave it out'),
  ],
)
def test_wrong_usage_ends_with_2(flags, message, tmp_path, capsys):
  argv = ['cifar10', '--dir', str(tmp_path / 'D'), *flags]
  assert message in failure(capsys, argv, 2)


def test_an_unknown_data_set_ends_with_2(tmp_path):
  with pytest.raises(SystemExit) as caught:
    prepare.main(['cifar', '--dir', str(tmp_path)])
  assert caught.value.code == 2


def test_help_imports_no_jax():
  code = (
    'import sys\n'
    'from jaxnas import prepare\n'
    'try: prepare.main(["--help"])\n'
    'except SystemExit as end: print("exit", end.code)\n'
    'print("jax" in sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert '--sha256' in done.stdout and '--from' in done.stdout
  assert done.stdout.endswith('exit 0\nFalse\n')


def test_sigterm_leaves_nothing_behind(tmp_path):
  begun, end = threading.Event(), threading.Event()

  class Stalling(Quiet):
    def do_GET(self):
      self.send_response(200)
      self.send_header('Content-Length', '5000')
      self.end_headers()
      self.wfile.write(b'x' * 1200)
      begun.set()
      end.wait(30)

  with server(Stalling) as url:
    argv = ['cifar10', '--dir', str(tmp_path / 'D'), '--url', f'{url}/c.tar.gz']
    process = subprocess.Popen(
      [sys.executable, '-m', 'jaxnas.prepare', *argv], stderr=subprocess.PIPE
    )
    assert begun.wait(60)
    while not list(tmp_path.rglob('.jaxnas-*/*')) and process.poll() is None:
      time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=30)[1]
    end.set()
  assert process.returncode == 143
  # On a slow machine it has said before that it loads.
  said = error.decode().removeprefix(loading.SAYS)
  assert said == 'stopped, nothing written\n'
  assert list(tmp_path.iterdir()) == []
