"""Sections of a run's configuration, about model, objective and optimiser: the place of their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from matmamba_common.settings import Bounds

# Leading coordinates of an embedding.
Lengths = Annotated[list[int], Bounds(least=1)]
# Of a term of the loss.
Weight = Annotated[float, Bounds(least=0, zero="none")]
Weights = Annotated[list[float], Bounds(least=0)]


@dataclass(kw_only=True)
class ModelConfig:
    """Which registered model, and what is changed about it."""

    # A name that `timm.create_model` knows: a model that begins from nothing. Where none is named, training
    # on a folder, Parquet files or shards starts from the weights of matmamba_mini_patch16_128 that come with
    # the package, with the settings of configs/own_photos/fine_tuning.yaml.
    name: str = "matmamba_nano_patch4_32"
    # Image size in pixels; None keeps the model's own.
    img_size: int | None = None
    # Patch size in pixels; None keeps the model's own.
    patch_size: int | None = None
    # Scan order, None for the model's own: raster, flip, cross or bidirectional.
    scan: str | None = None
    # Whether a scan reads the mean of the patches first; None for the model's own.
    mean_token: bool | None = None
    # Register tokens; None for the model's own.
    reg_tokens: int | None = None
    # Hidden units of an MLP in each block, over the embedding dim; None for the model's own.
    mlp_ratio: float | None = None
    # Stochastic depth of the last block.
    drop_path_rate: Annotated[float, Bounds(least=0, below=1)] = 0.0
    # Dropout of each block's update.
    proj_drop_rate: Annotated[float, Bounds(least=0, below=1)] = 0.0
    # Widths in the training loss, full first, such as: full 1/2 1/4 1/8; None for the model's own.
    trained_widths: list[str] | None = None
    # Checkpoint (run folder, file, or the name of a shipped model) to start from: fine-tuning. The
    # architecture is the checkpoint's; name is ignored. "" for none: to start from nothing.
    init: str | None = None
    # Checkpoint whose weights the named model begins with, patches and positions by interpolation: another
    # image or patch size, another embedding. Projection and classifier begin anew.
    warm_start: str | None = None
    # Sort the heads of the starting checkpoint by importance, so that leading heads matter most: a nested
    # model from an ordinary Mamba2.
    sort_heads: bool = False
    # Initial bias of a new classifier, such as -log(classes) with a loss of independent classes, which then
    # starts with every class as probable as one in all; None for 0.
    head_bias: float | None = None
    # Length of the embedding where it is a linear map of the pooled features; None for the model's own.
    projection: int | None = None
    # How tokens become one vector: token (the last) or avg (mean of the patches); None for the model's own.
    global_pool: str | None = None
    # Recompute blocks in the backward pass: less memory, more time.
    grad_checkpointing: bool = False
    # Dropout before the classifier.
    drop_rate: Annotated[float, Bounds(least=0, below=1)] = 0.0


@dataclass(kw_only=True)
class ObjectiveConfig:
    """Weights of the terms; each is summed over the trained widths."""

    # Cross-entropy of the logits.
    cross_entropy: Weight = 1.0
    # Label smoothing of every cross-entropy.
    label_smoothing: Annotated[float, Bounds(least=0, below=1)] = 0.1
    # Cross-entropy of embedding prefixes (MRL), mean over the prefixes.
    mrl: Weight = 1.0
    # Prefix lengths; those not shorter than the embedding are left out.
    mrl_dims: Lengths = field(default_factory=lambda: [8, 16, 32, 64, 128, 256, 512])
    # Weight of each of mrl_dims, in their order; equal ones by default.
    mrl_weights: Weights = field(default_factory=list)
    # Distillation from a larger width.
    distillation: Weight = 1.0
    # Which one: the next larger of the step, or the largest.
    teacher: str = "next"
    # Temperature of the distillation.
    temperature: Annotated[float, Bounds(above=0)] = 1.0
    # Alignment of a width's embedding with the full width's, mean over the prefixes.
    alignment: Weight = 1.0
    # Weight of each trained width's loss, in their order; equal ones by default.
    width_weights: Weights = field(default_factory=list)


@dataclass(kw_only=True)
class RegressionConfig:
    """Weights of the terms by which a student follows its teacher; each holds for every trained width."""

    # 1 - cosine to the teacher's vector.
    regression: Weight = 10.0
    # The same of leading coordinates, mean over the prefixes.
    prefixes: Weight = 5.0
    # Their lengths; those not shorter than the embedding are left out.
    prefix_dims: Lengths = field(default_factory=lambda: [32, 64, 128])
    # Kullback-Leibler divergence of an image's similarities with the teacher's vectors of the others in the
    # batch, from the teacher's own.
    similarity: Weight = 1.0
    # Minus the log of the share that those similarities give to the others of the same label (NCA), mean over
    # the images that have some: the labels, said in the teacher's space.
    neighbours: Weight = 0.5
    # Kullback-Leibler divergence of an image's similarities with fixed anchors from the teacher's own: as
    # similarity, but with the same images in every batch.
    anchors: Weight = 0.0
    # Anchors: the teacher's vectors of as many training images, picked by chance.
    anchor_count: Annotated[int, Bounds(least=2)] = 512
    # Temperature of all these similarities.
    temperature: Annotated[float, Bounds(above=0)] = 0.05


@dataclass
class ScheduleConfig:
    """Which trained widths a step trains; a function of its number, so that a resumed run draws the same."""

    # all; sandwich: the largest, the smallest and some between; one: a random one (MatFormer); published:
    # one per batch in turn, as many batches accumulated as there are widths (MatMamba).
    kind: str = "all"
    # Widths that a sandwich draws between the largest and the smallest.
    between: Annotated[int, Bounds(least=0)] = 2


@dataclass(kw_only=True)
class MixConfig:
    """Mixed images and labels, by timm's Mixup; all widths of a step see the same."""

    # Alpha of Mixup; 0 for none.
    mixup: Annotated[float, Bounds(least=0, zero="none")] = 0.0
    # Alpha of CutMix; 0 for none.
    cutmix: Annotated[float, Bounds(least=0, zero="none")] = 0.0
    # Share of batches that are mixed.
    prob: Annotated[float, Bounds(least=0, most=1)] = 1.0
    # Share of the mixed batches that take CutMix, where both are on.
    switch_prob: Annotated[float, Bounds(least=0, most=1)] = 0.5


@dataclass(kw_only=True)
class EngineConfig:
    """How a step is computed; processes and their ranks come from torchrun or accelerate launch."""

    # fp32, bf16 or fp16.
    precision: str = "fp32"
    # Batches whose gradients are added up for one step.
    accumulate: Annotated[int, Bounds(least=1)] = 1
    # Shard parameters, gradients and optimiser over the processes (FSDP) instead of copying them (DDP).
    fsdp: bool = False
    # Seconds without a word from another process after which it counts as lost, and the run ends, to be
    # resumed. Others wait that long while the first one saves, measures and draws.
    lost_seconds: Annotated[int, Bounds(least=1)] = 1800
    # On a single GPU, launch forward and backward of each width at once, as a CUDA graph. Not with fp16,
    # compile, model.grad_checkpointing or widths that skip a block: these go kernel by kernel.
    cuda_graphs: bool = True


@dataclass
class SaveConfig:
    """When a run is saved, and what is kept."""

    # Steps between two checkpoints within an epoch; at the end of each epoch there is one anyway.
    every_steps: Annotated[int, Bounds(least=1)] = 1000
    # Newest checkpoints that are kept to resume from.
    keep: Annotated[int, Bounds(least=1)] = 2
    # What best.safetensors is the best of: mean top-1 of the trained widths, or that of one, such as 1/4.
    best: str = "mean"


@dataclass(kw_only=True)
class OptimConfig:
    """Optimiser and schedule; names are timm's."""

    # Optimiser.
    opt: str = "adamw"
    # Largest learning rate.
    lr: Annotated[float, Bounds(above=0)] = 1e-3
    # Learning rate at the end of the course.
    min_lr: float = 1e-6
    # Weight decay of matrices; vectors have none.
    weight_decay: float = 0.05
    # Largest norm of the gradient.
    clip_grad: Annotated[float, Bounds(least=0, zero="none")] = 1.0
    # Passes over the training images.
    epochs: Annotated[int, Bounds(least=1)] = 100
    # Minutes after which the run ends at min_lr, whatever epoch it is in, measured and saved as at its end:
    # the learning rate follows the clock where that is ahead of the steps. 0 for no limit.
    max_minutes: Annotated[float, Bounds(least=0, zero="no limit")] = 0.0
    # Epochs of linear warm-up, at most a fifth of the run.
    warmup_epochs: Annotated[float, Bounds(least=0)] = 5.0
    # Decay of a moving average of the weights, which is then what is measured and kept; 0 for none.
    ema: Annotated[float, Bounds(least=0, below=1, zero="none")] = 0.0
    # Factor on the learning rate from each block to the one before it, such as 0.75; None for the same rate.
    layer_decay: float | None = None
    # Decay of the optimiser's averages, such as 0.9 0.95; None for the optimiser's own.
    betas: tuple[float, float] | None = None
    # Course of the learning rate behind the warm-up: cosine, tanh, linear or poly (a square) down to min_lr,
    # step (a tenth of it after each third), constant.
    sched: str = "cosine"
    # Epochs at the end of the run that stay at min_lr.
    cooldown_epochs: float = 0
    # Learning rate at the start of the warm-up.
    warmup_lr: float = 1e-6
