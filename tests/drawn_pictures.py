"""Drawn scenes of a few kinds: pictures that may be shown, and that a network tells apart."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

SIZE = 320
# Drawn larger, and made smaller: smooth edges.
LARGE = 2 * SIZE
Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw


def colour(hue: float, saturation: float, value: float) -> Colour:
    """A colour by hue, saturation and value, each in 0..1; the hue may lie beyond."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def sky(top: Colour, bottom: Colour) -> tuple[Image.Image, Pen]:
    """A picture that goes from one colour to another, and a pen for it."""
    ramp = Image.linear_gradient("L").resize((LARGE, LARGE))
    image = Image.composite(Image.new("RGB", ramp.size, bottom), Image.new("RGB", ramp.size, top), ramp)
    return image, ImageDraw.Draw(image)


def disc(pen: Pen, x: float, y: float, radius: float, fill: Colour) -> None:
    """A filled circle."""
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def ridge(pen: Pen, chance: Random, height: float, rough: float, fill: Colour) -> None:
    """Hills from one side to the other; `height` and `rough` are shares of the picture."""
    waves = [(chance.uniform(0.5, 4), chance.uniform(0, 7), chance.uniform(0.3, 1)) for _ in range(4)]
    tops = [
        (x, LARGE * (1 - height - rough * sum(a * math.sin(f * x / 90 + p) for f, p, a in waves) / 4))
        for x in range(0, LARGE + 1, 8)
    ]
    pen.polygon([(0, LARGE), *tops, (LARGE, LARGE)], fill=fill)


def sunset(chance: Random) -> Image.Image:
    """A low sun over water."""
    hue = chance.uniform(0.98, 1.1)
    image, pen = sky(colour(hue - 0.25, 0.55, 0.5), colour(hue, 0.6, 1))
    x, y = chance.uniform(0.25, 0.75) * LARGE, chance.uniform(0.45, 0.6) * LARGE
    disc(pen, x, y, chance.uniform(60, 95), colour(0.13, 0.35, 1))
    pen.rectangle((0, 0.64 * LARGE, LARGE, LARGE), fill=colour(hue - 0.28, 0.6, 0.45))
    for row in range(9):
        wide, down = chance.uniform(20, 110), 0.66 * LARGE + 24 * row
        pen.rounded_rectangle((x - wide, down, x + wide, down + 7), 4, fill=colour(hue, 0.5, 1))
    return image


def mountains(chance: Random) -> Image.Image:
    """Peaks with snow."""
    hue = chance.uniform(0.52, 0.62)
    image, pen = sky(colour(hue, 0.5, 0.85), colour(hue, 0.12, 1))
    for depth in range(3):
        shade = colour(hue + 0.03 * depth, 0.4, 0.62 - 0.15 * depth)
        for _ in range(3):
            x, top = chance.uniform(0, LARGE), LARGE * (0.25 + 0.17 * depth + chance.uniform(0, 0.12))
            pen.polygon([(x - 260, LARGE), (x, top), (x + 260, LARGE)], fill=shade)
            shape = (-52, 100), (0, 0), (52, 100), (15, 70), (-14, 96)
            pen.polygon([(x + across, top + down) for across, down in shape], fill=(248, 251, 255))
    return image


def forest(chance: Random) -> Image.Image:
    """Firs on a hill."""
    hue = chance.uniform(0.28, 0.42)
    image, pen = sky(colour(hue + 0.15, 0.18, 0.96), colour(hue + 0.1, 0.1, 1))
    for depth in range(3):
        ridge(pen, chance, 0.42 - 0.14 * depth, 0.05, colour(hue, 0.45, 0.75 - 0.16 * depth))
        for _ in range(9):
            x, foot = chance.uniform(0, LARGE), LARGE * (0.62 + 0.15 * depth + chance.uniform(0, 0.06))
            tall = 120 + 40 * depth
            for layer in range(3):
                low, wide = foot - layer * tall / 4, tall / 3 - 11 * layer
                fir = colour(hue, 0.6, 0.6 - 0.14 * depth)
                pen.polygon([(x - wide, low), (x, low - tall / 2), (x + wide, low)], fill=fir)
    return image


def city(chance: Random) -> Image.Image:
    """Towers at night, with lit windows."""
    hue = chance.uniform(0.6, 0.76)
    image, pen = sky(colour(hue, 0.75, 0.2), colour(hue + 0.08, 0.5, 0.55))
    disc(pen, chance.uniform(80, LARGE - 80), 110, 42, colour(0.14, 0.15, 1))
    for left in range(-20, LARGE, 82):
        top = LARGE * chance.uniform(0.3, 0.7)
        pen.rectangle((left, top, left + 74, LARGE), fill=colour(hue, 0.6, chance.uniform(0.1, 0.22)))
        for x in range(left + 12, left + 60, 20):
            for y in range(int(top) + 16, LARGE, 28):
                if chance.random() < 0.5:
                    pen.rectangle((x, y, x + 10, y + 14), fill=colour(0.12, 0.55, 1))
    return image


def boat(chance: Random) -> Image.Image:
    """A sail on the sea."""
    hue = chance.uniform(0.5, 0.57)
    image, pen = sky(colour(hue, 0.3, 1), colour(hue, 0.06, 1))
    ridge(pen, chance, 0.36, 0.02, colour(hue + 0.03, 0.6, 0.75))
    x, y, size = chance.uniform(0.35, 0.65) * LARGE, 0.7 * LARGE, chance.uniform(0.8, 1.2)
    sail = colour(chance.uniform(0, 1), 0.65, 0.95)
    pen.polygon([(x, y - 330 * size), (x, y - 30), (x + 150 * size, y - 30)], fill=(253, 252, 247))
    pen.polygon([(x - 12, y - 290 * size), (x - 12, y - 30), (x - 110 * size, y - 30)], fill=sail)
    hull = (-140, -15), (150, -15), (100, 45), (-95, 45)
    pen.polygon([(x + across * size, y + down) for across, down in hull], fill=colour(0.06, 0.65, 0.4))
    ridge(pen, chance, 0.24, 0.015, colour(hue + 0.04, 0.7, 0.6))
    return image


def flower(chance: Random) -> Image.Image:
    """One large flower on a meadow."""
    hue = chance.uniform(0.78, 1.14)
    image, pen = sky(colour(0.3, 0.3, 0.95), colour(0.3, 0.55, 0.6))
    x, y, petals = chance.uniform(0.4, 0.6) * LARGE, 0.42 * LARGE, chance.choice([5, 6, 7, 8])
    pen.line((x, y, x + chance.uniform(-60, 60), LARGE), fill=colour(0.33, 0.7, 0.4), width=18)
    for petal in range(petals):
        turn = 2 * math.pi * petal / petals + chance.uniform(0, 0.2)
        disc(pen, x + 115 * math.cos(turn), y + 115 * math.sin(turn), 78, colour(hue, 0.55, 0.97))
    disc(pen, x, y, 68, colour(0.12, 0.8, 0.98))
    return image


def balloon(chance: Random) -> Image.Image:
    """A striped balloon over fields."""
    hue, base = chance.uniform(0, 1), chance.uniform(0.54, 0.6)
    image, pen = sky(colour(base, 0.55, 0.95), colour(base, 0.1, 1))
    ridge(pen, chance, 0.16, 0.04, colour(0.25, 0.45, 0.7))
    x, y = chance.uniform(0.35, 0.65) * LARGE, chance.uniform(0.32, 0.42) * LARGE
    wide = chance.uniform(130, 165)
    neck = (-0.8, 0.55), (0.8, 0.55), (0, 1.75)
    pen.polygon([(x + a * wide, y + d * wide) for a, d in neck], fill=colour(hue, 0.7, 0.8))
    for stripe in range(5):
        part = wide * (1 - 0.24 * stripe)
        fill = colour(hue + (0.12 if stripe % 2 else 0), 0.2 if stripe % 2 else 0.7, 0.97)
        pen.ellipse((x - part, y - wide, x + part, y + wide), fill=fill)
    basket = x - 30, y + 1.85 * wide, x + 30, y + 1.85 * wide + 45
    pen.rounded_rectangle(basket, 8, fill=colour(0.08, 0.6, 0.45))
    return image


def planet(chance: Random) -> Image.Image:
    """A planet with a ring among stars."""
    hue = chance.uniform(0, 1)
    image, pen = sky(colour(0.68, 0.75, 0.1), colour(0.76, 0.6, 0.26))
    for _ in range(90):
        disc(pen, chance.uniform(0, LARGE), chance.uniform(0, LARGE), chance.uniform(1, 4), (235, 238, 255))
    x, y = chance.uniform(0.4, 0.6) * LARGE, chance.uniform(0.4, 0.6) * LARGE
    radius = chance.uniform(100, 150)
    disc(pen, x, y, radius, colour(hue, 0.5, 0.95))
    disc(pen, x - 0.25 * radius, y - 0.25 * radius, 0.62 * radius, colour(hue, 0.38, 1))
    ring = (x - 1.8 * radius, y - 0.45 * radius, x + 1.8 * radius, y + 0.45 * radius)
    pen.arc(ring, -20, 200, fill=colour(hue + 0.1, 0.25, 1), width=16)
    return image


KINDS: dict[str, Callable[[Random], Image.Image]] = {
    "balloons": balloon,
    "boats": boat,
    "cities": city,
    "flowers": flower,
    "forests": forest,
    "mountains": mountains,
    "planets": planet,
    "sunsets": sunset,
}


def drawn(kind: str, number: int) -> Image.Image:
    """The picture of a kind, always the same for a number."""
    large = KINDS[kind](Random(f"{kind} {number}"))
    return large.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def draw_folder(folder: Path, each: int) -> None:
    """A folder of pictures as JPEG, a folder in it for each kind."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            drawn(kind, number).save(folder / kind / f"{number:02}.jpg", quality=88)
