"""Recipes: everything that decides how a training run goes, as plain values."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Literal

from cellvit_jax.data.augment import Augmentation
from cellvit_jax.data.sampling import Sampling
from cellvit_jax.errors import InputError
from cellvit_jax.training.objective import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over a run: a linear warm-up to `peak`, and then what `kind` says.

    "constant" stays there, and falls to zero over the last `decay_share` of the run;
    "exponential" is multiplied by `factor` after every epoch; "cosine" falls to zero at the end.
    """

    kind: Literal["constant", "exponential", "cosine"] = "constant"
    peak: float = 3e-4
    warmup_steps: int = 0
    factor: float = 0.95
    decay_share: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained, whatever the network, the data and the devices.

    A *step* looks at `batch_size` tiles with sides of `tile` pixels, on all devices together;
    `accumulate` steps make one
    update of the weights by AdamW. `steps_per_epoch` of 0 stands for as many as it takes to look at
    as many images as there are. Up to `unfreeze_epoch` the encoder keeps its weights (its tissue
    head does not), for ever where that is None. With `ema_decay` a moving average of the weights is
    kept, and used wherever the network is: it forgets its beginning sooner ("warming"), or the
    decay rises to 1 along half a cosine ("cosine"). The two rates replace those of the model's
    config, whose `drop_rate`, in MLPs and decoder, stays as it is. `dtype` is the compute type,
    parameters are float32. `attention` "cudnn" never holds the weights of all pairs of tokens, and
    is for CUDA, in bfloat16, without dropout of them; `remat` computes activations twice to hold
    fewer of them.
    """

    epochs: int
    batch_size: int
    steps_per_epoch: int = 0
    accumulate: int = 1
    tile: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    objective: Objective = field(default_factory=Objective)
    schedule: Schedule = field(default_factory=Schedule)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    ema_decay: float | None = None
    ema_schedule: Literal["warming", "cosine"] = "warming"
    unfreeze_epoch: int | None = 0
    drop_path_rate: float = 0.0
    attention_drop_rate: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "cudnn"] = "xla"
    remat: bool = False
    save_every: int = 100
    calibration_batches: int = 200  # that the final batch statistics are the mean of
    seed: int = 0

    def __post_init__(self) -> None:
        if self.attention == "cudnn" and self.attention_drop_rate:
            raise InputError(
                "cudnn attention drops none of its weights: set recipe.attention_drop_rate=0"
            )

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def over(self, images: int) -> Recipe:
        """The recipe for a data set of so many images: with its `steps_per_epoch`."""
        steps = self.steps_per_epoch or -(-images // self.batch_size)
        return dataclasses.replace(self, steps_per_epoch=steps)

    def encoder_rests(self, step: int) -> bool:
        """Whether the encoder keeps its weights in a step, counted from 0."""
        return self.unfreeze_epoch is None or step < self.unfreeze_epoch * self.steps_per_epoch


def pannuke() -> Recipe:
    """The published recipe of CellViT for a fold of PanNuke (Hörst et al. 2024).

    Mixed precision is bfloat16 here, which needs no scaling of the loss.
    """
    return Recipe(
        epochs=130,
        batch_size=16,
        sampling=Sampling.published(),
        augmentation=Augmentation.published(),
        schedule=Schedule(kind="exponential", peak=3e-4, factor=0.95),
        betas=(0.85, 0.95),
        weight_decay=1e-4,
        unfreeze_epoch=25,
        drop_path_rate=0.1,
        attention_drop_rate=0.1,
        dtype="bfloat16",
        remat=True,
    )


def finetune() -> Recipe:
    """From trained weights to one's own few annotated images, on a laptop.

    The encoder stays as it is, which is what few images can afford and takes a third of the time.
    Batches are small and gradients of four make an update; the weights are averaged.
    """
    return Recipe(
        epochs=20,
        batch_size=4,
        steps_per_epoch=100,
        accumulate=4,
        augmentation=Augmentation.demo(),
        objective=Objective(double_softmax=False),
        schedule=Schedule(kind="cosine", peak=5e-4, warmup_steps=100),
        betas=(0.9, 0.99),
        weight_decay=1e-2,
        clip_norm=100.0,
        ema_decay=0.99,
        unfreeze_epoch=None,
    )


def demo(steps: int = 3700) -> Recipe:
    """The bundled network's recipe, for two CPU cores and some 90 minutes.

    A small network finds nuclei worse than it tells them apart, and the published weights are all
    but silent on the former: here the binary branch counts three times, gradients of hv half.
    """
    return Recipe(
        epochs=-(-steps // 100),
        batch_size=4,
        steps_per_epoch=100,
        augmentation=Augmentation.demo(),
        objective=Objective(
            binary_focal_tversky=3.0, binary_dice=3.0, hv_msge=4.0, double_softmax=False
        ),
        schedule=Schedule(kind="constant", peak=1e-3, warmup_steps=100, decay_share=0.3),
        betas=(0.9, 0.99),
        weight_decay=1e-2,
        clip_norm=100.0,
    )
