"""Classifies images through Graft's C interface: ctypes alone, no module to build.

  python3 classify.py MODEL IMAGE ...      (GRAFT_LIBRARY: path of libgraft_core.so)
"""
import ctypes as c
import os
import sys


class Classifier:
    """A model file or run folder. classify() may be called from any number of threads."""

    handle = None

    def __init__(self, path, library=os.environ.get("GRAFT_LIBRARY", "libgraft_core.so.0")):
        g = self.graft = c.CDLL(library)
        g.graft_load.argtypes = [c.c_char_p, c.c_void_p, c.POINTER(c.c_void_p)]
        g.graft_free.argtypes = [c.c_void_p]
        g.graft_free.restype = None
        g.graft_class_count.argtypes = [c.c_void_p]
        g.graft_class_count.restype = c.c_size_t
        g.graft_class_name.argtypes = [c.c_void_p, c.c_size_t]
        g.graft_class_name.restype = c.c_char_p
        g.graft_classify_bytes.argtypes = [c.c_void_p, c.POINTER(c.c_char_p), c.POINTER(c.c_size_t),
                                           c.c_size_t, c.POINTER(c.c_float), c.POINTER(c.c_int)]
        g.graft_last_error.restype = c.c_char_p
        self.handle = c.c_void_p()
        self._check(g.graft_load(os.fsencode(path), None, c.byref(self.handle)))
        self.classes = [g.graft_class_name(self.handle, i).decode()
                        for i in range(g.graft_class_count(self.handle))]

    def __del__(self):
        if self.handle:
            self.graft.graft_free(self.handle)

    def classify(self, files):
        """Probabilities of each class, a list for each of the files' bytes."""
        classes, count = len(self.classes), len(files)
        out = (c.c_float * (classes * count))()
        self._check(self.graft.graft_classify_bytes(
            self.handle, (c.c_char_p * count)(*files), (c.c_size_t * count)(*map(len, files)), count, out, None))
        return [list(out[i * classes:(i + 1) * classes]) for i in range(count)]

    def _check(self, status):
        if status != 0:
            raise ValueError(self.graft.graft_last_error().decode())


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    try:
        model = Classifier(sys.argv[1])
        files = []
        for path in sys.argv[2:]:
            with open(path, "rb") as file:
                files.append(file.read())
        for path, probabilities in zip(sys.argv[2:], model.classify(files)):
            best = max(range(len(probabilities)), key=probabilities.__getitem__)
            print(f"{path}: {model.classes[best]} {probabilities[best]:.4f}")
    except (OSError, ValueError) as error:
        sys.exit(f"classify.py: {error}")


if __name__ == "__main__":
    main()
