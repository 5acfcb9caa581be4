"""The operators of the strong perturbations beside torchvision's, Pillow's and colorsys.

    python tests/objectives/operator_parity.py                   # prints the table
    python tests/objectives/operator_parity.py --write           # what torchvision computes, anew

torchvision's results are kept in operator_reference.npz, because its wheels on PyPI do not import
beside PyTorch's build for CPUs; where it imports, test_perturb_torchvision.py asks it itself.
Errors are differences of images in [0, 1]. A step of 8 bits is 1/255.
"""

import argparse
import colorsys
import functools
from pathlib import Path

import cv2
import jax
import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageFilter

from dav.objectives import perturb

REFERENCE = Path(__file__).parent / "operator_reference.npz"
PHOTOGRAPHS = Path(__file__).parent.parent.parent / "dav" / "sample" / "icl"
BOUND = 2 / 255
FLOAT_BOUND = 2e-4  # torchvision's luma has 0.2989 of red, ours and Pillow's 0.299
BLENDS = {"brightness": 0, "contrast": 1, "saturation": 2}
CASES = {
    "brightness": (0.5, 1.4),
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue": (-0.25, 0.1, 0.25),
    "grayscale": (None,),
    "gaussian_blur": (0.1, 0.8, 2.0),
}
# Four operations in turn, of float images alone: 8 bits would round at each.
JITTERS = {"2031": (1.3, 0.6, 1.4, 0.2), "1302": (0.7, 1.4, 0.6, -0.15)}
KERNEL = 2 * perturb.BLUR_RADIUS_PX + 1
# Pillow rotates the hue in HSV of 8 bits; it blurs by boxes and extends edges, not reflects them.
PILLOW_BOUNDS = {"hue": 15 / 255, "gaussian_blur": 15 / 255}


def images(shape=(2, 15, 18, 3), seed=0):
    """Noise, uint8, with black, white, gray, saturated and nearly gray pixels among it."""
    found = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    found[:, 0, :3] = np.array([0, 255, 128])[:, None]
    found[:, 1, :3], found[:, 1, 3:6] = 255 * np.eye(3), 255 - 255 * np.eye(3)
    found[:, 2, :3] = [[100, 101, 100], [100, 100, 101], [101, 100, 100]]
    return found


@functools.partial(jax.jit, static_argnums=0)
def ours(operator, value, images):
    """One operator at one parameter (of JITTERS: order and factors), float [B, H, W, 3] → same."""
    planes = tuple(images[..., channel] for channel in range(3))
    batch = images.shape[0]
    if operator in BLENDS:
        planes = perturb.blend(planes, *each(batch, BLENDS[operator], value))
    elif operator == "hue":
        planes = perturb.rotate_hue(planes, *each(batch, value))
    elif operator == "gaussian_blur":
        planes = perturb.gaussian_blur(planes, *each(batch, value))
    elif operator == "jitter":
        planes = perturb.color_jitter(planes, *each(batch, *value))
    else:
        planes = perturb.grayscale(planes, *each(batch, True))
    return jax.numpy.stack(planes, axis=-1)


def each(batch, *values):
    """Every value for every image: [batch, …]."""
    values = map(jax.numpy.asarray, values)
    return [jax.numpy.broadcast_to(value, (batch, *value.shape)) for value in values]


def torchvisions(operator, value, images):
    """The same by torchvision, in the type of the images, uint8 or float32."""
    import torch
    from torchvision.transforms.v2 import functional

    found = torch.from_numpy(images).permute(0, 3, 1, 2)
    if operator == "jitter":
        for index in value[0]:
            name = [*BLENDS, "hue"][index]
            found = getattr(functional, f"adjust_{name}")(found, value[1][index])
    elif operator == "grayscale":
        found = functional.rgb_to_grayscale(found, num_output_channels=3)
    elif operator == "gaussian_blur":
        found = functional.gaussian_blur(found, [KERNEL, KERNEL], [value, value])
    else:
        found = getattr(functional, f"adjust_{operator}")(found, value)
    return found.permute(0, 2, 3, 1).numpy()


def pillows(operator, value, image):
    """The same by Pillow as UniMatch calls it, by way of torchvision; one uint8 [H, W, 3]."""
    image = Image.fromarray(image)
    if operator == "hue":
        hue, saturation, shade = image.convert("HSV").split()
        turned = (np.asarray(hue, np.int32) + int(value * 255)) % 256
        planes = (Image.fromarray(turned.astype(np.uint8)), saturation, shade)
        return np.asarray(Image.merge("HSV", planes).convert("RGB"))
    if operator == "grayscale":
        return np.asarray(image.convert("L").convert("RGB"))
    if operator == "gaussian_blur":
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius=value)))
    names = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}
    return np.asarray(getattr(ImageEnhance, names[operator])(image).enhance(value))


def cases(operator):
    """(name in the reference, parameter) of an operator."""
    if operator == "jitter":
        listed = {name: ([int(c) for c in name], factors) for name, factors in JITTERS.items()}
    else:
        listed = {str(value): value for value in CASES[operator]}
    return [(f"{operator} {name}", value) for name, value in listed.items()]


def difference(operator, value, images, expected):
    """Our operator on uint8 images less what is expected of it, in any type."""
    values = tuple(map(np.asarray, value)) if operator == "jitter" else np.float32(value or 0)
    found = ours(operator, values, images.astype(np.float32) / 255)
    if expected.dtype == np.uint8:
        expected = expected / np.float32(255)
    return np.asarray(found) - expected


def error(operator, value, images, expected):
    return float(np.abs(difference(operator, value, images, expected)).max())


def torchvision_error(operator, dtype):
    """Largest error over the cases of the kept reference; dtype "float32" or "uint8"."""
    with np.load(REFERENCE) as kept:
        found = [error(operator, v, images(), kept[f"{n} {dtype}"]) for n, v in cases(operator)]
    return max(found)


def pillow_error(operator):
    """Largest error over the cases and over photographs, and noise but for the blur."""
    examples = [photographs()] if operator == "gaussian_blur" else [photographs(), images()]
    return max(np.abs(e).max() for x in examples for e in pillow_differences(operator, x))


def pillow_blur_mean_error():
    """Mean error over the pixels of that photograph, at that sigma, where it is largest."""
    found = pillow_differences("gaussian_blur", photographs())
    return max(np.abs(x).mean(axis=(1, 2, 3)).max() for x in found)


def pillow_differences(operator, images):
    """For each case, ours less Pillow's of images uint8 [B, H, W, 3]."""
    for _, value in cases(operator):
        expected = np.stack([pillows(operator, value, image) for image in images])
        yield difference(operator, value, images, expected)


def colorsys_error():
    """Largest error of the hue, of noise, pixel by pixel."""
    found = []
    for turns in CASES["hue"]:
        expected = np.empty(images().shape, np.float32)
        for place, pixel in zip(np.ndindex(expected.shape[:3]), images().reshape(-1, 3), strict=1):
            hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
            expected[place] = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        found.append(error("hue", turns, images(), expected))
    return max(found)


def opencv_error():
    """Largest error of the blur, of noise."""
    found = []
    for sigma_px in CASES["gaussian_blur"]:
        floats = images().astype(np.float32) / 255
        options = {"sigmaX": sigma_px, "borderType": cv2.BORDER_REFLECT_101}
        expected = [cv2.GaussianBlur(image, (KERNEL, KERNEL), **options) for image in floats]
        found.append(error("gaussian_blur", sigma_px, images(), np.stack(expected)))
    return max(found)


def photographs(count=4):
    """The first images of the packaged sample, uint8 [B, H, W, 3]."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:count]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def checks():
    """(operator, reference, function of no arguments → largest error, bound) of every one."""
    with np.load(REFERENCE) as kept:
        torchvision = f"torchvision {kept['version']}"
    pillow, partial = f"Pillow {PIL.__version__}", functools.partial
    found = []
    for operator in CASES:
        for dtype, bound in (("float32", FLOAT_BOUND), ("uint8", BOUND)):
            largest = partial(torchvision_error, operator, dtype)
            found.append((operator, f"{torchvision}, {dtype}", largest, bound))
        bound = PILLOW_BOUNDS.get(operator, BOUND)
        found.append((operator, pillow, partial(pillow_error, operator), bound))
    in_turn = partial(torchvision_error, "jitter", "float32")
    found += [
        ("color_jitter", f"{torchvision}, float32, in turn", in_turn, FLOAT_BOUND),
        ("gaussian_blur", f"{pillow}, mean of a photograph", pillow_blur_mean_error, 1 / 255),
        ("gaussian_blur", f"OpenCV {cv2.__version__}", opencv_error, 1e-5),
        ("hue", "colorsys", colorsys_error, 1e-5),
    ]
    return found


def rows():
    """(operator, reference, largest error, bound) of every operator and reference."""
    return [
        (name, reference, float(largest()), bound) for name, reference, largest, bound in checks()
    ]


def write():
    """Needs torchvision: `pip install torchvision`, with the PyTorch that it asks for."""
    import torchvision

    kept = {"version": torchvision.__version__.split("+")[0]}
    floats = images().astype(np.float32) / 255
    for operator in [*CASES, "jitter"]:
        for name, value in cases(operator):
            kept[f"{name} float32"] = torchvisions(operator, value, floats)
            if operator != "jitter":
                kept[f"{name} uint8"] = torchvisions(operator, value, images())
    np.savez_compressed(REFERENCE, **kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write operator_reference.npz anew")
    if parser.parse_args().write:
        write()
    print("| operator | reference | largest error | in steps of 1/255 | bound |")
    print("|---|---|---|---|---|")
    for operator, reference, largest, bound in rows():
        print(f"| {operator} | {reference} | {largest:.2g} | {255 * largest:.2f} | {bound:.2g} |")


if __name__ == "__main__":
    main()
