"""Keras' whole classifiers: they come over with their head, and say the same of photos."""
import unittest

import graft_testing as t
import keras
import numpy as np
from PIL import Image

L = keras.layers
SIZE = 64
NAMES = ["buildings", "forest", "glacier", "mountain", "sea", "street"]
KERAS = {"--preprocessing": "keras"}
IS_KERAS_3 = not keras.__version__.startswith("2.")


class KerasClassifiers(t.TestCase):
    def setUp(self):
        super().setUp()
        self.images = []
        random = np.random.default_rng(0)
        for i in range(6):
            image = Image.fromarray(random.integers(0, 256, (5 + i, 7, 3), dtype=np.uint8))
            self.images.append(self.folder / f"{i}.png")
            image.resize((SIZE, SIZE), Image.BICUBIC).save(self.images[-1])
        self.pixels = np.stack([np.asarray(Image.open(path), "f4") for path in self.images])

    def tearDown(self):
        module = keras.mixed_precision if hasattr(keras.mixed_precision, "set_global_policy") else None
        (module.set_global_policy if module else keras.config.set_dtype_policy)("float32")

    def base(self, application=keras.applications.VGG16, until=None, spread=60):
        """spread: of the pixels that it is given; features are then some ones."""
        keras.utils.set_random_seed(1)
        model = application(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
        random = np.random.default_rng(2)
        for variable in model.weights:  # He normal: features of a size, and biases that are seen
            shape = variable.shape
            deviation = 0.05 if len(shape) == 1 else (2 / np.prod(shape[:-1])) ** 0.5
            first = len(shape) == 4 and shape[2] == 3
            variable.assign(random.normal(0, deviation / (spread if first else 1), shape))
        return model if until is None else keras.Model(model.input, model.get_layer(until).output)

    def stir(self, model):
        """Numbers of BatchNorm and biases that are not those of the beginning."""
        random = np.random.default_rng(3)
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
            elif isinstance(layer, L.Dense):
                kernel, *bias = layer.get_weights()
                layer.set_weights([kernel] + [random.normal(0, 0.3, b.shape) for b in bias])

    def answers(self, model, pixels):
        want = np.asarray(model.predict(pixels.copy(), verbose=0), "f8")
        return np.concatenate([1 - want, want], 1) if want.shape[1] == 1 else want

    def check(self, model, said=None, names=NAMES, pixels=None, suffixes=(".keras", ".h5"), tolerance=1e-4, stir=True):
        if stir:
            self.stir(model)
        want = self.answers(model, keras.applications.vgg16.preprocess_input(self.pixels.copy())
                            if pixels is None else pixels)
        self.assertGreater(np.ptp(want, axis=0).max(), 1e-3, "answers that differ between images")
        notes = ""
        for suffix in suffixes:
            path, out = self.folder / f"theirs{suffix}", self.folder / "ours.safetensors"
            model.save(str(path))
            flags = [word for pair in (said or {}).items() for word in pair]
            notes += self.succeed("weights", "convert", path, out, "--classes", ",".join(names), *flags).stderr
            done = self.succeed_json("predict", out, *self.images, "--json", "--top", len(names))
            got = np.array([[{top["label"]: top["probability"] for top in row["top"]}[name] for name in names]
                            for row in done["predictions"]])
            self.assertLess(np.abs(got - want).max(), tolerance, suffix)
        return notes

    def test_nested(self):
        for head in ([L.Flatten(), L.Dense(48, activation="relu"), L.Dropout(0.3), L.Dense(32, activation="relu")],
                     [L.GlobalAveragePooling2D(), L.BatchNormalization()],
                     [L.GlobalMaxPooling2D(), L.Dense(16), L.BatchNormalization(), L.ReLU()],
                     [L.Flatten(), L.BatchNormalization(scale=False), L.Dense(24, use_bias=False), L.Activation("relu")],
                     [L.Conv2D(24, 3, padding="same", activation="relu"), L.Flatten(), L.Dropout(0.5)]):
            inputs = x = keras.Input((SIZE, SIZE, 3))
            for layer in [self.base()] + head:
                x = layer(x)
            self.check(keras.Model(inputs, L.Dense(6, activation="softmax")(x)), KERAS)

    def test_inlined(self):
        for application in (keras.applications.VGG16, keras.applications.VGG19):
            base = self.base(application)
            for i, layer in enumerate(base.layers):
                layer.trainable = i > 14
            x = L.Dense(32, activation="relu")(L.Flatten()(base.output))
            self.check(keras.Model(base.input, L.Softmax()(L.Dense(6)(L.Dropout(0.2)(x)))), KERAS)

    def test_cut_backbones(self):
        for until in ("block3_pool", "block4_pool", "block4_conv2"):
            base = self.base(until=until)
            x = L.Dense(16, activation="relu")(L.GlobalAveragePooling2D()(base.output))
            self.check(keras.Model(base.input, L.Dense(6, activation="softmax")(x)), KERAS)

    def test_sequential_with_augmentation(self):
        layers = [L.RandomFlip("horizontal"), L.RandomRotation(0.1)]
        if hasattr(L, "RandomZoom"):
            layers.append(L.RandomZoom(0.1))
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.Sequential(layers, name="augmentation"),
                                  L.Rescaling(1 / 127.5, offset=-1), self.base(spread=0.5), L.Flatten(),
                                  keras.Sequential([L.Dense(16, activation="relu"), L.Dense(6, activation="softmax")])])
        self.assertIn("random_flip", self.check(model, pixels=self.pixels))

    def test_normalization(self):
        normalization = L.Normalization()
        normalization.adapt(self.pixels)
        for layer in (normalization, L.Normalization(mean=[120., 110., 100.], variance=[3000., 3500., 4000.])):
            model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layer, self.base(spread=1), L.GlobalAveragePooling2D(),
                                      L.Dense(6, activation="softmax")])
            self.check(model, pixels=self.pixels)

    def test_pixels_by_operations(self):
        function = keras.applications.vgg16.preprocess_input

        def build(prepare, spread):
            inputs = keras.Input((SIZE, SIZE, 3))
            x = L.GlobalAveragePooling2D()(self.base(spread=spread)(prepare(inputs)))
            return keras.Model(inputs, L.Dense(6, activation="softmax")(x))
        # Keras 2 itself cannot write such a model as .keras.
        self.check(build(function, 60), pixels=self.pixels, suffixes=(".keras", ".h5") if IS_KERAS_3 else (".h5",))
        self.check(build(lambda x: x / 127.5 - 1, 0.5), pixels=self.pixels)
        self.check(build(lambda x: 1.0 - (x - 16.0) * 0.01, 0.5), pixels=self.pixels)

    def test_named_function_in_a_lambda(self):
        inputs = keras.Input((SIZE, SIZE, 3))
        x = L.Lambda(keras.applications.vgg16.preprocess_input, output_shape=(SIZE, SIZE, 3))(inputs)
        x = L.GlobalAveragePooling2D()(self.base()(x))
        model = keras.Model(inputs, L.Dense(6, activation="softmax")(x))
        self.check(model, KERAS if IS_KERAS_3 else None, pixels=self.pixels)

    def test_two_classes_by_sigmoid(self):
        model = keras.Sequential([self.base(), L.GlobalAveragePooling2D(), L.Dense(1, activation="sigmoid")])
        model.build((None, SIZE, SIZE, 3))
        self.check(model, KERAS, names=["cat", "dog"])

    def test_logits(self):
        base = self.base()
        out = L.Dense(6)(L.GlobalAveragePooling2D()(base.output))
        model = keras.Model(base.input, out)
        self.stir(model)
        logits = model.predict(keras.applications.vgg16.preprocess_input(self.pixels.copy()), verbose=0)
        path, ours = self.folder / "m.keras", self.folder / "m.safetensors"
        model.save(str(path))
        said = self.succeed("weights", "convert", path, ours, "--classes", ",".join(NAMES), *list(*KERAS.items())).stderr
        self.assertIn("has no softmax", said)
        done = self.succeed_json("predict", ours, *self.images, "--json", "--top", 6)
        for row, want in zip(done["predictions"], np.exp(logits) / np.exp(logits).sum(1, keepdims=True)):
            for top in row["top"]:
                self.assertLess(abs(top["probability"] - want[NAMES.index(top["label"])]), 1e-4)

    def test_renamed(self):
        base = self.base()

        def clone(layer):
            return layer.__class__.from_config(dict(layer.get_config(), name="my_" + layer.name))
        renamed = keras.models.clone_model(base, clone_function=clone)
        renamed.set_weights(base.get_weights())
        out = L.Dense(6, activation="softmax")(L.Flatten()(renamed.output))
        self.check(keras.Model(renamed.input, out), KERAS)
        nested = keras.Sequential([renamed, L.Flatten(), L.Dense(6, activation="softmax")])
        nested.build((None, SIZE, SIZE, 3))
        self.check(nested, KERAS)

    def test_mixed_precision(self):
        module = keras.mixed_precision if hasattr(keras.mixed_precision, "set_global_policy") else None
        (module.set_global_policy if module else keras.config.set_dtype_policy)("mixed_float16")
        base = self.base()
        x = L.Dense(16, activation="relu")(L.GlobalAveragePooling2D()(base.output))
        model = keras.Model(base.input, L.Dense(6, activation="softmax", dtype="float32")(x))
        self.check(model, KERAS, tolerance=2e-2)

    def test_trained_with_frozen_layers_within(self):
        """What trains comes first in the older files' lists of weights."""
        base = self.base(spread=0.3)
        for i, layer in enumerate(base.layers):
            layer.trainable = i in (2, 8, 17)
        model = keras.Sequential([base, L.GlobalAveragePooling2D(), L.Dense(6, activation="softmax")])
        model.build((None, SIZE, SIZE, 3))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(self.pixels / 255, np.arange(6), verbose=0)
        self.check(model, {"--preprocessing": "unit"}, pixels=self.pixels / 255)

    def trunk(self, *, named, normed, inputs):
        """vgg11 with Keras' default names, or with a VGG's and BatchNorms of default names."""
        x, random = inputs, np.random.default_rng(5)
        for block, (count, units) in enumerate(zip((1, 1, 2, 2, 2), (64, 128, 256, 512, 512)), 1):
            for i in range(1, count + 1):
                name = {"name": f"block{block}_conv{i}"} if named else {}
                x = L.Conv2D(units, 3, padding="same", activation=None if normed else "relu",
                             kernel_initializer="he_normal", **name)(x)
                if normed:
                    x = L.ReLU()(L.BatchNormalization()(x))
            x = L.MaxPooling2D()(x)
        model = keras.Model(inputs, x)
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        return model

    def test_bases_of_default_names(self):
        for named in (False, True):
            for normed in (False, True):
                keras.utils.set_random_seed(1)
                base = self.trunk(named=named, normed=normed, inputs=keras.Input((SIZE, SIZE, 3)))
                for i, layer in enumerate(base.layers):
                    layer.trainable = i in (2, 9)
                inputs = keras.Input((SIZE, SIZE, 3))
                x = L.GlobalAveragePooling2D()(base(L.Rescaling(1 / 255)(inputs)))
                model = keras.Model(inputs, L.Dense(6, activation="softmax")(x))
                self.check(model, pixels=self.pixels)
                want = np.moveaxis(np.asarray(base.predict(self.pixels / 255, verbose=0)), 3, 1)
                for suffix in (".h5", ".keras"):
                    out = self.folder / "maps.npy"
                    self.succeed("features", *self.images, "-o", out, "--backbone", "vgg11_bn" if normed else "vgg11",
                                 "--input-size", SIZE, "--weights", self.folder / f"theirs{suffix}")
                    self.assertLess(np.abs(np.load(out) - want).max() / np.abs(want).max(), 1e-4, (named, normed, suffix))

    @unittest.skipUnless(IS_KERAS_3, "Keras 2's has no antialias")
    def test_resizing_with_antialias(self):
        from graft_testing import read_safetensors
        for config, want in (({"antialias": True}, "bilinear"), ({}, "bilinear-noaa")):
            model = keras.Sequential([keras.Input((None, None, 3)), L.Resizing(SIZE, SIZE, **config), L.Rescaling(1 / 255),
                                      self.base(spread=0.3), L.GlobalAveragePooling2D(), L.Dense(6, activation="softmax")])
            self.check(model, pixels=self.pixels)
            metadata = read_safetensors(self.folder / "ours.safetensors")[1]
            self.assertIn(f'"{want}"', metadata["preprocessing"])

    def refuse(self, model, text, *flags):
        for suffix in (".keras", ".h5"):
            path = self.folder / f"no{suffix}"
            model.save(str(path))
            self.fail_with(1, text, "weights", "convert", path, self.folder / "no.safetensors", "--classes",
                           ",".join(NAMES), "--preprocessing", "keras")

    def test_what_graft_has_not_is_named(self):
        base = self.base(until="block3_pool")

        def with_head(*layers):
            x = base.output
            for layer in layers:
                x = layer(x)
            return keras.Model(base.input, x)
        end = [L.GlobalAveragePooling2D(), L.Dense(6, activation="softmax")]
        self.refuse(with_head(L.GlobalAveragePooling2D(), L.Dense(8, activation="gelu", name="odd"),
                              L.Dense(6, activation="softmax")),
                    "layer odd (Dense) has the activation gelu")
        self.refuse(with_head(L.Conv2D(256, 1, name="one"), *end), "layer one (Conv2D) has a kernel of")
        self.refuse(with_head(L.PReLU(name="p"), *end), "layer p (PReLU) is of a kind that Graft does not have")
        self.refuse(with_head(L.GlobalAveragePooling2D(), L.Dense(6, activation="sigmoid", name="many")), "many")
        self.refuse(with_head(L.GlobalAveragePooling2D(), L.Dense(1, "softmax", name="value")), "value")
        self.refuse(keras.Model(base.input, [L.Dense(3)(L.Flatten()(base.output)), L.Dense(2)(L.Flatten()(base.output))]),
                    "outputs")
        both = L.Concatenate(name="both")([L.GlobalAveragePooling2D()(base.output), L.GlobalMaxPooling2D()(base.output)])
        self.refuse(keras.Model(base.input, L.Dense(6, activation="softmax")(both)), "straight list")


if __name__ == "__main__":
    print("Keras", keras.__version__)
    t.main()
