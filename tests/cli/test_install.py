"""What `make install` brings, used from a folder of its own as others would use it."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import graft_testing as t

HEAVY = ("hdf5", "lmdb", "curl", "torch", "protobuf", "onnx", "toml")
LAYERS = ["core", "data", "export"] + (["train"] if t.HAS_TRAINING else [])


def command(*words, **keywords):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=300, **keywords)
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
    return done.stdout


class Installed(t.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.environ.get("GRAFT_SANITIZED"):
            raise unittest.SkipTest("others' programs are built without the sanitizers that the libraries need")
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="graft-install-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        cls.prefix = cls.root / "prefix"
        command("cmake", "--install", t.BUILD, "--prefix", cls.prefix)
        cls.lib = next(cls.prefix.rglob("libgraft_core.so")).parent
        cls.environment = dict(os.environ, LD_LIBRARY_PATH=str(cls.lib))
        cls.data = cls.root / "data"
        t.draw_scenes(cls.data, 6, size=40)
        cls.images = sorted(cls.data.rglob("*.jpg"))[::7][:5]
        cls.model = None
        if t.HAS_TRAINING:
            done = t.run("train", cls.data, "-o", cls.root / "run", "--backbone", "vgg-mini", "--input-size", "32",
                         "--until", "block2_pool", "--epochs", "2", "--no-report", "--quiet")
            assert done.returncode == 0, done.stderr
            cls.model = cls.root / "run"

    def expected(self):
        """What the program says, a line an image: path: label probability."""
        return self.succeed("predict", self.model, *self.images).stdout

    def build(self, folder, source, *options):
        command("cmake", "-S", source, "-B", folder, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}", *options)
        command("cmake", "--build", folder)

    def test_examples_against_the_shared_libraries(self):
        examples = self.folder / "examples"
        shutil.copytree(t.SOURCE / "examples", examples)
        self.build(self.folder / "build", examples)
        program = self.folder / "build" / "example_classify"
        needed = command("ldd", program)
        self.assertIn("libgraft_core.so.0", needed)
        for word in HEAVY:
            self.assertNotIn(word, needed)
        if not self.model:
            self.skipTest("built without LibTorch")
        self.assertEqual(command(program, self.model, *self.images), self.expected())
        self.assertEqual(command(self.folder / "build" / "example_classify_c", self.model, *self.images),
                         self.expected())
        said = command(self.folder / "build" / "example_train", self.data, self.folder / "run",
                       env=dict(os.environ, XDG_CACHE_HOME=str(self.folder / "cache")))
        self.assertIn("resumed: 3 epochs", said)

    def test_classifying_against_the_static_library(self):
        source = self.folder / "source"
        source.mkdir()
        shutil.copy(t.SOURCE / "examples" / "classify.cpp", source)
        (source / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(mine LANGUAGES CXX)\nset(Graft_USE_STATIC_LIBS ON)\n"
            "find_package(Graft REQUIRED COMPONENTS core)\nadd_executable(mine classify.cpp)\n"
            "target_link_libraries(mine PRIVATE Graft::core)\n")
        self.build(self.folder / "build", source)
        needed = command("ldd", self.folder / "build" / "mine")
        self.assertNotIn("graft", needed.replace(str(self.folder), ""))
        for word in HEAVY:
            self.assertNotIn(word, needed)
        if self.model:
            self.assertEqual(command(self.folder / "build" / "mine", self.model, *self.images), self.expected())

    def test_unknown_components_are_refused(self):
        (self.folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(mine LANGUAGES CXX)\n"
            "find_package(Graft REQUIRED COMPONENTS serving)\n")
        done = subprocess.run(["cmake", "-S", self.folder, "-B", self.folder / "build",
                               f"-DCMAKE_PREFIX_PATH={self.prefix}"], capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no component 'serving'", done.stderr)

    def test_programs_in_the_documents(self):
        """The blocks of C++ that have a main(), built by pkg-config and run beside images and models."""
        shutil.copytree(self.data, self.folder / "photos")
        shutil.copy(self.images[0], self.folder / "photo.jpg")
        if self.model:
            for run in ("pets", "tuned"):
                shutil.copytree(self.model, self.folder / "runs" / run)
        environment = dict(self.environment, XDG_CACHE_HOME=str(self.folder / "cache"))
        for page, layer, expected in (("docs/library.md", "train", "resumed: 4 epochs"),
                                      ("docs/tutorial.md", "core", "photo.jpg: "), ("README.md", "core", " 0.")):
            programs = [block for block in re.findall(r"```cpp\n(.*?)```", (t.SOURCE / page).read_text(), re.S)
                        if "int main" in block]
            self.assertEqual(len(programs), 1, page)
            if layer not in LAYERS:
                continue
            source = self.folder / f"{layer}.cpp"
            source.write_text(programs[0])
            flags = command("pkg-config", "--cflags", "--libs", f"graft-{layer}", env=dict(
                os.environ, PKG_CONFIG_PATH=str(self.lib / "pkgconfig"))).split()
            command("g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", source, "-o", source.with_suffix(""), *flags)
            if self.model:
                shutil.rmtree(self.folder / "runs" / "pets") if layer == "train" else None
                words = ["photo.jpg"] if "tutorial" in page else []
                self.assertIn(expected, command(source.with_suffix(""), *words, cwd=self.folder, env=environment))

    def test_the_installed_library_exports(self):
        if not self.model:
            self.skipTest("built without LibTorch")
        source = self.folder / "export.cpp"
        source.write_text("""
#include <graft/export.h>
#include <cstdio>
int main(int, char** argv) {
  for (const char* file : {"m.onnx", "m.keras", "m.h5", "m.pth"})
    std::printf("%d ", graft::export_model(argv[1], file, {.format = *graft::export_format(file)}).images_compared);
}
""")
        for package in ("graft-export", "graft-export-static"):
            flags = command("pkg-config", "--cflags", "--libs", package, env=dict(
                os.environ, PKG_CONFIG_PATH=str(self.lib / "pkgconfig"))).split()
            command("g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", source, "-o", source.with_suffix(""), *flags)
            self.assertEqual(command(source.with_suffix(""), self.model, cwd=self.folder, env=self.environment), "4 4 4 4 ")

    def test_the_installed_library_reads_h5(self):
        """The reader is found beside the library, wherever the prefix has been moved to."""
        moved = self.folder / "moved here"
        shutil.copytree(self.prefix, moved, symlinks=True)
        specs = t.layer_specs("vgg16")[:2]
        t.write_keras_h5(self.folder / "weights.h5", specs, t.random_weights(specs))
        source = self.folder / "features.cpp"
        source.write_text("""
#include <graft/features.h>
#include <cstdio>
int main() {
  graft::FeatureOptions options;
  options.model.weights = "weights.h5";
  options.model.until = "block1_pool";
  options.model.input = {32, 32};
  std::printf("%s\\n", graft::FeatureExtractor(options).layer().c_str());
}
""")
        lib = next(moved.rglob("libgraft_data.so")).parent
        command("g++", "-std=c++20", source, "-o", self.folder / "features", f"-I{moved}/include", f"-L{lib}",
                "-lgraft_data")
        environment = dict(os.environ, LD_LIBRARY_PATH=str(lib))
        environment.pop("GRAFT_LIBEXEC")
        self.assertEqual(command(self.folder / "features", cwd=self.folder, env=environment), "block1_pool\n")

    def test_headers_stand_alone(self):
        headers = sorted((self.prefix / "include" / "graft").iterdir())
        self.assertGreater(len(headers), 8)
        for header in headers:
            source = self.folder / "header.cpp"
            source.write_text(f'#include "graft/{header.name}"\nint main() {{}}\n')
            command("g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                    f"-I{self.prefix}/include", source)
            for line in header.read_text().splitlines():
                # The C++ library, POSIX and each other, nothing else.
                for found in re.findall(r'#include ["<]([^">]+)[">]', line):
                    self.assertTrue(found.startswith("graft/") or "/" not in found, f"{header.name}: {found}")
        source = self.folder / "header.c"
        source.write_text("#include <graft/graft_c.h>\nint main(void) { return graft_load(0, 0, 0) == GRAFT_OK; }\n")
        command("gcc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                f"-I{self.prefix}/include", source)

    def test_shared_libraries_export_the_interface_alone(self):
        for layer in LAYERS:
            library = self.lib / f"libgraft_{layer}.so"
            self.assertIn(f"libgraft_{layer}.so.0", command("readelf", "-d", library))
            symbols = [line[19:] for line in command("nm", "-DC", "--defined-only", library).splitlines()]
            self.assertTrue(any(s.startswith("graft::Classifier::load(") for s in symbols))
            self.assertIn("graft_load", symbols)
            for symbol in symbols:
                plain = re.sub(r"^(typeinfo|typeinfo name|vtable) for ", "", symbol)
                self.assertTrue(plain.startswith(("graft::", "graft_")), f"{layer}: {symbol}")
                self.assertNotIn("graft::Engine", plain)
                self.assertNotIn("write_file_atomic", plain)

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_python_through_the_c_interface(self):
        environment = dict(os.environ, GRAFT_LIBRARY=str(self.lib / "libgraft_core.so.0"))
        script = t.SOURCE / "examples" / "classify.py"
        said = command("/usr/bin/python3", "-B", script, self.model, *self.images, env=environment)
        self.assertEqual(said, self.expected())
        broken = self.folder / "broken.jpg"
        broken.write_bytes(b"\xff\xd8\xff\xe0 not an image")
        for words, text in (((self.folder / "none", broken), "none: "), ((self.model, broken), "image 0: ")):
            done = subprocess.run(["/usr/bin/python3", "-B", script, *map(str, words)], env=environment,
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn(text, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    @unittest.skipUnless(t.HAS_TRAINING, "built without LibTorch")
    def test_the_c_interface_with_wrong_arguments_and_many_threads(self):
        script = self.folder / "callers.py"
        script.write_text(f"""
import concurrent.futures, ctypes as c, sys
sys.path.insert(0, {str(t.SOURCE / 'examples')!r})
from classify import Classifier
model = Classifier({str(self.model)!r})
g, n = model.graft, len(model.classes)
g.graft_classify_pixels.argtypes = [c.c_void_p, c.c_void_p, c.c_size_t, c.c_void_p, c.c_void_p]
g.graft_version.restype = c.c_char_p
assert g.graft_version()
USAGE, INPUT = 1, 2

class Pixels(c.Structure):
    _fields_ = [("data", c.c_char_p), ("width", c.c_int32), ("height", c.c_int32), ("row_bytes", c.c_size_t)]

class Options(c.Structure):
    _fields_ = [("size", c.c_size_t), ("threads", c.c_int32)]

grey = bytes([120]) * (40 * 30 * 3)
out = (c.c_float * n)()
def pixels(*fields):
    return g.graft_classify_pixels(model.handle, c.byref(Pixels(*fields)), 1, out, None), g.graft_last_error().decode()

assert pixels(grey, 40, 30, 0) == (0, "") and abs(sum(out) - 1) < 1e-5
one = list(out)
padded = b"".join(grey[y * 120:y * 120 + 120] + b"xxxx" for y in range(30))
assert pixels(padded, 40, 30, 124) == (0, "") and list(out) == one
for fields in ((None, 40, 30, 0), (grey, -40, 30, 0), (grey, 40, 0, 0), (grey, 40, 30, 10)):
    status, text = pixels(*fields)
    assert status == USAGE and "image 0" in text, (fields, status, text)
assert pixels(grey, 40, 30, 1 << 63)[0] == USAGE
assert g.graft_classify_pixels(model.handle, c.byref(Pixels(grey, 40, 30, 0)), (1 << 64) - 1, out, None) == USAGE
assert g.graft_classify_pixels(None, c.byref(Pixels(grey, 40, 30, 0)), 1, out, None) == USAGE
assert g.graft_classify_pixels(model.handle, None, 1, out, None) == USAGE
assert g.graft_classify_pixels(model.handle, None, 0, None, None) == 0
assert g.graft_class_name(model.handle, n) is None and g.graft_class_count(None) == 0
g.graft_free(None)
# A structure of an earlier version, and none at all.
handle = c.c_void_p()
small = Options(c.sizeof(Options), 1)
assert g.graft_load({str(self.model)!r}.encode(), c.byref(small), c.byref(handle)) == 0
g.graft_free(handle)
assert g.graft_load({str(self.model)!r}.encode(), c.byref(Options(0, 1)), c.byref(handle)) == USAGE and not handle
class Later(c.Structure):
    _fields_ = [("size", c.c_size_t), ("known", c.c_int32 * 6), ("unknown", c.c_int32 * 2)]
later = Later(c.sizeof(Later))
assert g.graft_load({str(self.model)!r}.encode(), c.byref(later), c.byref(handle)) == 0
g.graft_free(handle)
later.known[5] = 3  # no precision
assert g.graft_load({str(self.model)!r}.encode(), c.byref(later), c.byref(handle)) == USAGE
assert b"GRAFT_BF16" in g.graft_last_error()
FP32, BF16, AUTO = 0, 1, 2
later.known[5] = AUTO
assert g.graft_load({str(self.model)!r}.encode(), c.byref(later), c.byref(handle)) == 0
auto = g.graft_classifier_precision(handle)
g.graft_free(handle)
later.known[5] = BF16
status = g.graft_load({str(self.model)!r}.encode(), c.byref(later), c.byref(handle))
if status == 0:
    near = (c.c_float * n)()
    assert g.graft_classifier_precision(handle) == BF16
    assert g.graft_classify_pixels(handle, c.byref(Pixels(grey, 40, 30, 0)), 1, near, None) == 0
    assert max(abs(a - b) for a, b in zip(near, one)) < 0.05
    g.graft_free(handle)
else:  # this processor has no bf16
    assert status == USAGE and auto == FP32 and not handle, status
    assert b"precision" in g.graft_last_error()
assert g.graft_classifier_precision(model.handle) == FP32 and g.graft_classifier_precision(None) == FP32
later.known[5] = 0
later.unknown[1] = 1
assert g.graft_load({str(self.model)!r}.encode(), c.byref(later), c.byref(handle)) == USAGE
assert g.graft_load({str(self.model)!r}.encode(), c.byref(Options(c.sizeof(Options), 1 << 30)), c.byref(handle)) == USAGE
assert g.graft_load(b"/nowhere", None, c.byref(handle)) == INPUT
# One by one: what fails leaves zeros, and the first text.
good = open({str(self.images[0])!r}, "rb").read()
files = [good, b"no image", good, b""]
rows, statuses = (c.c_float * (4 * n))(), (c.c_int * 4)()
assert g.graft_classify_bytes(model.handle, (c.c_char_p * 4)(*files), (c.c_size_t * 4)(*map(len, files)), 4, rows, statuses) == 0
assert [s == 0 for s in statuses] == [True, False, True, False], list(statuses)
assert "image 1" in g.graft_last_error().decode() and not any(rows[n:2 * n])
# Eight threads get what one gets, and errors of their own.
expected = model.classify([good])[0]
def call(i):
    if i % 4 == 3:
        try:
            model.classify([b"broken %d" % i])
        except ValueError as error:
            return "image 0" in str(error)
        return False
    return model.classify([good])[0] == expected
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(pool.map(call, range(64)))
""")
        command("/usr/bin/python3", "-B", script,
                env=dict(os.environ, GRAFT_LIBRARY=str(self.lib / "libgraft_core.so.0")))

    def test_static_libraries_by_pkg_config(self):
        flags = command("pkg-config", "--cflags", "--libs", "graft-core-static", env=dict(
            os.environ, PKG_CONFIG_PATH=str(self.lib / "pkgconfig"))).split()
        program = self.folder / "classify"
        command("g++", "-std=c++20", t.SOURCE / "examples" / "classify.cpp", "-o", program, *flags)
        self.assertNotIn("libgraft", command("ldd", program))
        if self.model:
            self.assertEqual(command(program, self.model, *self.images), self.expected())

    def test_manual_pages_and_completions_have_every_option(self):
        pages = {page.name: page.read_text() for page in (self.prefix / "share" / "man" / "man1").iterdir()}
        bash = next(self.prefix.rglob("bash-completion/completions/graft"))
        zsh, fish = next(self.prefix.rglob("_graft")), next(self.prefix.rglob("graft.fish"))
        names = re.findall(r"^  graft ([a-z]+)", self.succeed("--help").stdout, re.M)
        self.assertEqual(set(pages), {"graft.1"} | {f"graft-{name}.1" for name in names})
        for name in names:
            options = re.findall(r"^  (?:-\w,)?(--[a-z0-9-]+)", self.succeed(name, "--help").stdout, re.M)
            page = pages[f"graft-{name}.1"].replace("\\-", "-")
            section = re.search(rf"^    {name}\)\n(.*?)^      esac", bash.read_text(), re.M | re.S).group(1)
            for option in options + (["--help"] if "--help" not in options else []):
                self.assertEqual(len(re.findall(rf"{option}\\fR", page)), 1, f"{name} {option}")
                self.assertRegex(section, rf"{option}[ ']")
                self.assertIn(f"'{option}[", zsh.read_text())
                self.assertRegex(fish.read_text(), rf"__fish_seen_subcommand_from {name}'.* -l {option[2:]}\b")

    def test_recipes_can_be_read(self):
        recipes = self.prefix / "share" / "doc" / "graft" / "recipes"
        names = {path.stem for path in (t.SOURCE / "recipes").iterdir()}
        self.assertEqual({path.stem for path in recipes.iterdir()}, names)
        for name in names:
            self.assertEqual((recipes / f"{name}.toml").read_bytes(),
                             (t.SOURCE / "recipes" / f"{name}.toml").read_bytes())
            for document in re.findall(r"docs/[\w.-]+\.md", (recipes / f"{name}.toml").read_text()):
                self.assertTrue((recipes.parent / document).is_file(), document)

    def test_bash_completes(self):
        bash = next(self.prefix.rglob("bash-completion/completions/graft"))

        def complete(*words):
            quoted = " ".join(f"'{word}'" for word in words)
            return command("bash", "--norc", "-c",
                           f"source {bash}; compopt() {{ :; }}; COMP_WORDS=({quoted}); "
                           f"COMP_CWORD={len(words) - 1}; _graft; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
                           cwd=self.folder).split()

        (self.folder / "photos").mkdir()
        self.assertEqual(complete("graft", "ev"), ["evaluate"])
        self.assertEqual(complete("graft", "train", "--opt"), ["--optimizer"])
        self.assertEqual(complete("graft", "train", "--optimizer", ""), ["adam", "adamw", "sgd"])
        self.assertEqual(complete("graft", "train", "--backbone", "vgg-"), ["vgg-mini", "vgg-mini_bn"])
        self.assertIn("notebook", complete("graft", "train", "--recipe", ""))
        self.assertEqual(complete("graft", "train", "pho"), ["photos"])
        self.assertEqual(complete("graft", "weights", "d"), ["download"])
        self.assertEqual(complete("graft", "train", "--epochs", ""), [])
        self.assertEqual(complete("graft", "train", "--backbone", "=", "vgg11_"), ["vgg11_bn"])
        self.assertEqual(complete("graft", "train", "--optimizer", "="), ["adam", "adamw", "sgd"])
        self.assertIn("vgg16", complete("graft", "weights", "download", ""))
        self.assertNotIn("download", complete("graft", "weights", "download", ""))
        self.assertEqual(complete("graft", "train", "--exclude", "cor"), ["corrupt"])
        (self.folder / "my photos").mkdir()
        self.assertEqual(complete("graft", "train", "my"), ["my", "photos"])  # one word with a space


if __name__ == "__main__":
    t.main()
