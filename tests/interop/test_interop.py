"""Real Keras writes weights that Graft reads; real libraries read what Graft writes."""
import graft_testing as t
import keras
import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image


class Keras(t.TestCase):
    def setUp(self):
        super().setUp()
        t_images = self.folder / "p"
        random = np.random.default_rng(0)
        t_images.mkdir()
        for i in range(2):
            small = Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            small.resize((224, 224), Image.BICUBIC).save(t_images / f"{i}.png")
        self.images = sorted(t_images.iterdir())

    def inputs(self, preprocess):
        rows = [np.asarray(Image.open(p).convert("RGB"), dtype="f4") for p in self.images]
        return preprocess(np.stack(rows))

    def check(self, application, backbone, include_top, until, suffix=".weights.h5"):
        keras.utils.set_random_seed(1)
        model = application(weights=None, include_top=include_top,
                            input_shape=(224, 224, 3), classifier_activation=None)
        # Keras 3's legacy HDF5 whole-model format is what "model.h5" gives.
        path = self.folder / "model.h5"
        model.save(path)
        inner = keras.Model(model.input, model.get_layer(until).output)
        module = keras.applications.vgg16 if backbone == "vgg16" else keras.applications.vgg19
        want = inner.predict(self.inputs(module.preprocess_input), verbose=0)
        if want.ndim == 4:
            want = want.transpose(0, 3, 1, 2)
        out = self.folder / "out.npy"
        self.succeed("features", *self.images, "--backbone", backbone, "--weights", path, "--until",
                     until, "-o", out)
        got = np.load(out)
        self.assertEqual(got.shape, want.shape)
        self.assertLess(np.abs(got - want).max() / np.abs(want).max(), 1e-4)

    def test_vgg16_without_top(self):
        self.check(keras.applications.VGG16, "vgg16", False, "block5_pool")

    def test_vgg19_without_top(self):
        self.check(keras.applications.VGG19, "vgg19", False, "block4_conv3")

    def test_vgg16_with_top(self):
        self.check(keras.applications.VGG16, "vgg16", True, "fc2")

    def test_parameter_counts_are_kerass(self):
        for application, backbone in ((keras.applications.VGG16, "vgg16"),
                                      (keras.applications.VGG19, "vgg19")):
            for last in (0, 2):
                base = application(weights=None, include_top=False, input_shape=(224, 224, 3))
                for layer in base.layers[:len(base.layers) - last]:
                    layer.trainable = False
                model = keras.Sequential([base, keras.layers.Flatten(),
                                          keras.layers.Dense(4096, activation="relu"),
                                          keras.layers.Dense(1072, activation="relu"),
                                          keras.layers.Dropout(0.2),
                                          keras.layers.Dense(6, activation="softmax")])
                model.build((None, 224, 224, 3))
                mine = self.succeed_json("summary", "--backbone", backbone, "--classes", 6, "--head",
                                         "flatten dense:4096 dense:1072 dropout:0.2", "--fine-tune",
                                         last, "--json")
                self.assertEqual(mine["parameters"], model.count_params())
                trainable = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
                self.assertEqual(mine["trainable"], trainable)


class Safetensors(t.TestCase):
    def test_model_is_readable(self):
        data = self.folder / "data"
        for kind in ("a", "b"):
            (data / kind).mkdir(parents=True)
            for i in range(4):
                colour = (i * 40, 255 if kind == "a" else 0, 90)
                Image.new("RGB", (40, 40), colour).save(data / kind / f"{i}.png")
        self.succeed("train", data, "--backbone", "vgg-mini", "--weights", "none", "--input-size", "32",
                     "--epochs", "1", "-o", self.folder / "run")
        path = self.folder / "run" / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        mine, metadata = t.read_safetensors(path)
        self.assertEqual(set(tensors), set(mine))
        for name in tensors:
            np.testing.assert_array_equal(tensors[name], mine[name])
        with safetensors.safe_open(path, "numpy") as file:
            self.assertEqual(file.metadata(), metadata)


class Augmentation(t.TestCase):
    """Views against ImageDataGenerator: the same numbers give the same image, and numbers are drawn from
    the same distributions. What differs on purpose is in docs/augmentation.md."""

    def setUp(self):
        super().setUp()
        from keras.src.legacy.preprocessing import image
        self.keras = image

    def image(self, width, height):
        random = np.random.default_rng(5)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        path = self.folder / f"{width}x{height}.png"
        small.resize((width, height), Image.BICUBIC).save(path)
        return path, np.asarray(Image.open(path), dtype="f4")

    def compare(self, width, height):
        path, x = self.image(width, height)
        random = np.random.default_rng(6)
        for fill, number in (("nearest", 0), ("constant", 1), ("reflect", 2)):
            keras_side = self.keras.ImageDataGenerator(fill_mode=fill)
            for _ in range(5):
                theta, shear = random.uniform(-90, 90), random.uniform(-30, 30)
                zx, zy = random.uniform(0.6, 1.4, 2)
                tx, ty = random.uniform(-15, 15, 2)
                h, v, channel = random.random() < 0.5, random.random() < 0.5, random.uniform(-40, 40)
                brightness = random.uniform(0.1, 0.7)
                want = keras_side.apply_transform(x, {
                    "theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zx, "zy": zy,
                    "flip_horizontal": h, "flip_vertical": v, "channel_shift_intensity": channel,
                    "brightness": brightness})
                done = t.tool("augment_probe", path, f"theta={float(theta)}", f"pixels_x={float(tx)}",
                              f"pixels_y={float(ty)}", f"shear={float(shear)}", f"zoom_x={float(zx)}",
                              f"zoom_y={float(zy)}", f"hflip={int(h)}", f"vflip={int(v)}",
                              f"channel={float(channel)}", f"brightness={float(brightness)}", f"fill={number}")
                raw = done.stdout.partition(b"\n")[2]
                got = np.frombuffer(raw, np.uint8).reshape(height, width, 3)
                off = np.abs(got - want)
                # Whole levels here, truncated ones in Pillow's brightness; the border of `constant`
                # may fall on either side.
                self.assertLess((off > 2).mean(), 0.01 if fill == "constant" else 1e-9)

    def test_square(self):
        self.compare(48, 48)

    def test_not_square(self):
        # Keras takes height for width where it looks for the middle: half a turn about the middle
        # would be both flips, but is not. With the two in place everything is the same as here.
        _, x = self.image(60, 40)
        turned = self.keras.apply_affine_transform(x, theta=180, row_axis=0, col_axis=1, channel_axis=2)
        self.assertGreater(np.abs(turned - x[::-1, ::-1]).max(), 20,
                           "Keras' middle has been mended: change docs/augmentation.md and this test")
        theirs = self.keras.transform_matrix_offset_center
        self.addCleanup(setattr, self.keras, "transform_matrix_offset_center", theirs)
        self.keras.transform_matrix_offset_center = lambda matrix, h, w: theirs(matrix, w, h)
        turned = self.keras.apply_affine_transform(x, theta=180, row_axis=0, col_axis=1, channel_axis=2)
        self.assertLess(np.abs(turned - x[::-1, ::-1]).max(), 1e-3)
        self.compare(60, 40)
        self.compare(37, 61)

    def test_drawn_numbers(self):
        from scipy.stats import ks_2samp
        width, height, count = 60, 40, 3000
        path, _ = self.image(width, height)
        np.random.seed(8)
        generator = self.keras.ImageDataGenerator(
            rotation_range=30, width_shift_range=0.2, height_shift_range=0.1, shear_range=15,
            zoom_range=(0.7, 1.2), channel_shift_range=40.0, brightness_range=(0.2, 1.4),
            horizontal_flip=True, vertical_flip=True)
        want = [generator.get_random_transform((height, width, 3)) for _ in range(count)]
        done = t.tool("augment_probe", path, f"views={count}",
                      "augment=rotate:30 shift-x:0.2 shift-y:0.1 shear:15 zoom:0.7-1.2 channel:40 "
                      "brightness:0.2-1.4 hflip vflip")
        (theta, shift_x, shift_y, _, _, shear, zoom_x, zoom_y, channel, hflip, vflip,
         brightness) = np.array([line.split() for line in done.stdout.splitlines()], float).T
        # Keras names its numbers by its own x, which is down: tx is height_shift_range's.
        for key, mine in (("theta", theta), ("tx", shift_y * height), ("ty", shift_x * width),
                          ("shear", shear), ("zx", zoom_x), ("zy", zoom_y),
                          ("channel_shift_intensity", channel), ("brightness", brightness)):
            theirs = np.array([view[key] for view in want])
            self.assertGreater(ks_2samp(mine, theirs).pvalue, 1e-3, key)
        for key, mine in (("flip_horizontal", hflip), ("flip_vertical", vflip)):
            self.assertAlmostEqual(np.mean([view[key] for view in want]), mine.mean(), delta=0.05)


if __name__ == "__main__":
    print("Keras", keras.__version__, "safetensors", safetensors.__version__)
    t.main()
