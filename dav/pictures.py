"""A look at a training step: what the network was shown, what it was told, what it says.

Shapes: B images, H W crop, R the rows of a picture, no more than ROWS.
"""

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from dav import recipe, recipe_network, viz
from dav.models.depth_anything import normalise
from dav.objectives.cutmix import neighbour
from dav.runtime import parallel
from dav.step import strong_view

ROWS = 4
TILE_PX = 256  # longer side of one image in the picture
HEADS = {
    "labelled": ("input", "target", "prediction"),
    "unlabelled": ("input", "perturbed input", "pseudo-label", "prediction"),
}


def make_look(config, mesh):
    """A function (params, batch, step) → dict of the first R images of training step `step`, whole
    in every process: image uint8 and seen float32 in [0, 1] [R, H, W, 3]; target and prediction
    float32 [R, H, W]; valid and mask bool [R, H, W].

    A batch with unlabelled images shows those: as the student saw them in that step, with the
    same randomness, and as target the pseudo-labels cut and mixed alike. `batch` is the step's
    global one, split over the mesh, and CutMix needs an image's neighbour: so all processes make
    this call, and the devices exchange what is asked, as in a step. Nothing of it goes back into
    training.
    """
    model, objective = recipe_network.make_model(config), recipe.make_objective(config)

    def look(params, batch, step):
        kind = kind_of(batch)
        part = batch[kind]
        seen, mask = part["image"] / 255, jnp.zeros(part["valid"].shape, bool)
        if kind == "unlabelled":
            seen, mask = strong_view(part["image"], config.seed, step, apply=objective.perturb)
        shown = {"image": part["image"], "seen": seen, "mask": mask}
        for name, values in {"target": part["disparity"], "valid": part["valid"]}.items():
            shown[name] = jnp.where(mask, neighbour(values), values)
        shown = {name: values[:ROWS] for name, values in shown.items()}
        prediction, _ = model.apply({"params": params}, normalise(shown["seen"]))
        return shown | {"prediction": prediction}

    return jax.jit(look, out_shardings=parallel.replicated(mesh))


def kind_of(batch):
    """Which images of a batch are shown."""
    return "unlabelled" if "unlabelled" in batch else "labelled"


def draw(shown, kind):
    """What `look` gives, on the host → one picture, uint8 RGB: an image a row, a head on top."""
    rows = []
    for index in range(len(shown["image"])):
        one = {name: values[index] for name, values in shown.items()}
        tiles = [one["image"]]
        if kind == "unlabelled":
            tiles.append(np.rint(one["seen"] * 255).astype(np.uint8))
        target = draw_map(one["target"], one["valid"], one["mask"])
        target[~one["valid"]] = viz.INVALID_RGB
        tiles += [target, draw_map(one["prediction"], one["valid"], one["mask"])]
        rows.append(np.concatenate([shrink(tile) for tile in tiles], axis=1))
    return np.concatenate([draw_heads(HEADS[kind], rows[0].shape[1]), *rows])


def draw_map(disparity, valid, mask):
    """Disparity [H, W] in colours, grey where it is not finite. What was cut in from another image
    is outlined, and has a scale of its own over valid pixels, as the rest has: so does the loss
    see them."""
    known = np.isfinite(disparity)
    scaled = np.zeros(disparity.shape, np.float32)
    for region in (mask & known, ~mask & known):
        low, high = viz.disparity_range(disparity, region & valid)
        scaled[region] = (disparity[region] - low) / max(high - low, 1e-9)
    picture = viz.colorize(scaled, 0, 1, valid=known)
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(picture, edges, -1, (255, 255, 255), 1)


def shrink(tile):
    """No side longer than TILE_PX."""
    scale = TILE_PX / max(tile.shape[:2])
    if scale >= 1:
        return tile
    return cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def draw_heads(heads, width):
    """A white strip with a word above each column, uint8 RGB [24, width, 3]."""
    strip = np.full((24, width, 3), 255, np.uint8)
    for index, text in enumerate(heads):
        place = (width * index // len(heads) + 6, 17)
        cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return strip
