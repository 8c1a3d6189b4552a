"""Decoding and resampling against Pillow: Debian 12's 9.4 by default; docs/formats.md names the versions
that were checked."""
import io
import os

import graft_testing as t
import numpy as np
import PIL
from PIL import Image


def photo_like(width, height, seed=0, mode="RGB"):
    """Smooth colours with some detail: what codecs are made for."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(height // 8, 2), max(width // 8, 2), 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.BICUBIC)
    noise = random.integers(-12, 13, (height, width, 3))
    array = np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(array).convert(mode)


def four_neighbours(image, width, height):
    """tf.image.resize(image, (height, width)) without antialias, by its documentation."""
    def axis(array, size, along):
        at = (np.arange(size) + 0.5) * (array.shape[along] / size) - 0.5
        low = np.floor(at).astype(int)
        share = np.expand_dims(at - low, (1, 2) if along == 0 else (0, 2))
        low, high = (np.clip(low + k, 0, array.shape[along] - 1) for k in (0, 1))
        return array.take(low, along) * (1 - share) + array.take(high, along) * share
    return np.rint(axis(axis(image.astype(float), width, 1), height, 0)).astype(int)


class Images(t.TestCase):
    def probe(self, path, *arguments):
        done = t.tool("image_probe", path, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        head, _, raw = done.stdout.partition(b"\n")
        width, height = map(int, head.split())
        return np.frombuffer(raw, np.uint8).reshape(height, width, 3)

    def save(self, image, name, **options):
        path = self.folder / name
        image.save(path, **options)
        return path

    def assertClose(self, got, want, most=0):
        self.assertEqual(got.shape, want.shape)
        self.assertLessEqual(np.abs(got.astype(int) - want.astype(int)).max(), most)

    def test_jpeg(self):
        for name, mode, options in (("a.jpg", "RGB", {}), ("p.jpg", "RGB", {"progressive": True}),
                                    ("g.jpg", "L", {}), ("s.jpg", "RGB", {"subsampling": 0}),
                                    ("q.jpg", "RGB", {"quality": 20})):
            path = self.save(photo_like(93, 61, mode=mode), name, **options)
            self.assertClose(self.probe(path), np.asarray(Image.open(path).convert("RGB")))

    def test_cmyk_jpeg(self):
        path = self.save(photo_like(64, 48).convert("CMYK"), "c.jpg", quality=95)
        # Pillow truncates where we round.
        self.assertClose(self.probe(path), np.asarray(Image.open(path).convert("RGB")), 1)

    def test_png(self):
        for name, image in (("rgb.png", photo_like(40, 30)), ("grey.png", photo_like(40, 30, mode="L")),
                            ("bit.png", photo_like(40, 30, mode="1"))):
            path = self.save(image, name)
            self.assertClose(self.probe(path), np.asarray(Image.open(path).convert("RGB")))
        palette = photo_like(40, 30).quantize(17)
        path = self.save(palette, "palette.png")
        self.assertClose(self.probe(path), np.asarray(palette.convert("RGB")))

    def test_png_interlaced(self):
        # Pillow cannot write Adam7, so a file made by libpng's own pngtest palette is built by hand:
        # an interlaced 1×1 image has the same data as a plain one.
        import struct
        import zlib

        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(
                ">I", zlib.crc32(kind + data))
        header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
        path = self.folder / "i.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                         + chunk(b"IDAT", zlib.compress(b"\0\x10\x20\x30")) + chunk(b"IEND", b""))
        self.assertEqual(self.probe(path).tolist(), [[[16, 32, 48]]])

    def test_png_16_bit_keeps_the_high_byte(self):
        array = (np.arange(40 * 30).reshape(30, 40) * 53 % 65536).astype(np.uint16)
        path = self.save(Image.fromarray(array), "deep.png")
        self.assertClose(self.probe(path), np.repeat((array >> 8)[..., None], 3, 2).astype(np.uint8))

    def test_alpha_is_composited_on_white(self):
        image = photo_like(40, 30).convert("RGBA")
        image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))))
        white = Image.new("RGBA", image.size, "white")
        want = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
        self.assertClose(self.probe(self.save(image, "a.png")), want, 1)
        lossless = self.save(image, "a.webp", lossless=True, exact=True)
        self.assertClose(self.probe(lossless), want, 1)

    def test_webp(self):
        path = self.save(photo_like(75, 51), "a.webp", quality=80)
        self.assertClose(self.probe(path), np.asarray(Image.open(path).convert("RGB")))

    def test_exif_orientation(self):
        image = photo_like(24, 16)
        for kind, options in (("jpg", {"quality": 95}), ("png", {}), ("webp", {"lossless": True})):
            for orientation in range(1, 9):
                exif = Image.Exif()
                exif[0x0112] = orientation
                path = self.save(image, f"o{orientation}.{kind}", exif=exif.tobytes(), **options)
                from PIL import ImageOps
                want = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
                self.assertClose(self.probe(path), want)

    def test_content_decides_not_the_extension(self):
        png = self.save(photo_like(20, 20), "x.png")
        lying = self.folder / "x.jpg"
        lying.write_bytes(png.read_bytes())
        self.assertClose(self.probe(lying), self.probe(png))

    def test_resampling_is_pillows(self):
        sizes = [(150, 150, 224, 224), (224, 224, 150, 150), (640, 480, 224, 224), (97, 203, 50, 60),
                 (33, 17, 200, 3), (5, 5, 1, 1), (1, 1, 7, 5), (301, 299, 150, 150), (119, 260, 244, 159),
                 (1, 3000, 30, 7), (3000, 1, 7, 30), (64, 48, 64, 31), (64, 48, 31, 48)]
        for index, (w, h, to_w, to_h) in enumerate(sizes):
            image = photo_like(w, h, seed=index)
            path = self.save(image, f"r{index}.png")
            got = self.probe(path, to_w, to_h, "bilinear")
            # The horizontal pass comes first, then the vertical one, with whole levels between.
            passes = image.resize((to_w, h), Image.BILINEAR).resize((to_w, to_h), Image.BILINEAR)
            self.assertClose(got, np.asarray(passes))
            # From version 13 on Pillow takes them in the other order where that is less work.
            one_level = 1 if int(PIL.__version__.split(".")[0]) >= 13 else 0
            self.assertClose(got, np.asarray(image.resize((to_w, to_h), Image.BILINEAR)), one_level)
            self.assertClose(self.probe(path, to_w, to_h, "nearest"),
                             np.asarray(image.resize((to_w, to_h), Image.NEAREST)))
            passes = image.resize((to_w, h), Image.BICUBIC).resize((to_w, to_h), Image.BICUBIC)
            self.assertClose(self.probe(path, to_w, to_h, "bicubic"), np.asarray(passes))
            self.assertClose(self.probe(path, to_w, to_h, "bilinear-noaa"),
                             four_neighbours(np.asarray(image), to_w, to_h), 1)

    def test_torchvision_geometry(self):
        for index, (w, h) in enumerate([(300, 200), (200, 300), (256, 256), (100, 90), (1000, 333),
                                        (257, 255), (30, 900), (255, 511)]):
            image = photo_like(w, h, seed=index)
            path = self.save(image, f"t{index}.png")
            # torchvision.transforms.Resize(256) and CenterCrop(224), by its documentation.
            size = (256, int(256 * h / w)) if w <= h else (int(256 * w / h), 256)
            scaled = image.resize(size, Image.BILINEAR)
            left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
            want = np.asarray(scaled.crop((left, top, left + 224, top + 224)))
            self.assertClose(self.probe(path, 224, 224, "torchvision"), want)

    def test_damaged_files(self):
        buffer = io.BytesIO()
        for kind, options in (("JPEG", {}), ("PNG", {}), ("WEBP", {"quality": 90}),
                              ("JPEG", {"progressive": True})):
            buffer = io.BytesIO()
            photo_like(120, 90).save(buffer, kind, **options)
            data = buffer.getvalue()
            for share in (0.05, 0.3, 0.6, 0.9):
                path = self.folder / "cut"
                path.write_bytes(data[:int(len(data) * share)])
                done = t.tool("image_probe", path)
                self.assertEqual(done.returncode, 1, f"{kind} cut at {share}")
                self.assertIn(str(path).encode(), done.stderr)

    def test_huge_header_is_refused_before_memory_is_taken(self):
        import struct
        import zlib
        header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
        path = self.folder / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header
                         + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 0) + b"IDAT"
                         + struct.pack(">I", zlib.crc32(b"IDAT")))
        done = t.tool("image_probe", path)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"60000x60000 pixels are more than the limit", done.stderr)

    def test_named_pipe_does_not_hang(self):
        path = self.folder / "pipe.jpg"
        os.mkfifo(path)
        done = t.tool("image_probe", path, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"not a regular file", done.stderr)


if __name__ == "__main__":
    t.main()
