"""Views of images against NumPy, with the formulas of Keras' ImageDataGenerator."""
import graft_testing as t
import numpy as np
from PIL import Image, ImageEnhance

FILL = {"nearest": 0, "constant": 1, "reflect": 2, "wrap": 3}


# What augment_probe prints of a drawn view.
NUMBERS = ("theta", "shift_x", "shift_y", "pixels_x", "pixels_y", "shear", "zoom_x", "zoom_y", "channel",
           "hflip", "vflip", "brightness")


def affine(image, theta=0, tx=0, ty=0, shear=0, zx=1, zy=1, fill="nearest"):
    """Bilinear, about the middle; tx and ty in pixels. As Keras' apply_affine_transform() on (x, y),
    which takes height for width in the middle of images that are not square (docs/augmentation.md)."""
    height, width, _ = image.shape
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    m = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    m = m @ np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    m = m @ np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    m = m @ np.diag([zx, zy, 1])
    cx, cy = width / 2 - 0.5, height / 2 - 0.5
    m = np.array([[1, 0, cx], [0, 1, cy], [0, 0, 1]]) @ m @ np.array(
        [[1, 0, -cx], [0, 1, -cy], [0, 0, 1]])
    y, x = np.mgrid[0:height, 0:width]
    sx, sy, _ = np.tensordot(m, np.stack([x, y, np.ones_like(x)]), 1)
    pad = 4 * max(height, width)
    mode = {"nearest": "edge", "constant": "edge", "reflect": "symmetric", "wrap": "wrap"}[fill]
    big = np.pad(image.astype(float), ((pad, pad), (pad, pad), (0, 0)), mode)
    x0, y0 = np.floor(sx).astype(int), np.floor(sy).astype(int)
    ax, ay = (sx - x0)[..., None], (sy - y0)[..., None]
    at = lambda dy, dx: big[y0 + dy + pad, x0 + dx + pad]
    out = (at(0, 0) * (1 - ax) + at(0, 1) * ax) * (1 - ay) + (at(1, 0) * (1 - ax) + at(1, 1) * ax) * ay
    if fill == "constant":
        out[(sx < 0) | (sy < 0) | (sx > width - 1) | (sy > height - 1)] = 0
    return out


class Augment(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(3)
        small = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        self.image = small.resize((60, 44), Image.BICUBIC)
        self.path = self.folder / "p.png"
        self.image.save(self.path)
        self.array = np.asarray(self.image)

    def probe(self, **numbers):
        done = t.tool("augment_probe", self.path, *(f"{k}={v}" for k, v in numbers.items()))
        self.assertEqual(done.returncode, 0, done.stderr)
        head, _, raw = done.stdout.partition(b"\n")
        width, height = map(int, head.split())
        return np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(float)

    def close(self, got, want, most=0.51):
        self.assertEqual(got.shape, want.shape)
        self.assertLessEqual(np.abs(got - want).max(), most)

    def test_affine(self):
        for fill in FILL:
            for theta, sx, py, shear, zx, zy in ((30, 0, 0, 0, 1, 1), (0, 0.25, -7.5, 0, 1, 1),
                                                 (0, 0, 0, 20, 1, 1), (0, 0, 0, 0, 0.6, 1.7),
                                                 (-75, 0.4, 11, -15, 1.3, 0.8)):
                with self.subTest(fill=fill, theta=theta, zx=zx):
                    got = self.probe(theta=theta, shift_x=sx, pixels_y=py, shear=shear, zoom_x=zx,
                                     zoom_y=zy, fill=FILL[fill])
                    want = affine(self.array, theta, sx * 60, py, shear, zx, zy, fill)
                    # Pixels whose source lies on the border may fall on either side of it.
                    off = np.abs(got - want) > 0.51
                    self.assertLess(off.mean(), 0.003 if fill == "constant" else 1e-9)

    def test_the_middle_stays_where_it_is(self):
        # Half a turn about the middle is both flips, and a quarter of a turn keeps the middle square.
        p = self.array.astype(float)
        self.close(self.probe(theta=180), p[::-1, ::-1])
        margin = (60 - 44) // 2
        for theta, turns in ((90, 1), (-90, -1)):
            square = p[:, margin:-margin]
            self.close(self.probe(theta=theta)[:, margin:-margin], np.rot90(square, turns))

    def test_landscape_and_portrait(self):
        # Turning the image on its side and then the view, or the other way round, is the same.
        upright = self.folder / "upright.png"
        self.image.transpose(Image.ROTATE_90).save(upright)
        for numbers in (dict(theta=30), dict(theta=-50, fill=2), dict(zoom_x=0.7, zoom_y=1.3)):
            wide = self.probe(**numbers)
            swapped = dict(numbers)
            if "zoom_x" in numbers:
                swapped = dict(zoom_x=numbers["zoom_y"], zoom_y=numbers["zoom_x"])
            self.path, path = upright, self.path
            high = self.probe(**swapped)
            self.path = path
            self.close(high, np.rot90(wide), 1)  # halves may be rounded either way

    def test_drawn_ranges(self):
        # Uniform over the whole range, independent of one another; zoom for each axis by itself.
        words = ("rotate:30 shift-x:0.2 shift-y:9 shear:15 zoom:0.7-1.2 channel:40 brightness:0.2-1.4 "
                 "hflip vflip")
        count = 4000
        done = t.tool("augment_probe", self.path, f"augment={words}", f"views={count}")
        drawn = np.array([line.split() for line in done.stdout.splitlines()], float).T
        drawn = dict(zip(NUMBERS, drawn))
        for name in ("shift_y", "pixels_x"):
            self.assertEqual(np.abs(drawn.pop(name)).max(), 0)
        ranges = {"theta": (-30, 30), "shift_x": (-0.2, 0.2), "pixels_y": (-9, 9), "shear": (-15, 15),
                  "zoom_x": (0.7, 1.2), "zoom_y": (0.7, 1.2), "channel": (-40, 40),
                  "brightness": (0.2, 1.4)}
        for name, (low, high) in ranges.items():
            share = np.sort((drawn[name] - low) / (high - low))
            # Kolmogorov and Smirnov: 1.95 / sqrt(n) is passed once in a thousand times.
            gap = np.abs(share - (np.arange(count) + 0.5) / count).max()
            self.assertLess(gap, 1.95 / count ** 0.5, name)
        for name in ("hflip", "vflip"):
            self.assertEqual(drawn[name].mean(), 0.5, name)
        together = np.abs(np.corrcoef(list(drawn.values())) - np.eye(len(drawn)))
        self.assertLess(together.max(), 0.07)

    def test_flips_channel_brightness(self):
        p = self.array.astype(float)
        self.close(self.probe(hflip=1), p[:, ::-1])
        self.close(self.probe(vflip=1), p[::-1])
        self.close(self.probe(hflip=1, vflip=1), p[::-1, ::-1])
        for shift in (-40.3, 60):
            self.close(self.probe(channel=shift), np.clip(p + shift, p.min(), p.max()))
        for factor in (0.1, 0.7, 1.6):
            self.close(self.probe(brightness=factor), np.clip(p * factor, 0, 255))

    def test_jitter_is_pillows(self):
        # Pillow truncates, and its grey levels are whole numbers: two levels of tolerance.
        for factor in (0.4, 1.7):
            self.close(self.probe(contrast=factor),
                       np.asarray(ImageEnhance.Contrast(self.image).enhance(factor), float), 2)
            self.close(self.probe(saturation=factor),
                       np.asarray(ImageEnhance.Color(self.image).enhance(factor), float), 2)

    def test_hue(self):
        import colorsys
        got = self.probe(hue=0.3)
        for y, x in ((0, 0), (10, 20), (43, 59), (30, 7)):
            h, s, v = colorsys.rgb_to_hsv(*(self.array[y, x] / 255))
            want = np.array(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v)) * 255
            self.assertLessEqual(np.abs(got[y, x] - want).max(), 0.51)

    def test_order_is_keras(self):
        # Affine, channel, flip, brightness; each rounds to whole levels.
        p = np.round(affine(self.array, theta=20))
        p = np.clip(p + 30, p.min(), p.max())[:, ::-1]
        self.close(self.probe(theta=20, channel=30, hflip=1, brightness=0.5), p * 0.5, 1.01)

    def test_drawn_views_repeat_and_differ(self):
        words = "rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip crop:0.5-1 erase:0.5"
        a = self.probe(augment=words, seed=1, number=0)
        np.testing.assert_array_equal(a, self.probe(augment=words, seed=1, number=0))
        for other in (dict(seed=2, number=0), dict(seed=1, number=1)):
            self.assertGreater(np.abs(a - self.probe(augment=words, **other)).mean(), 1)

    def test_two_views_for_hflip_are_the_image_and_its_mirror_image(self):
        views = [self.probe(augment="hflip", number=n) for n in range(2)]
        p = self.array.astype(float)
        self.assertEqual(sorted(v.tobytes() for v in views),
                         sorted(v.tobytes() for v in (p, p[:, ::-1])))


if __name__ == "__main__":
    t.main()
