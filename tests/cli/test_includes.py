"""The program is a client of the library: what its commands do stands behind public headers."""
import pathlib
import re
import subprocess
import tempfile
import unittest

import graft_testing as t

# What a program may use beside public headers: helpers for text, files and the terminal; the demo's
# drawings; and the table of options, from which flags are made (a fact of one place, not an interface).
ALLOWED = re.compile(r"^(graft|cli|base|demo)/|^recipe/option|^run/run_config\.h$")


class Includes(unittest.TestCase):
    def test_commands_use_public_headers(self):
        files = [file for file in (t.SOURCE / "src" / "cli").iterdir() if file.suffix in (".cpp", ".h")]
        self.assertGreater(len(files), 20)
        for file in files:
            for name in re.findall(r'#include "([^"]+)"', file.read_text()):
                self.assertRegex(name, ALLOWED, f"src/cli/{file.name}")

    def test_public_headers_include_each_other_alone(self):
        for file in (t.SOURCE / "include" / "graft").iterdir():
            for name in re.findall(r'#include "([^"]+)"', file.read_text()):
                self.assertTrue(name.startswith("graft/"), f"{file.name}: {name}")
                self.assertTrue((t.SOURCE / "include" / name).exists(), f"{file.name}: {name}")

    def test_the_library_prints_nothing_and_handles_no_signals(self):
        """Outside of the programs' folders; those that read files are of their own, and the
        dashboard's server puts back what the HTTP library changes."""
        for file in (t.SOURCE / "src").rglob("*.cpp"):
            folder = file.relative_to(t.SOURCE / "src").parts
            if folder[0] in ("cli", "demo", "confine") or folder[:2] in (("weights", "h5"), ("image", "confined")):
                continue
            if file.name in ("diagnostics.cpp", "loopback_server.cpp"):
                continue
            for word in ("std::cout", "std::cerr", "fprintf(std", "fmt::print(", "print_diagnostic(", "sigaction(",
                         "std::signal("):
                self.assertNotIn(word, file.read_text(), f"{file}: {word}")

    def test_make_interop_builds_what_its_scripts_use(self):
        """From a plain tree: it fetches gigabytes and takes long, so that no other test runs it."""
        makefile, script = ((t.SOURCE / name).read_text() for name in ("Makefile", "scripts/interop.sh"))
        rule = makefile[makefile.index("\ninterop:"):].split("\n\n")[0]
        self.assertIn("GRAFT_BUILD_TESTS=ON", rule)
        self.assertIn("--target interop_programs", rule)
        built = " ".join(re.findall(r"(?:add_custom_target|add_dependencies)\((?:interop_programs)([^)]*)\)",
                                    (t.SOURCE / "tests" / "CMakeLists.txt").read_text()))
        used = set(re.findall(r"tests/tools/(\w+)", script))
        for file in (t.SOURCE / "tests" / "interop").glob("*.py"):
            used |= set(re.findall(r"""(?:tool\(|TOOLS / )["'](\w+)["']""", file.read_text()))
        self.assertIn("augment_probe", used)
        for name in used:
            self.assertIn(name, built.split())
        self.assertIn("tests/interop/test_*.py", script)  # every script, whatever the others ended with

    def test_the_backbone_inside_the_program_is_small(self):
        self.assertLessEqual((t.SOURCE / "data" / "vgg-mini.safetensors").stat().st_size, 1_500_000)

    def test_headers_of_a_python_environment_are_not_taken(self):
        """Wheels are built with that environment's packages among CMake's prefixes; its onnx brings headers."""
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            environment = folder / "site-packages"
            (environment / "onnx").mkdir(parents=True)
            for file in ("__init__.py", "checker.h"):
                (environment / "onnx" / file).touch()
            (folder / "CMakeLists.txt").write_text(
                "cmake_minimum_required(VERSION 3.22)\nproject(x CXX)\n"
                f"include({t.SOURCE}/cmake/Onnx.cmake)\nmessage(STATUS \"headers in ${{ONNX_INCLUDE}}\")\n")
            done = subprocess.run(["cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={environment}"],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("headers in ", done.stdout)
            self.assertNotIn(f"headers in {environment}", done.stdout)


if __name__ == "__main__":
    t.main()
