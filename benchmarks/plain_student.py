"""The student's training step written plainly in PyTorch: what dav's step is measured against.

The network is transformers' Depth Anything; the losses, CutMix, perturbations and the update are
those of the paper (arXiv 2401.10891) with UniMatch's strengths, as a researcher would write them:
perturbations image by image, drawing only what is used; the rest for the whole batch, labelled and
unlabelled images in one pass of the network; a fused AdamW. It shares no code with dav, so that
equal losses for equal weights and batches say that both are right.

Shapes: B images, H W crop, N patches, D width. Images are channels first; a batch holds `labelled`
and `unlabelled`, each a dict of image uint8 [B, H, W, 3], disparity float32, valid bool [B, H, W].
"""

import contextlib
import copy
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForDepthEstimation

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)
BLUR_RADIUS_PX = 6
MIN_SPREAD = 1e-6


@dataclass(frozen=True)
class Student:
    """A network in training and all that its step needs."""

    model: Any
    frozen: Any  # an encoder
    optimizer: Any
    schedule: Any
    terms: Any  # measure_terms, perhaps compiled
    margin: float
    clip_norm: float
    autocast: Any  # () → context


def load(folder, optimizer, steps, *, margin, device="cpu", dtype="float32", compiled=False):
    """The student of the weights in a folder of transformers, its encoder's copy frozen.

    `optimizer` is dav's config.optimizer as a dict; the rates fall linearly over `steps`.
    """
    model = AutoModelForDepthEstimation.from_pretrained(folder, dtype=torch.float32).to(device)
    assert model.backbone.config._attn_implementation == "sdpa"
    model.train()  # without dropout and stochastic depth, which these weights have not
    frozen = copy.deepcopy(model.backbone).requires_grad_(False).eval()
    encoder = list(model.backbone.parameters())
    decoder = [*model.neck.parameters(), *model.head.parameters()]
    adamw = torch.optim.AdamW(
        [
            {"params": encoder, "lr": optimizer["encoder_lr"]},
            {"params": decoder, "lr": optimizer["decoder_lr"]},
        ],
        weight_decay=optimizer["weight_decay"],
        fused=True,
    )
    warmup = min(optimizer["warmup_steps"], steps // 2)

    def share(step):
        if step < warmup:
            return (1 + step) / (warmup + 1)
        return max(0.0, 1 - (step - warmup) / (steps - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, share)
    autocast = contextlib.nullcontext
    if dtype != "float32":

        def autocast():
            return torch.autocast(device, getattr(torch, dtype))

    terms = torch.compile(measure_terms) if compiled else measure_terms
    return Student(model, frozen, adamw, schedule, terms, margin, optimizer["clip_norm"], autocast)


def to_tensors(batch, device):
    """The arrays of a batch as tensors; images channels first."""
    tensors = {
        kind: {name: torch.from_numpy(values).to(device) for name, values in part.items()}
        for kind, part in batch.items()
    }
    for part in tensors.values():
        part["image"] = part["image"].permute(0, 3, 1, 2).contiguous()
    return tensors


def train_step(student, batch):
    """One update with perturbed images; returns the loss."""
    images, masks = strong_view(batch["unlabelled"]["image"])
    return update(student, batch, images, masks)["loss"]


def update(student, batch, images, masks):
    """One update. images float32 [B, 3, H, W] in [0, 1] is what the unlabelled images were made
    into, masks bool [B, H, W] where each shows its neighbour. Returns the terms and norm."""
    terms = student.terms(student, batch["labelled"], batch["unlabelled"], images, masks)
    terms["loss"] = sum(terms.values()) / len(terms)
    student.optimizer.zero_grad()
    terms["loss"].backward()
    norm = torch.nn.utils.clip_grad_norm_(student.model.parameters(), student.clip_norm)
    student.optimizer.step()
    student.schedule.step()
    return {name: value.detach() for name, value in terms.items()} | {"grad_norm": norm}


def measure_terms(student, labelled, unlabelled, images, masks):
    """The three losses of the paper, each the mean over its images or tokens."""
    count = labelled["image"].shape[0]
    pixels = normalise(torch.cat([labelled["image"].float() / 255, images]))
    with student.autocast():
        features = student.model.backbone(pixels).feature_maps
        grid = [side // 14 for side in pixels.shape[2:]]
        disparity = student.model.head(student.model.neck(features, *grid), *grid)
        with torch.no_grad():
            frozen = student.frozen(pixels[count:]).feature_maps[-1]
    disparity, tokens = disparity.float(), features[-1][count:, 1:].float()
    return {
        "loss_labelled": affine_invariant(
            disparity[:count], labelled["disparity"], labelled["valid"]
        ).mean(),
        "loss_unlabelled": cutmix_loss(
            disparity[count:], unlabelled["disparity"], unlabelled["valid"], masks
        ).mean(),
        "loss_features": feature_alignment(tokens, frozen[:, 1:].float(), student.margin),
    }


def normalise(images):
    mean, std = (images.new_tensor(x).view(3, 1, 1) for x in (MEAN_RGB, STD_RGB))
    return (images - mean) / std


def affine_invariant(prediction, target, valid):
    """Eq. 1-4 over the valid pixels, per image [B]; 0 where there are none."""
    prediction, target, valid = (x.flatten(1) for x in (prediction, target, valid))
    error = (to_canonical(prediction, valid) - to_canonical(target, valid)).abs()
    return masked_mean(error, valid).squeeze(1)


def to_canonical(x, valid):
    median = x.masked_fill(~valid, math.nan).nanmedian(dim=1, keepdim=True).values
    x = x - median.nan_to_num()
    return x / masked_mean(x.abs(), valid).clamp(min=MIN_SPREAD)


def masked_mean(x, valid):
    return x.masked_fill(~valid, 0).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)


def cutmix_loss(prediction, target, valid, masks):
    """Eq. 5-8: inside and outside each mask on its own, weighted by area."""
    inside = affine_invariant(prediction, target.roll(1, 0), valid.roll(1, 0) & masks)
    outside = affine_invariant(prediction, target, valid & ~masks)
    share = masks.float().mean((1, 2))
    return share * inside + (1 - share) * outside


def feature_alignment(tokens, frozen, margin):
    """Eq. 9 over the tokens whose cosine is at most the margin."""
    cosine = F.cosine_similarity(tokens, frozen, dim=-1)
    kept = cosine <= margin
    return (1 - cosine).masked_fill(~kept, 0).sum() / kept.sum().clamp(min=1)


def strong_view(images):
    """uint8 [B, 3, H, W] → perturbed and cut-mixed images, and the masks of CutMix."""
    images = torch.stack([perturb(image.float() / 255) for image in images])
    masks = torch.zeros(images.shape[0], *images.shape[2:], dtype=torch.bool, device=images.device)
    for mask in masks:
        if random.random() < 0.5:
            top, left, rows, columns = draw_box(*mask.shape)
            mask[top : top + rows, left : left + columns] = True
    return torch.where(masks[:, None], images.roll(1, 0), images), masks


def draw_box(height, width):
    area = height * width * random.uniform(0.02, 0.4)
    while True:
        ratio = random.uniform(0.3, 1 / 0.3)
        rows, columns = int(math.sqrt(area * ratio)), int(math.sqrt(area / ratio))
        top, left = random.randrange(height), random.randrange(width)
        if top + rows <= height and left + columns <= width:
            return top, left, rows, columns


def perturb(image):
    """Colour jitter, grayscale and blur of one image [3, H, W], each with its probability."""
    if random.random() < 0.8:
        operations = [
            (adjust_brightness, random.uniform(0.5, 1.5)),
            (adjust_contrast, random.uniform(0.5, 1.5)),
            (adjust_saturation, random.uniform(0.5, 1.5)),
            (adjust_hue, random.uniform(-0.25, 0.25)),
        ]
        random.shuffle(operations)
        for operation, factor in operations:
            image = operation(image, factor)
    if random.random() < 0.2:
        image = to_gray(image).expand_as(image)
    if random.random() < 0.5:
        image = gaussian_blur(image, random.uniform(0.1, 2.0))
    return image


def to_gray(image):
    return sum(weight * channel for weight, channel in zip(LUMA, image, strict=True))[None]


def adjust_brightness(image, factor):
    return (image * factor).clamp(0, 1)


def adjust_contrast(image, factor):
    return torch.lerp(to_gray(image).mean(), image, factor).clamp(0, 1)


def adjust_saturation(image, factor):
    return torch.lerp(to_gray(image).expand_as(image), image, factor).clamp(0, 1)


def adjust_hue(image, turns):
    red, green, blue = image
    value, lowest = image.amax(0), image.amin(0)
    chroma = value - lowest
    safe = chroma.masked_fill(chroma == 0, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    k = (image.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + sixths + 6 * turns) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def gaussian_blur(image, sigma_px):
    radius = BLUR_RADIUS_PX
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    weights = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    image = F.pad(image[None], (radius,) * 4, mode="reflect")
    image = F.conv2d(image, weights, groups=3)
    return F.conv2d(image, weights.transpose(2, 3), groups=3)[0]
