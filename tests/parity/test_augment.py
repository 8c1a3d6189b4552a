"""Views of pictures against NumPy, with the formulas of Keras' ImageDataGenerator."""
import graft_testing as t
import numpy as np
from PIL import Image, ImageEnhance

FILL = {"nearest": 0, "constant": 1, "reflect": 2, "wrap": 3}


def affine(picture, theta=0, tx=0, ty=0, shear=0, zx=1, zy=1, fill="nearest"):
    """Bilinear, about the middle; tx and ty in pixels. As apply_affine_transform() on (x, y)."""
    height, width, _ = picture.shape
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
    big = np.pad(picture.astype(float), ((pad, pad), (pad, pad), (0, 0)), mode)
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
        self.picture = np.asarray(self.image)

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
                    want = affine(self.picture, theta, sx * 60, py, shear, zx, zy, fill)
                    # Pixels whose source lies on the border may fall on either side of it.
                    off = np.abs(got - want) > 0.51
                    self.assertLess(off.mean(), 0.003 if fill == "constant" else 1e-9)

    def test_flips_channel_brightness(self):
        p = self.picture.astype(float)
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
            h, s, v = colorsys.rgb_to_hsv(*(self.picture[y, x] / 255))
            want = np.array(colorsys.hsv_to_rgb((h + 0.3) % 1, s, v)) * 255
            self.assertLessEqual(np.abs(got[y, x] - want).max(), 0.51)

    def test_order_is_keras(self):
        # Affine, channel, flip, brightness; each rounds to whole levels.
        p = np.round(affine(self.picture, theta=20))
        p = np.clip(p + 30, p.min(), p.max())[:, ::-1]
        self.close(self.probe(theta=20, channel=30, hflip=1, brightness=0.5), p * 0.5, 1.01)

    def test_drawn_views_repeat_and_differ(self):
        words = "rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip crop:0.5-1 erase:0.5"
        a = self.probe(augment=words, seed=1, number=0)
        np.testing.assert_array_equal(a, self.probe(augment=words, seed=1, number=0))
        for other in (dict(seed=2, number=0), dict(seed=1, number=1)):
            self.assertGreater(np.abs(a - self.probe(augment=words, **other)).mean(), 1)

    def test_two_views_for_hflip_are_the_picture_and_its_mirror_image(self):
        views = [self.probe(augment="hflip", number=n) for n in range(2)]
        p = self.picture.astype(float)
        self.assertEqual(sorted(v.tobytes() for v in views),
                         sorted(v.tobytes() for v in (p, p[:, ::-1])))


if __name__ == "__main__":
    t.main()
