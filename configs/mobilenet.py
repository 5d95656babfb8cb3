"""The MobileNet space of 13^21 architectures on ImageNet, the paper's settings.

It trains 120 epochs at batch 512, with SGD and momentum from 0.1 along a
cosine, in bfloat16 on accelerators. Customary, not in the paper: 50 training
images of each class are held out to rank on, label smoothing is 0.1, and a
decay of 4e-5 applies to weights only. So large a space can't be listed:
densities come from prototypes of 500 architectures (inferred, as are 20
of the 120 epochs as warm-up), and 1,000 architectures drawn with a fixed seed
are ranked on 5,000 of the held-out images.

Command: python -m jaxnas.train --config mobilenet.py --data.dir DIR
  with DIR/train/CLASS/FILE and DIR/val/CLASS/FILE, or tfds ArrayRecords
Hardware and time: not yet measured (meant for several GPUs or TPUs)
Result: not yet measured; no ground truth of these architectures is published
"""

from jaxnas.config import Config, Data, Debias, Optimizer, Ranking


def get_config() -> Config:
  return Config(
    space='mobilenet',
    data=Data(
      name='imagenet',
      train_fraction=None,
      holdout=50,
      batch_size=512,
      flip=True,
      workers=16,
    ),
    warmup_epochs=20,
    epochs=100,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(
      peak_lr=0.1,
      weight_decay=4e-5,
      decay='weights',
      label_smoothing=0.1,
    ),
    ranking=Ranking(images=5000, archs=1000, batch_size=250),
  )
