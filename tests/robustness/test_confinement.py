"""What the programs that read files for Graft can do once they have confined themselves: nothing else.

A library that is preloaded tries it for them, at their first read() from Graft, and ends them with what
worked as the exit code.
"""
import os
import pathlib
import socket
import subprocess

import graft_testing as t

TRIES = """
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

ssize_t read(int fd, void* out, size_t count) {
  (void)fd, (void)out, (void)count;
  int worked = 0;
  if (open("/etc/passwd", O_RDONLY) >= 0) worked |= 1;
  if (open(MARK, O_WRONLY | O_CREAT, 0600) >= 0) worked |= 2;
  if (socket(AF_INET, SOCK_STREAM, 0) >= 0) worked |= 4;
  const pid_t child = fork();
  if (child == 0) _exit(0);
  if (child > 0) worked |= 8, waitpid(child, 0, 0);
  if (mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) worked |= 16;
  if (kill(getppid(), 0) == 0) worked |= 32;
  _exit(worked);
}
"""
ALL = 1 | 2 | 4 | 8 | 16 | 32


class Confinement(t.TestCase):
    def setUp(self):
        super().setUp()
        if os.environ.get("GRAFT_SANITIZED"):
            self.skipTest("a sanitizer's run-time needs more than is left")
        source, self.library = self.folder / "tries.c", self.folder / "libtries.so"
        source.write_text(TRIES)
        done = subprocess.run(["cc", "-O1", "-shared", "-fPIC", f'-DMARK="{self.folder / "mark"}"', "-o", self.library,
                               source], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def tried(self, program, descriptors=()):
        """What worked, from the program's exit code."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            numbers = [theirs.fileno(), *descriptors]
            child = os.fork()
            if child == 0:
                for k, number in enumerate(numbers):  # none of them in the way of another
                    os.dup2(number, 50 + k)
                for k in range(len(numbers)):
                    os.dup2(50 + k, 3 + k)
                os.environ["LD_PRELOAD"] = str(self.library)
                os.execv(program, [str(program)])
            theirs.close()
            _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)

    def test_without_confinement_everything_works(self):
        self.assertEqual(self.tried("/bin/cat"), ALL)
        self.assertTrue((self.folder / "mark").exists())

    def test_graft_read_image(self):
        self.assertEqual(self.tried(t.BUILD / "libexec" / "graft" / "graft-read-image"), 0)
        self.assertFalse((self.folder / "mark").exists())

    def test_graft_read_h5(self):
        specs = t.layer_specs("vgg-mini")[:2]
        path = pathlib.Path(self.folder / "w.h5")
        t.write_keras_h5(path, specs, t.random_weights(specs))
        file, values = os.open(path, os.O_RDONLY), os.memfd_create("values")
        try:
            self.assertEqual(self.tried(t.BUILD / "libexec" / "graft" / "graft-read-h5", [file, values]), 0)
        finally:
            os.close(file)
            os.close(values)
        self.assertFalse((self.folder / "mark").exists())


if __name__ == "__main__":
    t.main()
