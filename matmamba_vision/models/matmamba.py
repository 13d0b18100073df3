"""MatMamba: an image classifier whose blocks are nested (arXiv 2410.06718)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..width import Width, WidthLike
from .architecture import Architecture, require_pool
from .backbone import Backbone, blocks_asked_for
from .frame_stream import FrameStream, one_sequence
from .patches import fill_normal

TRAINED_WIDTHS = ("full", "1/2", "1/4", "1/8")
# Parameters that are vectors per channel or per head, whatever their shape.
_VECTORS = ("A_log", "D", "norm", "cls_token", "pos_embed", "reg_token")


class MatMamba(Backbone):
    """Patch embedding, nested blocks, norm, pool, projection if there is one, linear head.

    Blocks mix tokens by Mamba2, or by attention where the architecture says so: a hybrid; with attention
    everywhere and nested MLPs it is MatFormer's MatViT (arXiv 2310.07707), and with one trained width a
    plain Mamba2. Images are (B, in_chans, S, S). The class token stands last, because the scan is causal.
    What runs the blocks takes a `width`: anything that `width()` understands, full by default.

    Args:
        trained_widths: the widths in the training loss, full first.
        ssd_backend: see `ops.resolve`.
        device: of the parameters.
        dtype: of the parameters.
        architecture: the attributes of `Architecture`.

    Raises:
        ConfigError: an argument that cannot work, named in the message.
        TypeError: an unknown argument.
    """

    def __init__(
        self,
        trained_widths: Sequence[WidthLike] = TRAINED_WIDTHS,
        ssd_backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **architecture: Any,
    ) -> None:
        known = Architecture(**architecture)
        super().__init__(known, trained_widths, ssd_backend, device, dtype)
        self.num_classes, self.global_pool = known.num_classes, known.global_pool
        if known.projection:
            self.projection = self._make_linear(known.projection, self.embed_dim)
        self.head_hidden_size = self.embedding_dim
        self.head_drop = nn.Dropout(known.drop_rate)
        self.head = self._make_head()
        self.init_weights()

    def forward(self, x: Tensor, width: WidthLike | None = None) -> Tensor:
        """Logits (B, num_classes) of images (B, in_chans, S, S)."""
        return self.forward_head(self.forward_features(x, width))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, L, D) to logits (B, num_classes), or to what the head reads (B, E) if `pre_logits`.

        That is the embedding before it is normalised, of length E = `embedding_dim`.
        """
        x = self.head_drop(self._embedding(x))
        return x if pre_logits else self.head(x)

    def embed(self, x: Tensor, width: WidthLike | None = None, dim: int | None = None) -> Tensor:
        """Embeddings (B, dim), float32, L2-normalised: the leading `dim` coordinates (MRL).

        Raises:
            ConfigError: `dim` is not in 1..`embedding_dim`, or the model does not pool.
        """
        dim = self._dim(dim)
        return self._normalised(self.forward_features(x, width), dim)

    def stream(
        self,
        width: WidthLike | None = None,
        dim: int | None = None,
        within_frames: bool = False,
        through_time: bool = False,
    ) -> FrameStream:
        """Something that embeds a video frame by frame, and carries the state of every block on.

        Args:
            width: at which all frames are embedded.
            dim: leading coordinates of the embeddings.
            within_frames: see `FrameStream`; needed by models that do not read in raster order.
            through_time: whether gradients flow back into earlier frames.

        Raises:
            ConfigError: `dim` as for `embed`, or an order that cannot be carried on, by name.
            WidthError: no such width.
        """
        embed = partial(self._normalised, dim=self._dim(dim))
        return FrameStream(self, embed, width, within_frames=within_frames, through_time=through_time)

    def embed_clips(
        self,
        clips: Tensor,
        width: WidthLike | None = None,
        dim: int | None = None,
        within_frames: bool = False,
    ) -> Tensor:
        """Embeddings (B, T, dim) of all frames of clips (B, T, C, S, S): each clip is one long sequence.

        What `stream` gives frame by frame, from the beginning, up to rounding; this one is for training.
        Arguments and errors as of `stream`.
        """
        dim = self._dim(dim)
        tokens = one_sequence(self, clips, width, within_frames)
        return self._normalised(tokens.flatten(0, 1), dim).unflatten(0, clips.shape[:2])

    def _dim(self, dim: int | None) -> int:
        """The length of embeddings that is meant."""
        if not self.global_pool:
            raise ConfigError("a model with global_pool '' has no embedding: it keeps every token")
        dim = self.embedding_dim if dim is None else dim
        if not 1 <= dim <= self.embedding_dim:
            raise ConfigError(f"embedding dim {dim} is not in 1..{self.embedding_dim}")
        return dim

    def _normalised(self, tokens: Tensor, dim: int) -> Tensor:
        """Embeddings (B, dim) of tokens (B, L, D)."""
        return F.normalize(self._embedding(tokens)[:, :dim].float(), dim=-1)

    @property
    def embedding_dim(self) -> int:
        """Length E of an embedding: that of the projection, or D where there is none."""
        return self.architecture.projection or self.embed_dim

    def _embedding(self, x: Tensor) -> Tensor:
        pooled = self._pool(x)
        return self.projection(pooled) if self.architecture.projection else pooled

    def _pool(self, x: Tensor) -> Tensor:
        if self.global_pool == "token":
            return x[:, -1]
        return x[:, self.num_prefix_tokens : -1].mean(dim=1) if self.global_pool == "avg" else x

    def get_classifier(self) -> nn.Module:
        """The linear head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for `num_classes` classes (0: none), and the pooling if given.

        Raises:
            ConfigError: no such pooling; nothing is changed.
        """
        pool = self.global_pool if global_pool is None else require_pool(global_pool)
        # What does not pool has nothing to project.
        projection = self.architecture.projection if pool else 0
        self.architecture = self.architecture.changed(
            num_classes=num_classes, global_pool=pool, projection=projection
        )
        if not projection and hasattr(self, "projection"):
            del self.projection
        self.num_classes, self.global_pool, self.head_hidden_size = num_classes, pool, self.embedding_dim
        trainable = any(parameter.requires_grad for parameter in self.parameters())
        self.head = self._make_head().train(self.training).requires_grad_(trainable)

    def _make_head(self) -> nn.Module:
        if self.num_classes == 0:
            return nn.Identity()
        return self._make_linear(self.num_classes, self.embedding_dim)

    def _make_linear(self, outputs: int, inputs: int) -> nn.Linear:
        like = self.pos_embed
        linear = nn.Linear(inputs, outputs, device=like.device, dtype=like.dtype)
        _init_linear(linear)
        return linear

    def init_weights(self) -> None:
        """Initialise every parameter."""
        super().init_weights()
        for linear in (getattr(self, "projection", None), self.head):
            if isinstance(linear, nn.Linear):
                _init_linear(linear)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks behind the last one asked for, and if wished the norm and the head.

        Returns:
            The blocks asked for, by number.
        """
        taken = blocks_asked_for(indices, len(self.blocks))
        depth = max(taken) + 1
        kept = [heads if block < depth else 0 for block, heads in enumerate(self.heads)]
        cut = [Width(width.heads[:depth], width.states[:depth]) for width in self.trained_widths]
        self.architecture = self.architecture.of_blocks(kept, self.architecture.states)
        self.blocks, self.trained_widths = self.blocks[:depth], tuple(dict.fromkeys(cut))
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return taken

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are vectors per channel or per head, whatever their shape."""
        parts = {name: name.split(".")[-1] for name, _ in self.named_parameters()}
        return {
            name
            for name, last in parts.items()
            if last in _VECTORS or (last.endswith("bias") and name.startswith("blocks."))
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm divides parameters into layers, for layer-wise learning rates."""
        stem = r"^cls_token|^reg_token|^pos_embed|^patch_embed"
        return {"stem": stem, "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


def _init_linear(linear: nn.Linear) -> None:
    fill_normal(linear.weight, 0.02)
    nn.init.zeros_(linear.bias)
