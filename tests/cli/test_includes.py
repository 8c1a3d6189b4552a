"""The program is a client of the library: what its commands do stands behind public headers."""
import re
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


if __name__ == "__main__":
    t.main()
