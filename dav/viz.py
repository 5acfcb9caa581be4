"""Numbers → pictures: colour maps, encoded images, line charts. Host side, NumPy only."""

import base64
import html

import cv2
import numpy as np

INVALID_RGB = (90, 90, 90)
# Near is warm or bright. "spectral" (ColorBrewer's, as the authors of the method draw their maps)
# keeps the far end readable; inferno, magma and viridis are perceptually uniform.
SPECTRAL_RGB = (
    (94, 79, 162), (50, 136, 189), (102, 194, 165), (171, 221, 164), (230, 245, 152),
    (255, 255, 191), (254, 224, 139), (253, 174, 97), (244, 109, 67), (213, 62, 79), (158, 1, 66),
)  # fmt: skip
LINE_COLORS = ("#d9480f", "#1971c2", "#2b8a3e", "#862e9c")


def interpolate_colors(anchors):
    """RGB anchors → a table of 256 colours, uint8 [256, 1, 3] in OpenCV's order, blue first."""
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, range(len(anchors)), column) for column in zip(*anchors, strict=True)]
    return np.rint(np.stack(channels[::-1], axis=-1)).astype(np.uint8)[:, None]


COLORMAPS = {
    "spectral": interpolate_colors(SPECTRAL_RGB),
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "turbo": cv2.COLORMAP_TURBO,
    "grey": interpolate_colors(((0, 0, 0), (255, 255, 255))),
}


def colorize(values, low, high, *, valid=None, colormap=cv2.COLORMAP_INFERNO):
    """float [H, W] → uint8 RGB [H, W, 3]; low is dark, high is bright, invalid pixels are grey.

    `colormap` is one of COLORMAPS' values. The default is perceptually uniform: equal steps look
    equal.
    """
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    colored = cv2.applyColorMap((scaled * 255).astype(np.uint8), colormap)[..., ::-1]
    if valid is not None:
        colored = np.where(valid[..., None], colored, np.uint8(INVALID_RGB))
    return np.ascontiguousarray(colored)


def disparity_range(disparity, valid):
    """The 2nd and 98th percentile over valid pixels: a range that outliers do not spoil."""
    values = disparity[valid]
    low, high = np.percentile(values, [2, 98]) if values.size else (0.0, 1.0)
    return float(low), float(high)


def encode_jpeg(image, quality=88):
    """uint8 RGB → the bytes of a JPEG file."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def encode_png(image):
    """uint8 RGB → the bytes of a PNG file."""
    return cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()


def image_tag(image, title="", *, quality=88):
    """uint8 RGB → an <img> that carries its own JPEG."""
    return jpeg_tag(encode_jpeg(image, quality), image.shape, title)


def jpeg_tag(content, shape, title=""):
    """The bytes of a JPEG file of shape [H, W, …] → an <img> that carries them."""
    data = base64.b64encode(content).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{shape[1]}" height="{shape[0]}" '
        f'alt="{html.escape(title)}" title="{html.escape(title)}" loading="lazy">'
    )


def scale_tag(colormap, *, stops=9):
    """One of COLORMAPS' values → a bar of its colours, low to the left, for a legend."""
    colors = colorize(np.linspace(0, 1, stops)[None], 0, 1, colormap=colormap)[0]
    hexes = ", ".join("#{:02x}{:02x}{:02x}".format(*color) for color in colors)
    return f'<span class="scale" style="background: linear-gradient(90deg, {hexes})"></span>'


def line_chart(curves, *, title, width=440, height=250):
    """An SVG chart of curves {name: (x values, y values)}, all with one pair of linear axes."""
    curves = {name: points for name, points in curves.items() if len(points[0])}
    if not curves:
        return ""
    xs, ys = (np.concatenate([c[i] for c in curves.values()]) for i in (0, 1))
    x_max, y_max = float(xs.max()), float(ys.max()) * 1.05 or 1.0
    left, right, top, bottom = 42, 12, 30, 28
    parts = [f'<text x="{left}" y="16" class="title">{html.escape(title)}</text>']

    def place(x, y):
        across = left + (width - left - right) * x / max(x_max, 1)
        return across, height - bottom - (height - top - bottom) * y / y_max

    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(0, share * y_max)
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        label = f"{share * y_max:.2g}".replace("e-0", "e-")
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        x, _ = place(share * x_max, 0)
        label = f"{share * x_max:.0f}"
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{label}</text>')
    legend_x = width - right
    for index, (name, (x, y)) in enumerate(curves.items()):
        color = LINE_COLORS[index % len(LINE_COLORS)]
        points = " ".join("{:.1f},{:.1f}".format(*place(a, b)) for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" stroke="{color}"/>')
        parts.append(
            f'<text x="{legend_x}" y="{top + 12 + 16 * index}" text-anchor="end" '
            f'style="fill: {color}">{html.escape(name)}</text>'
        )
    return f'<svg viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
