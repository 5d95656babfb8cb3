"""NAS-Bench-Macro on CIFAR-10 with the paper's schedule.

20 warm-up epochs and 50 more, batch 512, SGD at 0.1; all 6,561 architectures
are ranked on the 25,000 validation images. Momentum, decay, cosine and the
split are inferred. The first steps raise the learning rate linearly: from
PyTorch's initialisation this supernet is at the edge of divergence at 0.1.

Command: python -m jaxnas.train --config macro.py --data.dir DIR --table FILE
Hardware and time: not yet measured (meant for one GPU or TPU)
Result: not yet measured; published Kendall 0.74 debiased, 0.72 uniform
"""

from jaxnas.config import (
  Config,
  Data,
  Debias,
  Optimizer,
  Ranking,
)


def get_config() -> Config:
  return Config(
    space='nas_bench_macro',
    data=Data(name='cifar10', batch_size=512, crop_padding=4, flip=True),
    warmup_epochs=20,
    epochs=50,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(peak_lr=0.1, weight_decay=5e-4, lr_warmup_steps=200),
    ranking=Ranking(batch_size=500),
  )
