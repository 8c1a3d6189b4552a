"""For `make test`: the package of the build tree, with Debian's Python and pytest. Exit status 77: skipped."""
import importlib.util
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("GRAFT_BUILD", HERE.parents[1] / "build"))


def main():
    package = BUILD / "python"
    if not list(package.glob("graft/_native/_graft*.so")):
        print("SKIPPED: built without the Python package: configure with -DGRAFT_BUILD_PYTHON=ON, which needs "
              "pybind11-dev and python3-dev ('make test' installs and does it)")
        return 77
    for module, name in (("pytest", "python3-pytest"), ("numpy", "python3-numpy"), ("PIL", "python3-pil")):
        if importlib.util.find_spec(module) is None:
            print(f"SKIPPED: no {module}: 'make test' installs {name}")
            return 77
    environment = dict(os.environ, PYTHONPATH=str(package), PYTHONDONTWRITEBYTECODE="1", OMP_WAIT_POLICY="passive",
                       GRAFT_BUILD=str(BUILD))
    environment.pop("GRAFT_LIBEXEC", None)  # the package finds its own
    return subprocess.run([sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE),
                           *sys.argv[1:]], env=environment, cwd=HERE).returncode


if __name__ == "__main__":
    sys.exit(main())
