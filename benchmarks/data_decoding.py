"""JPEG decoders and methods of resizing: the part `decoding` of benchmarks/data.py."""

import importlib.util
import statistics
import time

import cv2
import numpy as np
from data_records import CROP_PX, SIDE_PX, SIZES_PX, collages, jpeg_of, print_table


def measure_decoding(photos):
    rows, psnr = [], []
    for name, size_px in {**SIZES_PX, "1024×1536": (1024, 1536)}.items():
        images = [jpeg_of(image) for image in collages(photos, size_px, 16)]
        for decoder, decode in decoders().items():
            seconds = timed_each(decode, images)
            rows.append({"images": name, "decoder": decoder, "ms": 1e3 * seconds})
            rows[-1]["decodes to"] = "×".join(map(str, decode(images[0]).shape[:2]))
        psnr += resizing_rows(name, images)
    print_table("JPEG decoders, one thread", rows)
    print_table("resizing to short side 518, PSNR to full decoding and area average", psnr)
    return {"decoders": rows, "resizing": psnr}


def decoders():
    """Functions from a JPEG's bytes to an array, by name."""
    from dav.data.decoding import decode_image, decode_reduced

    found = {
        "OpenCV, in full": lambda data: decode_image(data, ""),
        "OpenCV, reduced (dav)": lambda data: decode_reduced(data, "", lambda h, w: CROP_PX)[0],
    }
    if importlib.util.find_spec("simplejpeg"):
        import simplejpeg

        found["simplejpeg, in full"] = simplejpeg.decode_jpeg
        found["simplejpeg, any n/8"] = lambda data: simplejpeg.decode_jpeg(
            data, min_height=SIDE_PX, min_width=SIDE_PX
        )
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        found["imagecodecs, in full"] = imagecodecs.jpeg8_decode
    return found


def resizing_rows(name, images):
    from dav.data.transforms import network_size, resize_crop

    cases, available = {}, decoders()
    for decoder in available:
        if decoder != "imagecodecs, in full" and decoder != "simplejpeg, in full":
            for method in ("LINEAR", "CUBIC", "AREA"):
                cases[decoder, method.lower()] = (available[decoder], resizer(method))
    cases["OpenCV, reduced (dav)", "dav's"] = (available["OpenCV, reduced (dav)"], resize_crop)
    figures = {case: ([], []) for case in cases}
    for data in images:
        full = available["OpenCV, in full"](data)
        size = network_size(*full.shape[:2], SIDE_PX)
        reference = resizer("AREA")(full, size)
        for case, (decode, resize) in cases.items():
            image = decode(data)
            seconds, error = figures[case]
            seconds.append(timed_each(lambda image: resize(image, size), [image], repeats=3))  # noqa: B023
            error.append(np.square(resize(image, size).astype(float) - reference).mean())
    return [
        {
            "images": name,
            "decoder": decoder,
            "resize": method,
            "ms": 1e3 * statistics.median(seconds),
            "PSNR dB": decibels(statistics.mean(error)),
            "worst dB": decibels(max(error)),
        }
        for (decoder, method), (seconds, error) in figures.items()
    ]


def resizer(method):
    flag = getattr(cv2, f"INTER_{method}")
    return lambda image, size: cv2.resize(image, size[::-1], interpolation=flag)


def decibels(error):
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def timed_each(work, items, repeats=7):
    """Median seconds an item."""
    cv2.setNumThreads(1)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for item in items:
            work(item)
        times.append((time.perf_counter() - begin) / len(items))
    return statistics.median(times)
