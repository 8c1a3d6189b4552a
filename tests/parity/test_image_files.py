"""Image files as they are found: harmless faults, lost pixels, unsupported kinds, orientations that do not
stand in EXIF, and files made to exhaust memory or time."""
import io
import os
import struct
import subprocess
import tempfile
import zlib

import graft_testing as t
import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"


def smooth(width=96, height=64, seed=0):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.BICUBIC)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data, wrong=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def png_chunks(data):
    at = len(SIGNATURE)
    while at < len(data):
        (size,) = struct.unpack(">I", data[at:at + 4])
        yield data[at + 4:at + 8], data[at + 8:at + 8 + size]
        at += size + 12


def png_of(chunks):
    return SIGNATURE + b"".join(chunk(*c) for c in chunks)


def plain_png(width, height, row, depth=8, colour=0):
    """A PNG whose rows are all alike, made without the rows in memory."""
    packer = zlib.compressobj(9)
    at_once = max(1, (1 << 20) // (len(row) + 1))
    counts = [at_once] * (height // at_once) + [height % at_once]
    pixels = b"".join([packer.compress((b"\0" + row) * count) for count in counts]) + packer.flush()
    return png_of([(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
                   (b"IDAT", pixels), (b"IEND", b"")])


def segment(marker, data):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def many_scans(width, height, scans):
    """A grey progressive JPEG whose scans hold next to nothing."""
    blocks = -(-width // 8) * -(-height // 8)
    one_code = bytes([1] + [0] * 15)
    data = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64)
    data += segment(0xC2, b"\x08" + struct.pack(">HH", height, width) + b"\1\1\x11\0")
    data += segment(0xC4, b"\0" + one_code + b"\0")          # DC: no difference
    data += segment(0xC4, b"\x10" + one_code + b"\xe0")      # AC: 16384 and more blocks end here
    data += segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * -(-blocks // 8)
    bits = ("0" * 15) * -(-blocks // 16384)
    run = bytes(int(bits[i:i + 8].ljust(8, "1"), 2) for i in range(0, len(bits), 8))
    return data + (segment(0xDA, b"\1\1\0\x01\x3f\0") + run) * (scans - 1) + b"\xff\xd9"


class Files(t.TestCase):
    def run_probe(self, data, *arguments):
        """Exit code, pixels, text on stderr, megabytes (at least those of this script, from which the
        process is forked), seconds of processor."""
        path = self.folder / "file"
        path.write_bytes(data)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([str(t.TOOLS / "image_probe"), str(path), *map(str, arguments)],
                                       stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            head, _, raw = out.read().partition(b"\n")
            pixels = None
            if process.returncode == 0:
                width, height = map(int, head.split())
                pixels = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
            return (process.returncode, pixels, err.read().decode(), usage.ru_maxrss / 1024,
                    usage.ru_utime + usage.ru_stime)

    def decode(self, data, *arguments):
        code, pixels, errors, *_ = self.run_probe(data, *arguments)
        self.assertEqual(code, 0, errors)
        return pixels

    def same(self, data, whole):
        np.testing.assert_array_equal(self.decode(data), self.decode(whole))

    def refused(self, data, *words):
        code, _, errors, *_ = self.run_probe(data)
        self.assertEqual(code, 1)
        self.assertEqual(errors.count("\n"), 1, errors)
        for word in words:
            self.assertIn(word, errors)
        return errors


class Harmless(Files):
    def test_jpeg_scan_parameters(self):
        # Some telephones write zeros where a sequential scan's Ss, Se, Ah and Al are fixed.
        whole = encode(smooth(), "JPEG")
        at = whole.index(b"\xff\xda")
        at += 5 + 2 * whole[at + 4]
        self.assertEqual(whole[at:at + 3], b"\0\x3f\0")
        self.same(whole[:at] + b"\0\0\0" + whole[at + 3:], whole)

    def test_jpeg_without_end(self):
        for progressive in (False, True):
            whole = encode(smooth(), "JPEG", progressive=progressive)
            self.same(whole[:-2], whole)
            self.same(whole[:-2] + b"\0\0\0", whole)
            self.same(whole + b"something else", whole)

    def test_jpeg_adobe_and_jfif(self):
        whole = encode(smooth(), "JPEG")
        version = bytearray(whole)
        version[whole.index(b"JFIF\0") + 5] = 9
        self.same(bytes(version), whole)
        # An unknown transform is taken for YCbCr, which three components mostly are.
        self.same(whole[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\x07") + whole[2:], whole)

    def test_png_without_end(self):
        whole = encode(smooth(), "PNG")
        for data in (whole[:-12], whole[:-5], whole[:-12] + b"garbage" * 9, whole + b"garbage"):
            self.same(data, whole)

    def test_png_ancillary_chunks(self):
        whole = encode(smooth(), "PNG")
        head, *rest = png_chunks(whole)
        for extra in ((b"tEXt", b"a\0b", 1), (b"gAMA", b"\0\0", 0), (b"eXIf", b"junk", 1),
                      (b"iCCP", b"x\0\0junk", 0), (b"zTXt", b"Raw profile type exif\0\0junk", 0),
                      (b"iTXt", b"XML:com.adobe.xmp\0\1\0", 0)):
            self.same(png_of([head, extra, *rest]), whole)
            self.same(png_of([head, *rest[:-1], extra, rest[-1]]), whole)

    def test_webp_animation(self):
        first = smooth(seed=3)
        data = encode(first, "WEBP", save_all=True, append_images=[smooth(seed=4), smooth(seed=5)],
                      duration=50, lossless=True)
        np.testing.assert_array_equal(self.decode(data), np.asarray(first))
        # Its other frames need not be there.
        np.testing.assert_array_equal(self.decode(data[:len(data) * 2 // 3]), np.asarray(first))
        self.refused(data[:len(data) // 5], "damaged WebP")

    def test_webp_animation_with_alpha_is_on_white(self):
        first = smooth().convert("RGBA")
        first.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))))
        data = encode(first, "WEBP", save_all=True, append_images=[smooth().convert("RGBA")],
                      lossless=True, exact=True, background=(255, 0, 0, 255))
        white = Image.new("RGBA", first.size, "white")
        want = np.asarray(Image.alpha_composite(white, Image.open(io.BytesIO(data)).convert("RGBA")))
        self.assertLessEqual(np.abs(self.decode(data).astype(int) - want[..., :3]).max(), 1)


class Damaged(Files):
    def test_jpeg(self):
        whole = encode(smooth(), "JPEG")
        progressive = encode(smooth(), "JPEG", progressive=True)
        second_scan = progressive.index(b"\xff\xda", progressive.index(b"\xff\xda") + 2)
        for data in (whole[:-4], whole[:len(whole) // 2], progressive[:-6], progressive[:second_scan]):
            self.refused(data, "damaged JPEG")
        apart = bytearray(whole)
        middle = whole.index(b"\xff\xda") + len(whole) // 4
        apart[middle:middle + 2] = b"\xff\xd9"
        self.refused(bytes(apart), "damaged JPEG")

    def test_png(self):
        head, *rest = png_chunks(encode(smooth(), "PNG"))
        pixels = zlib.decompress(b"".join(data for kind, data in rest if kind == b"IDAT"))
        short = zlib.compress(pixels[:-1])
        self.refused(png_of([head, (b"IDAT", short), (b"IEND", b"")]), "damaged PNG")
        self.refused(png_of([head, (b"IDAT", zlib.compress(pixels), 1), (b"IEND", b"")]), "CRC")
        self.refused(png_of([(head[0], head[1], 1), *rest]), "CRC")
        self.refused(png_of([head, (b"IDAT", zlib.compress(pixels))])[:-6], "damaged PNG")
        # Which pixels are transparent is part of the pixels.
        transparent = (b"tRNS", b"\0\1\0\2\0\3", 1)
        self.refused(png_of([head, transparent, *rest]), "tRNS")

    def test_webp(self):
        whole = encode(smooth(), "WEBP", quality=90)
        self.refused(whole[:-20], "damaged WebP")
        # The orientation stands in what is cut off.
        exif = Image.Exif()
        exif[0x0112] = 6
        self.refused(encode(smooth(), "WEBP", exif=exif.tobytes())[:-10], "damaged WebP")


class Unsupported(Files):
    def test_jpeg_processes(self):
        whole = encode(smooth(), "JPEG")
        at = whole.index(b"\xff\xc0")

        def frame(marker, bits=8):
            data = bytearray(whole)
            data[at + 1], data[at + 4] = marker, bits
            return bytes(data)
        for data, words in ((frame(0xC1, 12), "JPEG with 12 bits"), (frame(0xC3), "lossless JPEG"),
                            (frame(0xC5), "hierarchical JPEG"),
                            (b"\xff\xd8\xff\xf7" + whole[4:], "JPEG-LS")):
            errors = self.refused(data, words + " ", "not supported", "save it as")
            self.assertNotIn("damaged", errors)

    def test_other_formats(self):
        for kind, what in (("JPEG2000", "a JPEG 2000"), ("ICO", "an icon")):
            self.refused(encode(smooth(), kind), f"it is {what}; convert")
        for start, what in ((b"8BPS\0\1", "a Photoshop file"), (b"gimp xcf v011", "a GIMP file"),
                            (b"\0\0\0\x0cJXL \r\n", "a JPEG XL"), (b"\xff\x0a\xfa", "a JPEG XL")):
            self.refused(start + bytes(40), f"it is {what}; convert")
        for start, what in ((b"\0\0\0\x14ftypqt  ", "it is a video"), (b"PK\3\4", "it is a zip archive"),
                            (b"\x1a\x45\xdf\xa3", "it is a video")):
            self.refused(start + bytes(40), what, "replace or remove it")
        self.refused(b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull")
        self.refused(b"\0\x05\x16\x07\0\2\0\0Mac OS X", "resource file")

    def test_png_for_iphones(self):
        head, *rest = png_chunks(encode(smooth(), "PNG"))
        self.refused(png_of([(b"CgBI", b"\x50\0\x20\x06"), head, *rest]), "CgBI", "not supported")


class Orientation(Files):
    XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"'
           ' tiff:Orientation="6"/></x:xmpmeta>').encode()

    @staticmethod
    def exif(orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif.tobytes()

    def raw_profile(self, orientation):
        digits = self.exif(orientation).hex()
        lines = "\n".join(digits[i:i + 72] for i in range(0, len(digits), 72))
        return f"\nexif\n{len(digits) // 2:8}\n{lines}\n".encode()

    def turned(self, data, quarters):
        """Quarter turns against the clock of the image as stored."""
        got = self.decode(data)
        stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        np.testing.assert_array_equal(got, np.rot90(stored, quarters))

    def png_with(self, *extra):
        head, *rest = png_chunks(encode(smooth(), "PNG"))
        return png_of([head, *extra, *rest])

    def test_png(self):
        profile = self.raw_profile(8)
        name = b"Raw profile type exif\0"
        packed = (b"zTXt", name + b"\0" + zlib.compress(profile))
        xmp = b"XML:com.adobe.xmp\0"
        for extra, quarters in (((b"tEXt", name + profile), 1), (packed, 1),
                                ((b"tEXt", b"Raw profile type APP1\0" + profile), 1),
                                ((b"iTXt", xmp + b"\0\0\0\0" + self.XMP), -1),
                                ((b"iTXt", xmp + b"\1\0\0\0" + zlib.compress(self.XMP)), -1),
                                ((b"iTXt", b"Comment\0\0\0\0\0" + self.XMP), 0)):
            self.turned(self.png_with(extra), quarters)
        # After the pixels as before them.
        chunks = list(png_chunks(encode(smooth(), "PNG")))
        self.turned(png_of([*chunks[:-1], packed, chunks[-1]]), 1)
        # eXIf before a raw profile before XMP.
        self.turned(self.png_with((b"eXIf", self.exif(3)[6:]), packed), 2)
        self.turned(self.png_with(packed, (b"iTXt", xmp + b"\0\0\0\0" + self.XMP)), 1)

    def test_jpeg(self):
        whole = encode(smooth(), "JPEG")
        xmp = segment(0xE1, XMP_PREFIX + self.XMP)
        self.turned(whole[:2] + xmp + whole[2:], -1)
        element = segment(0xE1, XMP_PREFIX + b"<tiff:Orientation>3</tiff:Orientation>")
        self.turned(whole[:2] + element + whole[2:], 2)
        exif = segment(0xE1, self.exif(8))
        for both in (exif + xmp, xmp + exif):
            self.turned(whole[:2] + both + whole[2:], 1)
        # EXIF that says nothing of the orientation leaves it to XMP.
        other = Image.Exif()
        other[0x010F] = "a camera"
        self.turned(whole[:2] + segment(0xE1, other.tobytes()) + xmp + whole[2:], -1)
        for nonsense in (b'tiff:Orientation="9"', b'tiff:Orientation="60"', b"tiff:Orientation"):
            self.turned(whole[:2] + segment(0xE1, XMP_PREFIX + nonsense) + whole[2:], 0)

    def test_webp(self):
        image = smooth()
        self.turned(encode(image, "WEBP", lossless=True, xmp=self.XMP), -1)
        self.turned(encode(image, "WEBP", lossless=True, xmp=self.XMP, exif=self.exif(8)), 1)


class Hostile(Files):
    def within(self, data, megabytes, seconds, *arguments):
        code, pixels, errors, used, taken = self.run_probe(data, *arguments)
        self.assertLess(used, megabytes)
        self.assertLess(taken, seconds)
        return code, pixels, errors

    def test_narrow_and_high(self):
        data = plain_png(1, 20_000_000, b"\0")
        self.assertLess(len(data), 45_000)
        code, _, errors = self.within(data, 200, 5, 224, 224, "bilinear")
        self.assertEqual(code, 1)
        self.assertIn("1x20000000 pixels have a side over the limit of 65535", errors)
        data = plain_png(1, 65535, b"\x40")
        for how in ("bilinear", "torchvision", "nearest"):
            code, pixels, errors = self.within(data, 200, 5, 224, 224, how)
            self.assertEqual(code, 0, errors)
            self.assertEqual((pixels.min(), pixels.max()), (0x40, 0x40))
        wide = plain_png(65535, 3, bytes(65535))
        self.assertEqual(self.within(wide, 200, 5, 224, 224, "torchvision")[0], 0)

    def test_texts_are_not_inflated(self):
        whole = encode(smooth(), "PNG")
        head, *rest = png_chunks(whole)
        packer = zlib.compressobj(9)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(97)) + packer.flush()
        for kind, start in ((b"zTXt", b"Comment\0\0"), (b"zTXt", b"Raw profile type exif\0\0"),
                            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"), (b"iCCP", b"profile\0\0")):
            data = png_of([head, *[(kind, start + bomb)] * 30, *rest])
            code, pixels, errors = self.within(data, 200, 5)
            self.assertEqual(code, 0, errors)
            np.testing.assert_array_equal(pixels, self.decode(whole))

    def test_scans(self):
        code, _, errors = self.within(many_scans(4000, 3000, 800), 200, 10)
        self.assertEqual(code, 1)
        self.assertIn("more than 30 scans over 4000x3000 pixels", errors)
        self.assertNotIn("damaged", errors)
        # A small image may have many, and a large one as many as encoders write.
        self.assertEqual(self.decode(many_scans(300, 200, 300)).shape, (200, 300, 3))
        self.assertEqual(self.decode(many_scans(2000, 1500, 20)).shape, (1500, 2000, 3))

    def test_canvas(self):
        data = bytearray(encode(smooth(), "WEBP", save_all=True, append_images=[smooth(seed=9)]))
        at = data.index(b"VP8X") + 12
        data[at:at + 6] = b"\xff\xff\xff\xff\xff\xff"
        self.refused(bytes(data), "its header cannot be read")
        data[at:at + 6] = b"\xff\x3f\0\xff\x3f\0"
        self.refused(bytes(data), "16384x16384 pixels are more than the limit")

    def test_exif(self):
        whole = encode(smooth(), "JPEG")
        loop = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0x8769, 4, 1, 8) + b"\0\0\0\x08"
        claims = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 65535) + struct.pack(
            ">HHII", 0x010E, 2, 0xFFFFFFF0, 8) * 5000
        far = b"Exif\0\0II*\0" + b"\xff" * 4
        for exif in (loop, claims, far, b"Exif\0\0", b"Exif\0\0MM"):
            data = whole[:2] + segment(0xE1, exif) + whole[2:]
            code, pixels, errors = self.within(data, 200, 5)
            self.assertEqual(code, 0, errors)
            np.testing.assert_array_equal(pixels, self.decode(whole))


if __name__ == "__main__":
    t.main()
