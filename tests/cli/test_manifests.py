"""How manifests are understood, and what is refused."""
import data_testing
import graft_testing as t


class Manifests(data_testing.TestCase):
    def manifest(self, text):
        path = self.folder / "m.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def test_manifests_of_another_form(self):
        self.fill("a", "b")
        rows = "data/a/0.jpg,a\ndata/b/0.jpg,b\n"
        for text, *whys in (("path;label\nx.jpg;a\n", "'path;label'", "separated by ';', expected ','"),
                            ("path\tlabel\nx.jpg\ta\n", "separated by tabs"),
                            ("filename,class\nx.jpg,a\n", "'filename,class'",
                             "rename 'filename' to path and rename 'class' to label"),
                            ("image,category\n", "rename 'image' to path"),
                            ("a.jpg,cat\nb.jpg,dog\n", "'a.jpg,cat'", "no header"),
                            ("path,label\n".encode("utf-16"), "UTF-16", "save it as UTF-8"),
                            (("path,label\n" + rows).encode("utf-16-be"), "UTF-16"),
                            ("path,label\na\0.jpg,a\n", ":2: a NUL byte"),
                            (b"path,label\nx.jpg,caf\xe9\n", ":2: the label 'caf?' is not UTF-8"),
                            ("path,label\nx.jpg,a\x1bb\n", ":2:", "U+001B"),
                            ('path,label\nx.jpg,"a\nb"\n', ":2:", "U+000A"),
                            ("path,label,path\n", "two columns"),
                            ("path,label\n,a\n", ":2: the path is empty"),
                            ("path,label\nx.jpg,a\n./x.jpg,b\n", ":3: './x.jpg' has the label 'b' here"),
                            (f"path,label\nx.jpg,a\n{self.folder}/x.jpg,b\n", "has the label 'b' here"),
                            ("path,label,split\nx.jpg,a,fold1\n", "split 'fold1' is none of"),
                            ("path,label\nx.jpg,cat\ny.jpg,Cat\n", "differ only in letter case"),
                            ("path,label\n".encode("utf-32"), "UTF-32"),
                            ("path,label\n".encode("utf-32-be"), "UTF-32"),
                            ("path,cat,dog\nx.jpg,0,1\n", "one column label"),
                            ("sep=;\npath;label\n", "separated by ';'"),
                            (b"\x89HDF\r\n\x1a\n\0\0", "NUL byte")):
            with self.subTest(text=text):
                self.refuse(*whys, data=self.manifest(text))

    def test_manifests_that_are_understood(self):
        self.fill("a", "b")
        for text in ("Path,Label\ndata/a/0.jpg,a\ndata/b/0.jpg,b\n",
                     "path, label\ndata/a/0.jpg, a\ndata/b/0.jpg, b\n",
                     "path,label\rdata/a/0.jpg,a\rdata/b/0.jpg,b\r",
                     "path,label,split\ndata/a/0.jpg,a,Training\ndata/b/0.jpg,b,dev\n",
                     "path,label\ndata/a/0.jpg,a\ndata/b/0.jpg,b \ndata/b/1.jpg,b\n",
                     "sep=,\r\npath,label\r\ndata/a/0.jpg,a\r\ndata/b/0.jpg,b\r\n",
                     "# made by hand\n\n# twice\npath,label\ndata/a/0.jpg,a\ndata/b/0.jpg,b\n",
                     "path,label,width\ndata/a/0.jpg,a,40\ndata/b/0.jpg,b,40\n"):
            with self.subTest(text=text):
                document = self.check(data=self.manifest(text))
                self.assertEqual(document["classes"], {"a": 1, "b": text.count("data/b")})
                self.assertEqual(document["corrupt"], [])
                self.assertIn("a manifest of", document["layout"])
        self.assertIn("not read: width", self.notes(document))

    def test_missing_files_are_counted_first(self):
        self.fill("a", "b")
        rows = [f"data/{kind}/{i}.jpg,{kind}" for kind in "ab" for i in range(300)]
        manifest = self.manifest("path,label\n" + "\n".join(rows) + "\n")
        self.refuse("596 of 600 images cannot be used", "a/10.jpg: no such file", "--max-skipped",
                    data=manifest)
        done = self.succeed("train", manifest, "--backbone", "vgg-mini", "--input-size", "32",
                            "--dry-run", "--max-skipped", "1", "--val-split", "0.5")
        self.assertRegex(done.stdout, r"total +2 +2\n")
        self.refuse("none of its 2 images can be used", "no such file", "relative to its folder",
                    data=self.manifest("path,label\nx.jpg,a\ny.jpg,b\n"))
        done = self.refuse("none of its 2 images can be used", "longer than paths can be",
                           data=self.manifest(f"path,label\n{'x' * 5_000_000}.jpg,a\n{'y' * 6000}.jpg,b\n"))
        self.assertLess(len(done.stderr), 2000)
        (self.folder / "sub").mkdir()
        manifest = self.folder / "sub" / "m.csv"
        manifest.write_text("path,label\ndata/a/0.jpg,a\ndata/b/0.jpg,b\n")
        done = self.fail_with(1, "not to the current one, where data/a/0.jpg is", "train", "sub/m.csv",
                              "--backbone", "vgg-mini", "--dry-run", cwd=self.folder)
        self.refuse("write / in place of \\",
                    data=self.manifest("path,label\ndata\\a\\0.jpg,a\ndata/b/0.jpg,b\n"))


if __name__ == "__main__":
    t.main()
