"""The part of a student's report that shows what the student was asked."""

import jax
import numpy as np

from dav import pictures, recipe_data, viz
from dav.step import strong_view

TASKS_SHOWN = 6
PERTURBED = (
    "Photographs of its first step: jittered in colour, blurred, and with a piece of another one "
    "cut in. Inside and outside of the cut, each normalised on its own, it had to match what the "
    "teacher saw in the clean photographs."
)


def section(config, paths):
    """A few inputs of the student's first step, and the pseudo-labels it had to match."""
    batch = recipe_data.make_batches(config, paths)[0]["unlabelled"]
    view = jax.jit(
        lambda images: strong_view(images, config.seed, 0, apply=config.objective.perturb)
    )
    inputs, masks = jax.device_get(view(batch["image"]))
    heads = ("photograph", "what the student saw", "what the teacher said", "the student's task")
    cells = [f'<div class="head">{head}</div>' for head in heads]
    order = np.argsort(~masks.any(axis=(1, 2)), kind="stable")[:TASKS_SHOWN]
    for index in order:
        own, valid, mask = batch["disparity"][index], batch["valid"][index], masks[index]
        task = np.where(mask, batch["disparity"][index - 1], own)
        shown = (
            batch["image"][index],
            (inputs[index] * 255).astype(np.uint8),
            pictures.draw_map(own, valid, np.zeros_like(mask)),
            pictures.draw_map(task, valid, mask),
        )
        cells += [viz.image_tag(picture) for picture in shown]
    said = PERTURBED if config.objective.perturb else "The first photographs of its first step."
    return (
        f'<h2>What the student was asked</h2><p class="soft">{said}</p>'
        f'<div class="wide"><div class="gallery four">{"".join(cells)}</div></div>'
    )
