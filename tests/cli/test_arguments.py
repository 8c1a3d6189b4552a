"""Words on the command line that are misspelt, empty or endless; help in 80 columns."""
import graft_testing as t

COMMANDS = ("train", "evaluate", "predict", "features", "summary", "weights", "check", "preview",
            "compare", "cache", "demo", "bench")
LONG = "a" * 100_000


class Words(t.TestCase):
    def refuse(self, text, *arguments, **keywords):
        """A usage error of one line that has the text and ends soon."""
        done = self.fail_with(2, text, *arguments, **keywords)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertLess(len(done.stderr), 1000)
        return done.stderr

    def test_nearest(self):
        for meant, *arguments in (
                ("train", "trian"), ("--epochs", "train", "x", "--epoch", "3"),
                ("--epochs", "train", "--epoch=3"), ("--top", "predict", "--topp", "3"),
                ("--batch-size", "train", "x", "--batch_size", "3"),
                ("adamw", "train", "x", "--optimizer", "admw"), ("one-cycle", "train", "x", "--schedule",
                                                                 "onecycle"),
                ("best", "train", "x", "--recipe", "bset"), ("leaks", "train", "x", "--exclude", "leak"),
                ("rotate", "train", "x", "--augment", "rotat:3"),
                ("hflip", "preview", "x", "--augment", "hflp"),
                ("reflect", "train", "x", "--augment", "fill:relfect"),
                ("vgg16", "summary", "--backbone", "vgg61"),
                ("block3_pool", "summary", "--until", "block3_pol"),
                ("block5_conv1", "summary", "--fine-tune", "block5_cnv1"),
                ("dense", "summary", "--classes", "3", "--head", "gap dens:3"),
                ("vgg19", "weights", "download", "vgg91"), ("download", "weights", "downlod"),
                ("json", "predict", "x", "y", "--format", "jsno"), ("list", "cache", "lst"),
                ("--lr", "train", "x", "--learning-rate", "1"), ("--lr", "train", "x", "--lerning-rate", "1"),
                ("--output", "predict", "x", "y", "--out-dir", "z"), ("--input-size", "train", "x", "--imgsz", "64"),
                ("predict", "classify"), ("evaluate", "eval"), ("evaluate", "report"), ("train", "help", "trian"),
                ("hard", "predict", "x", "y", "--sort-into", "z", "--link", "hrad"),
                ("test", "evaluate", "x", "y", "--split", "tset")):
            self.refuse(f"(did you mean {meant}?)", *arguments)
        for arguments in (("serve",), ("train", "x", "--tunnel", "8080"), ("train", "x", "--device", "tpu"),
                          ("summary", "--backbone", "resnet50")):
            self.assertNotIn("did you mean", self.refuse("graft: ", *arguments))
        self.refuse("unexpected argument 'b' and 1 more", "summary", "a", "b", "c")
        self.assertEqual(self.succeed("version").stdout, self.succeed("--version").stdout)
        self.assertIn("Usage:", self.succeed("train", "--epoch", "3", "--help").stdout)

    def test_keys(self):
        config = self.folder / "c.toml"
        for text, want in (("epoch = 3\n", "c.toml:1: unknown key 'epoch' (did you mean epochs?)"),
                           ("\nweights = ''\n", "c.toml:2: 'weights' is empty"),
                           (f"optimizer = '{LONG}'\n", "--optimizer: 'aaa"),
                           (f"{LONG} = 1\n", "unknown key 'aaa"),
                           (f"{LONG} = 1\n{LONG} = 2\n", "not TOML")):
            config.write_text(text)
            self.refuse(want, "train", "x", "--config", config)

    def test_empty(self):
        for option in ("-o", "--val", "--test", "--exclude", "--weights", "--backbone", "--until",
                       "--input-size", "--head", "--fine-tune", "--augment", "--optimizer", "--cache-dir",
                       "--recipe", "--config", "--resume", "--seed"):
            name = "--output" if option == "-o" else option
            self.refuse(f"{name}: empty value", "train", "x", option, "")
            if option != "-o":
                # Which takes no word that follows for its value.
                self.refuse(f"{name}: empty value", "train", f"{option}=", "x")
        for name, *arguments in (
                ("DATA", "train", ""), ("MODEL", "summary", ""), ("PATH", "predict", "m", "a.jpg", ""),
                ("--explain", "predict", "m", "a.jpg", "--explain", ""),
                ("--output", "features", "x", "-o", ""), ("--html", "check", "x", "--html", ""),
                ("--html", "compare", "a", "b", "--html", ""), ("--cache-dir", "cache", "list", "--cache-dir", ""),
                ("--report", "evaluate", "m", "d", "--report", ""), ("--output", "demo", "-o", ""),
                ("--output", "weights", "convert", "m", "-o", ""), ("NAME", "weights", "verify", ""),
                ("--output", "preview", "x", "-o", ""), ("--size", "bench", "--size", "32", ""),
                ("--quiet", "summary", "--quiet=")):
            self.refuse(f"{name}: empty value", *arguments)
        # An unset variable without quotes.
        self.refuse("no value; '--force' comes next", "train", "x", "-o", "--force")
        self.assertFalse((self.folder / "--force").exists())

    def test_endless(self):
        for arguments in ((LONG,), ("train", "x", "--augment", LONG), ("train", "x", "--augment", f"rotate:{LONG}"),
                          ("train", "x", "--optimizer", LONG), ("train", "x", "--exclude", LONG),
                          ("train", "x", f"--{LONG}"), ("train", "x", "--epochs", LONG),
                          ("train", "x", "--max-skipped", LONG), ("train", "x", "--recipe", LONG),
                          ("train", "x", "--input-size", LONG), ("summary", LONG, LONG),
                          ("summary", "--classes", "1" * 100_000), ("summary", "--backbone", LONG),
                          ("summary", "--until", LONG), ("summary", "--fine-tune", LONG),
                          ("summary", "--classes", "3", "--head", f"gap {LONG}"),
                          ("summary", "--classes", "3", "--head", f"gap dense:{LONG}"),
                          ("summary", "--classes", "3", "--head", f"gap gmp:{LONG}"),
                          ("features", "x", "-o", LONG), ("preview", "x", "-o", LONG),
                          ("check", "x", "--html", LONG), ("weights", LONG),
                          ("weights", "download", LONG), ("weights", "convert", "x", "-o", LONG)):
            self.assertIn("…", self.refuse("graft: ", *arguments))
        for arguments in (("train", LONG), ("check", LONG), ("summary", LONG), ("compare", LONG, "b"),
                          ("weights", "verify", LONG)):
            done = self.fail_with(1, "…", *arguments)
            self.assertLess(len(done.stderr), 1000)

    def test_one_name_in_front(self):
        for command in ("train", "preview"):
            done = self.refuse("--augment: unknown word", command, "x", "--augment", "sepia")
            self.assertEqual(done.count("--augment:"), 1)

    def test_all_layers(self):
        """N above the number of layers means all, and that is said."""
        whole = self.succeed("summary", "--backbone", "vgg16", "--fine-tune", "all").stdout
        for n, said in ((18, False), (19, False), (20, True), (999999999999, True), (10 ** 30, True)):
            done = self.succeed("summary", "--backbone", "vgg16", "--fine-tune", n)
            self.assertEqual("has 19 layers, and all of them are unfrozen" in done.stderr, said, n)
            if n > 18:
                self.assertEqual(done.stdout, whole)
        t.draw_scenes(self.folder / "data", 2, size=32)
        done = self.succeed("train", self.folder / "data", "--backbone", "vgg-mini", "--input-size", "32",
                            "--fine-tune", "99", "--dry-run")
        self.assertIn("note: --fine-tune 99: the backbone has", done.stdout)


class Help(t.TestCase):
    def test_of_a_command(self):
        for command in COMMANDS:
            self.assertEqual(self.succeed("help", command).stdout, self.succeed(command, "--help").stdout)
        self.assertEqual(self.succeed("help", "weights", "download").stdout,
                         self.succeed("weights", "--help").stdout)
        self.assertEqual(self.succeed("help").stdout, self.succeed("--help").stdout)

    def test_nothing_said(self):
        """A usage error that shows what could have been said."""
        done = self.fail_with(2, "no command given")
        self.assertIn(self.succeed("help").stdout, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_lines(self):
        for arguments in ((), *((command,) for command in COMMANDS)):
            text = self.succeed(*arguments, "--help").stdout
            for line in text.splitlines():
                self.assertLessEqual(len(line), 80, (arguments, line))
                self.assertEqual(line, line.rstrip(), arguments)
                # A command of the examples is one that a shell reads.
            examples = text.partition("Examples:\n")[2].splitlines()
            for line, following in zip(examples, examples[1:]):
                self.assertEqual(line.endswith("\\"), following.startswith("      "), (line, following))


if __name__ == "__main__":
    t.main()
