"""SAM and MedSAM: a vision transformer that encodes the image once, and a light decoder that turns
a box into a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segweave.author_weights import ReleasedNames, names_by_prefix
from segweave.blocks.channel_norm import ChannelNorm
from segweave.blocks.prompt_encoder import MASK_STRIDE, PromptEncoder
from segweave.blocks.two_way import Perceptron, Perceptrons, TwoWayTransformer
from segweave.errors import MissingExtraError, UsageError
from segweave.networks.base import (
    Decoded,
    Features,
    Output,
    Prompt,
    SegmentationNetwork,
    Size,
)
from segweave.registry import NetworkCard

BACKBONE = "samvit_base_patch16"
STRIDE = 16
WINDOW = 14
RELEASED_MASKS = 4

CARD = NetworkCard(
    name="medsam-vit-b",
    title="SAM and MedSAM (ViT-B): the object in a box",
    entry="MedSAM",
    paper="Ma et al., Segment Anything in Medical Images, Nature Communications 15, 2024; Kirillov "
    "et al., Segment Anything, ICCV 2023",
    divisor=16,
    smallest=16,
    prompt="box",
    positions={
        "bottleneck": "the image embedding, as it goes through the decoder and becomes the mask",
        "skips": "the image embedding as the prompt's tokens read it first, before it has changed",
        "decoder": "the upsampled embedding at a quarter of the image's size; its product with a "
        "vector from the box's tokens is the mask; each slice is decoded with a separate box",
        "output": "the logits; each slice is segmented from a separate box",
    },
    tiny_options={
        "width": 24,
        "layers": 2,
        "heads": 2,
        "global_blocks": (1,),
        "window": 2,
        "channels": 16,
        "decoder_heads": 2,
        "decoder_hidden": 32,
        "image_size": 32,
    },
)


class MedSAM(SegmentationNetwork):
    """The image encoder is a vision transformer with windows of 14×14 tokens, relative positions,
    and global attention in four blocks. The prompt encoder makes two tokens of a box. In the mask
    decoder these and one token per mask attend to the image embedding and it to them, twice; a mask
    is the product of the upsampled embedding with a vector made of the mask's token.

    `encode` takes the boxes as `boxes`, (B, 4): x0, y0, x1, y1 in pixels of the image, counted from
    0. With one class, the mask is SAM's single one; with more, class k is the mask k + 1 of SAM's
    ambiguous ones, so that `classes=3` gives its three. All classes share the box.

    The prompt encoder is not trained, as in MedSAM. An image with one channel is repeated to three.
    Auxiliary output: `overlap` (B, classes), the intersection over union that SAM predicts for each
    mask.

    Args:
        in_channels: channels of an image.
        classes: channels of the logits.
        width: channels of a token in the image encoder.
        layers: number of its blocks.
        heads: heads of its attention, a divisor of `width`.
        global_blocks: the blocks that attend to the whole image, counted from 0.
        window: side of the windows of the others, in tokens.
        channels: channels of the image embedding and of the decoder's tokens, divisible by 8.
        decoder_heads: heads of the decoder's attention, a divisor of half of `channels`.
        decoder_hidden: hidden units of the decoder's perceptrons.
        image_size: side, or height and width, of the image for which the position tables are kept;
            they are interpolated for other sizes.
        box_jitter: in training, each side of a box is moved outwards by 0 to this part of the
            image's side (MedSAM: 20 of 1024 pixels).

    Raises UsageError for options that do not fit, MissingExtraError without timm.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1,
        *,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window: int = WINDOW,
        channels: int = 256,
        decoder_heads: int = 8,
        decoder_hidden: int = 2048,
        image_size: int | Size = 1024,
        box_jitter: float = 20 / 1024,
    ) -> None:
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        _check_options(width, heads, channels, decoder_heads, size, box_jitter)
        self.in_channels, self.classes = in_channels, classes
        self.stride = self.divisor = self.smallest = STRIDE
        self.prompt = Prompt("boxes", "box", box_jitter)
        self.channels = {
            "skips": (channels,),
            "bottleneck": (channels,),
            "decoder": (channels // 8,),
            "output": (classes,),
        }
        self.image_encoder = _image_encoder(
            3 if in_channels == 1 else in_channels,
            {
                "img_size": size,
                "embed_dim": width,
                "depth": layers,
                "num_heads": heads,
                "global_attn_indexes": tuple(global_blocks),
                "window_size": window,
                "neck_chans": channels,
            },
        )
        self.prompt_encoder = PromptEncoder(channels).requires_grad_(False)
        # The first mask is the single one; more classes than SAM has masks get further tokens.
        self.used = (0,) if classes == 1 else tuple(range(1, classes + 1))
        masks = max(RELEASED_MASKS, self.used[-1] + 1)
        self.overlap_token = nn.Parameter(torch.randn(1, channels))
        self.mask_tokens = nn.Parameter(torch.randn(masks, channels))
        self.transformer = TwoWayTransformer(channels, decoder_heads, decoder_hidden)
        self.upsampling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            ChannelNorm(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.kernels = Perceptrons(classes, channels, channels, channels, channels // 8)
        self.overlap = Perceptron(channels, channels, channels, masks)

    def encode(self, x: Tensor, **inputs: Tensor) -> Features:
        """(B, C, H, W) and `boxes` (B, 4) → the image embedding at stride 16, as bottleneck and as
        skip. Raises UsageError for a wrong number of channels, for sides that are not multiples of
        16, and without boxes.
        """
        self.check_image(x, **inputs)
        return self._features(x, inputs)

    def decode(self, features: Features) -> Decoded:
        """Features → the upsampled embedding (B, channels / 8, H / 4, W / 4), and for each mask the
        vector that it is multiplied with.
        """
        image, (first_read,) = features.bottleneck, features.skips
        height, width = int(image.shape[-2]), int(image.shape[-1])
        size, given = (STRIDE * height, STRIDE * width), features.extra
        prompts = {k: v.to(image.dtype) for k, v in given.items() if k != "mask_prompt"}
        prompt_tokens = self.prompt_encoder.tokens(size, **prompts)
        dense = self.prompt_encoder.map(given.get("mask_prompt"), len(image), (height, width))
        own = torch.cat([self.overlap_token, self.mask_tokens])
        tokens = torch.cat([own.expand(len(image), -1, -1), prompt_tokens.to(own.dtype)], 1)
        places = self.prompt_encoder.grid(height, width)
        tokens, flat = self.transformer(
            tokens, _flat(image + dense), _flat(first_read + dense), _flat(places)
        )
        embedding = flat.transpose(1, 2).unflatten(2, (height, width)).contiguous()
        used = slice(self.used[0], self.used[-1] + 1)
        kernels = self.kernels(tokens[:, 1:][:, used])
        overlap = self.overlap(tokens[:, 0])[:, used]
        return Decoded(
            map=self.upsampling(embedding),
            extra={"kernels": kernels, "overlap": overlap},
        )

    def masks(self, decoded: Decoded) -> Tensor:
        """What `decode` returned → logits (B, classes, H / 4, W / 4)."""
        kernels = decoded.extra["kernels"].to(decoded.map.dtype)
        masks: Tensor = kernels @ decoded.map.flatten(2)
        return masks.reshape(*masks.shape[:2], *decoded.map.shape[2:])

    def head(self, decoded: Decoded, size: Size, auxiliary: bool) -> Output:
        """The masks, upsampled (bilinear) to the image → logits (B, classes, H, W)."""
        logits = functional.interpolate(
            self.masks(decoded), size=size, mode="bilinear", align_corners=False
        )
        return Output(logits, {"overlap": decoded.extra["overlap"]} if auxiliary else {})

    def segment(self, x: Tensor, **prompts: Tensor) -> Output:
        """Segment from any of SAM's prompts, for use in Python.

        Args:
            x: the image (B, C, H, W).
            prompts: at least one of `boxes` (B, 4) and `points` (B, P, 2), x and y, these with
                `point_labels` (B, P), 1 for the object and 0 for the background; besides,
                `mask_prompt`, the logits (B, 1, H / 4, W / 4) of an earlier mask.

        Returns:
            Logits (B, classes, H, W), and `overlap` (B, classes) as auxiliary output.

        Raises UsageError for other prompts.
        """
        given = set(prompts)
        known = {"boxes", "points", "point_labels", "mask_prompt"}
        paired = ("points" in given) == ("point_labels" in given)
        if not given <= known or not paired or not given & {"boxes", "points"}:
            raise UsageError(
                "segmenting from prompts",
                expected="boxes=, or points= with point_labels=, or both; besides, mask_prompt=",
                found=", ".join(f"{name}=" for name in prompts) or "none",
            )
        self.check_image(x, boxes=prompts.get("boxes", x.new_zeros(len(x), 4)))
        size = (int(x.shape[-2]), int(x.shape[-1]))
        mask = prompts.get("mask_prompt")
        quarter = (len(x), 1, size[0] // MASK_STRIDE, size[1] // MASK_STRIDE)
        if mask is not None and tuple(mask.shape) != quarter:
            raise UsageError(
                "segmenting from prompts",
                expected=f"mask_prompt of shape {quarter}",
                found=f"shape {tuple(mask.shape)}",
            )
        return self.head(self.decode(self._features(x, prompts)), size, True)

    def released_names(self) -> ReleasedNames:
        """Names of the authors' code (facebookresearch/segment-anything, bowang-lab/MedSAM)."""
        prompt, decoder = "prompt_encoder.", "mask_decoder."
        attention = {"query.": "q_proj.", "key.": "k_proj.", "value.": "v_proj."}
        attention["output."] = "out_proj."
        mlp = {"layers.0.": "lin1.", "layers.1.": "lin2."}
        prefixes = {
            "image_encoder.": "image_encoder.",
            f"{prompt}frequencies": f"{prompt}pe_layer.positional_encoding_gaussian_matrix",
            f"{prompt}no_point": f"{prompt}not_a_point_embed.weight",
            f"{prompt}no_mask": f"{prompt}no_mask_embed.weight",
            f"{prompt}mask.": f"{prompt}mask_downscaling.",
            "overlap_token": f"{decoder}iou_token.weight",
            "mask_tokens": f"{decoder}mask_tokens.weight",
            "upsampling.": f"{decoder}output_upscaling.",
            "overlap.": f"{decoder}iou_prediction_head.",
            "transformer.norm.": f"{decoder}transformer.norm_final_attn.",
        }
        for i in range(4):
            prefixes[f"{prompt}kinds.{i}"] = f"{prompt}point_embeddings.{i}.weight"
        for i in range(len(self.image_encoder.blocks)):
            name = f"image_encoder.blocks.{i}.mlp."
            prefixes |= {f"{name}fc{k}.": f"{name}lin{k}." for k in (1, 2)}
        parts = {"transformer.last.": f"{decoder}transformer.final_attn_token_to_image."}
        for i in range(len(self.transformer.blocks)):
            ours, theirs = f"transformer.blocks.{i}.", f"{decoder}transformer.layers.{i}."
            prefixes[ours] = theirs
            prefixes |= {f"{ours}mlp.{a}": f"{theirs}mlp.{b}" for a, b in mlp.items()}
            parts[f"{ours}itself."] = f"{theirs}self_attn."
            parts[f"{ours}to_image."] = f"{theirs}cross_attn_token_to_image."
            parts[f"{ours}from_image."] = f"{theirs}cross_attn_image_to_token."
        for ours, theirs in parts.items():
            prefixes |= {ours + a: theirs + b for a, b in attention.items()}
        mlps = f"{decoder}output_hypernetworks_mlps."
        leaves = [(layer, leaf) for layer in range(3) for leaf in ("weight", "bias")]
        stacked = {
            f"kernels.{'weights' if leaf == 'weight' else 'biases'}.{layer}": tuple(
                f"{mlps}{k}.layers.{layer}.{leaf}" for k in self.used
            )
            for layer, leaf in leaves
        }
        unused = [k for k in range(RELEASED_MASKS) if k not in self.used]
        dead = {f"{mlps}{k}.layers.{layer}.{leaf}" for k in unused for layer, leaf in leaves}
        return names_by_prefix(self, prefixes, dead=dead, stacked=stacked)

    def _features(self, x: Tensor, prompts: dict[str, Tensor]) -> Features:
        if self.in_channels == 1:
            x = x.expand(-1, 3, -1, -1)
        embedding = self.image_encoder.forward_features(x)
        return Features(skips=(embedding,), bottleneck=embedding, extra=dict(prompts))


def _flat(x: Tensor) -> Tensor:
    """(B, C, H, W) → (B, H · W, C)."""
    return x.flatten(2).transpose(1, 2)


def _image_encoder(in_channels: int, options: dict[str, Any]) -> Any:
    """Timm's encoder with the released epsilon of its norms (timm's own is 1e-5)."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(
            "creating the network 'medsam-vit-b'", library="timm", extra="zoo"
        ) from error
    return timm.create_model(
        BACKBONE,
        pretrained=False,
        in_chans=in_channels,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **options,
    )


def _check_options(
    width: int,
    heads: int,
    channels: int,
    decoder_heads: int,
    image_size: tuple[int, ...],
    box_jitter: float,
) -> None:
    doing = "creating the network 'medsam-vit-b'"
    if heads < 1 or width < 1 or width % heads:
        raise UsageError(
            doing,
            expected="a number of heads that divides width",
            found=f"width={width}, heads={heads}",
        )
    if channels < 8 or channels % 8 or decoder_heads < 1 or (channels // 2) % decoder_heads:
        raise UsageError(
            doing,
            expected="channels that 8 divides, and decoder_heads that divide half of them",
            found=f"channels={channels}, decoder_heads={decoder_heads}",
        )
    if len(image_size) != 2 or any(side < STRIDE or side % STRIDE for side in image_size):
        raise UsageError(
            doing, expected=f"an image_size that {STRIDE} divides", found=f"{image_size}"
        )
    if not 0 <= box_jitter < 1:
        raise UsageError(
            doing, expected="a box_jitter from 0 to below 1", found=f"box_jitter={box_jitter}"
        )
