"""HEIC, AVIF, GIF, TIFF and BMP: the pixels that Pillow has, or those that were encoded; what is damaged or
of another kind; the process that decodes them."""
import io
import os
import shutil
import struct
import subprocess
import unittest

import graft_testing as t
import numpy as np
from PIL import Image, ImageDraw

from test_image_files import Files, encode, smooth

HEIF_ENC = shutil.which("heif-enc")  # Debian's libheif-examples


def white_under(rgba):
    """What Graft does with alpha."""
    colour, alpha = rgba[..., :3].astype(int), rgba[..., 3:].astype(int)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def palette(image, colours):
    return image.quantize(colours, dither=Image.Dither.NONE)


def with_alpha(image):
    alpha = Image.new("L", image.size, 0)
    ImageDraw.Draw(alpha).ellipse((10, 5, 80, 60), fill=200)
    image = image.copy()
    image.putalpha(alpha)
    return image


class Kinds(Files):
    def equal(self, data, want, most=0):
        got = self.decode(data)
        self.assertEqual(got.shape, np.asarray(want).shape)
        difference = np.abs(got.astype(int) - np.asarray(want).astype(int))
        self.assertLessEqual(difference.max(), most)

    def truncated(self, data, step):
        """Cut anywhere: refused in a line, or nothing is lost."""
        whole = self.decode(data)
        for size in range(0, len(data) - 1, step):
            code, pixels, errors, *_ = self.run_probe(data[:size])
            if code == 0:
                np.testing.assert_array_equal(pixels, whole)
            else:
                self.assertEqual((code, errors.count("\n")), (1, 1), errors)


class Gif(Kinds):
    def test_pixels_are_pillows(self):
        for image in (palette(smooth(), 256), palette(smooth(61, 47), 7), smooth().convert("L"),
                      smooth().convert("1")):
            for interlace in (0, 1):
                data = encode(image, "GIF", interlace=interlace)
                self.equal(data, Image.open(io.BytesIO(data)).convert("RGB"))

    def test_first_frame_of_an_animation(self):
        frames = [palette(smooth(seed=k), 64) for k in range(3)]
        data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50, loop=0)
        self.equal(data, frames[0].convert("RGB"))

    def test_transparent_pixels_are_white(self):
        image = palette(smooth(), 16)
        data = encode(image, "GIF", transparency=3)
        want = np.asarray(image.convert("RGB")).copy()
        want[np.asarray(image) == 3] = 255
        self.equal(data, want)

    def test_a_frame_that_covers_a_part(self):
        """The canvas around it is transparent."""
        data = bytearray(encode(palette(smooth(40, 30), 16), "GIF"))
        data[6:10] = struct.pack("<HH", 60, 50)
        at = data.index(b"\x2c\0\0\0\0\x28\0\x1e\0")
        data[at + 1:at + 5] = struct.pack("<HH", 11, 7)
        want = np.full((50, 60, 3), 255, np.uint8)
        want[7:37, 11:51] = self.decode(encode(palette(smooth(40, 30), 16), "GIF"))
        self.equal(bytes(data), want)
        data[at + 1:at + 5] = struct.pack("<HH", 30, 7)
        self.refused(bytes(data), "damaged GIF", "not within the canvas")

    def test_damage(self):
        self.truncated(encode(palette(smooth(40, 30), 16), "GIF"), step=7)
        self.refused(b"GIF89a", "damaged GIF")


class Bmp(Kinds):
    def test_pixels_are_pillows(self):
        for image in (smooth(), smooth(61, 47), palette(smooth(61, 47), 256), smooth(61, 47).convert("L"),
                      smooth(61, 47).convert("1"), smooth(13, 9).convert("RGBA")):
            data = encode(image, "BMP")
            self.equal(data, Image.open(io.BytesIO(data)).convert("RGB"))

    def test_from_the_top(self):
        data = bytearray(encode(smooth(20, 11), "BMP"))
        data[22:26] = struct.pack("<i", -11)
        self.equal(bytes(data), np.asarray(smooth(20, 11))[::-1])

    def test_masks_with_alpha(self):
        rgba = np.asarray(with_alpha(smooth()))
        height, width = rgba.shape[:2]
        header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, 0, 0, 0, 0, 0)
        header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + b"\0" * 48
        pixels = rgba[::-1][..., [2, 1, 0, 3]].tobytes()
        data = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(pixels), 0, 0, 14 + len(header))
        self.equal(data + header + pixels, white_under(rgba))

    def test_damage(self):
        data = encode(smooth(40, 30), "BMP")
        self.truncated(data, step=97)
        self.refused(data[:-1], "damaged BMP", "ends too early")
        packed = bytearray(data)
        packed[30] = 1
        self.refused(bytes(packed), "compressed BMP", "save it again")
        self.refused(b"BM is how this text begins, which is no image", "first bytes")


class Tiff(Kinds):
    def test_pixels_are_pillows(self):
        for image in (smooth(), smooth(61, 47).convert("L"), palette(smooth(61, 47), 256),
                      smooth().convert("1"), smooth().convert("CMYK")):
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
                data = encode(image, "TIFF", compression=compression)
                # libtiff rounds CMYK in its own way.
                self.equal(data, Image.open(io.BytesIO(data)).convert("RGB"), 1 if image.mode == "CMYK" else 0)
        data = encode(smooth(), "TIFF", compression="jpeg", quality=95)
        self.equal(data, Image.open(io.BytesIO(data)).convert("RGB"), 3)

    def test_sixteen_bits(self):
        grey = (np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
        data = encode(Image.fromarray(grey), "TIFF")
        want = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2)
        self.equal(data, want, 1)

    def test_alpha_is_on_white(self):
        image = with_alpha(smooth())
        self.equal(encode(image, "TIFF"), white_under(np.asarray(image)), 1)

    def test_first_of_several_pages(self):
        data = encode(smooth(), "TIFF", save_all=True, append_images=[smooth(seed=1)])
        self.equal(data, smooth())

    def test_orientations(self):
        for orientation in range(1, 9):
            data = encode(smooth(40, 30), "TIFF", tiffinfo={274: orientation})
            image = Image.open(io.BytesIO(data))
            turned = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
                      4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
                      6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
                      8: Image.Transpose.ROTATE_90}
            want = smooth(40, 30) if orientation == 1 else smooth(40, 30).transpose(turned[orientation])
            self.equal(data, want)
            image.close()

    def test_other_kinds(self):
        data = encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF")
        self.refused(data, "TIFF of this kind", "is not supported", "convert it")
        # What cameras call .dng and .nef.
        raw = encode(smooth(40, 30), "TIFF", tiffinfo={50706: bytes([1, 4, 0, 0])})
        self.refused(raw, "camera's raw file", "develop it")
        for start in (b"II*\0\x10\0\0\0CR\2\0", b"IIRO", b"\0\0\0\x18ftypcrx ", b"FUJIFILMCCD-RAW "):
            self.refused(start + b"\0" * 64, "camera's raw file")

    def test_damage(self):
        self.truncated(encode(smooth(40, 30), "TIFF", compression="tiff_lzw"), step=31)
        self.truncated(encode(smooth(40, 30), "TIFF"), step=83)


@unittest.skipUnless(HEIF_ENC, "heif-enc of Debian's libheif-examples is missing")
class Heif(Kinds):
    def heif(self, image, *options):
        """Where nothing is lost but in rounding colours, what was encoded is the oracle."""
        source, out = self.folder / "source.png", self.folder / "out.heif"
        image.save(source)
        done = subprocess.run([HEIF_ENC, *options, "-o", out, source], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out.read_bytes()

    LOSSLESS = ("-L", "-p", "chroma=444", "--matrix_coefficients=0")

    def test_pixels_are_those_that_were_encoded(self):
        for kind in ((), ("-A",)):
            for size in ((96, 64), (61, 47)):
                self.equal(self.heif(smooth(*size), *kind, *self.LOSSLESS), smooth(*size), 1)

    def test_lossy_ones_are_near(self):
        for kind in ((), ("-A",)):
            got = self.decode(self.heif(smooth(320, 200), *kind, "-q", "90"))
            self.assertLess(np.abs(got.astype(int) - np.asarray(smooth(320, 200)).astype(int)).mean(), 3)

    def test_alpha_is_on_white(self):
        image = with_alpha(smooth())
        for kind in ((), ("-A",)):
            self.equal(self.heif(image, *kind, *self.LOSSLESS), white_under(np.asarray(image)), 1)

    def test_damage(self):
        for kind in ((), ("-A",)):
            data = self.heif(smooth(40, 30), *kind, "-q", "50")
            for size in range(0, len(data) - 1, max(1, len(data) // 60)):
                code, _, errors, *_ = self.run_probe(data[:size])
                self.assertEqual((code, errors.count("\n")), (1, 1), f"{size} of {len(data)}: {errors}")

    def test_what_a_header_claims(self):
        """A size that the pixels have not, and one that no memory holds."""
        data = bytearray(self.heif(smooth(), *self.LOSSLESS))
        at = data.index(b"ispe") + 8
        data[at:at + 8] = struct.pack(">II", 30000, 30000)
        self.refused(bytes(data), "30000x30000", "limit")
        data[at:at + 8] = struct.pack(">II", 97, 64)
        self.refused(bytes(data), "damaged HEIC")


class Process(Kinds):
    """Whatever the program that decodes them does, Graft says in a line."""

    def fake(self, body):
        folder = self.folder / "libexec"
        folder.mkdir(exist_ok=True)
        (folder / "graft-read-image").write_text(f"#!/usr/bin/python3 -BS\nimport os, time\n{body}\n")
        (folder / "graft-read-image").chmod(0o755)
        return folder

    def probe(self, libexec, data=None):
        path = self.folder / "x.bmp"
        path.write_bytes(data or encode(smooth(), "BMP"))
        return subprocess.run([t.TOOLS / "image_probe", path], capture_output=True,
                              env=dict(os.environ, GRAFT_LIBEXEC=str(libexec)), timeout=60)

    def test_one_that_fails(self):
        reply = lambda width, height, outcome, text=0: struct.pack(
            "<qqIiB7x", width, height, text, 1, outcome)
        for body, words in (("os.kill(os.getpid(), 11)", "signal 11"),
                            ("os.kill(os.getpid(), 24)", "computed longer"),
                            ("pass", "without an answer"),
                            (f"os.write(3, {reply(1 << 40, 1, 2)!r}); time.sleep(60)", "without an answer"),
                            (f"os.write(3, {reply(9, 9, 2)!r})", "without an answer"),
                            (f"os.write(3, {reply(9, 9, 1)!r}); time.sleep(1)", "another answer"),
                            (f"os.write(3, {reply(0, 0, 77)!r}); time.sleep(1)", "no answer"),
                            (f"os.write(3, {reply(0, 0, 3, 4)!r} + b'no\\x1b\\n'); time.sleep(1)", "no??")):
            done = self.probe(self.fake(body))
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
            self.assertIn(words, done.stderr.decode())

    def test_one_that_is_missing(self):
        alone = self.folder / "alone"
        alone.mkdir()
        program = shutil.copy(t.TOOLS / "image_probe", alone)
        path = self.folder / "x.bmp"
        path.write_bytes(encode(smooth(), "BMP"))
        environment = {k: v for k, v in os.environ.items() if k != "GRAFT_LIBEXEC"}
        done = subprocess.run([program, path], capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            self.skipTest("Graft is installed on this machine")
        self.assertIn("graft-read-image: this program, which reads HEIC", done.stderr)


if __name__ == "__main__":
    t.main()
