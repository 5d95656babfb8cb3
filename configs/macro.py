"""NAS-Bench-Macro on CIFAR-10 with the paper's epochs.

It trains 20 warm-up epochs and 50 more, and ranks all 6,561 architectures on
the 25,000 validation images. Momentum, decay, cosine and the split are
inferred. The paper's batch of 512 and rate of 0.1 do not train this supernet,
whose normalisation has no scale and bias (inferred), also with gradients
clipped to a norm of 5: batches of 64 do, at a rate of 0.03. Mean accuracy of
100 random architectures on 1,000 validation images and mean loss of an epoch,
at the end of epochs 1 to 5 of 70, uniform, seed 0:

  batch 512, rate 0.1, clip 5, affine normalisation
    accuracy 0.157 0.218 0.236 0.227 0.299; loss 2.28 2.15 2.28 2.38 -
  batch 64, rate 0.03, clip 5 (this file)
    accuracy 0.245 0.353 0.358 0.421 0.455; loss 2.31 2.17 1.80 1.66 1.59

Command: python -m jaxnas.train --config macro.py --data.dir DIR --table FILE
Hardware and time: five epochs take 20 minutes on one core of an AMD EPYC; all
  70 and the ranking are not yet measured
Result: not yet measured; published is Kendall 0.74 debiased, 0.72 uniform
"""

from jaxnas.config import Config, Data, Debias, Optimizer, Ranking


def get_config() -> Config:
  return Config(
    space='nas_bench_macro',
    data=Data(name='cifar10', batch_size=64, crop_padding=4, flip=True),
    warmup_epochs=20,
    epochs=50,
    debias=Debias(effective_fraction=0.5),
    optimizer=Optimizer(
      peak_lr=0.03, weight_decay=5e-4, clip_norm=5.0, lr_warmup_steps=200
    ),
    ranking=Ranking(batch_size=500),
  )
