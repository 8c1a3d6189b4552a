"""Weights that Keras writes, in every layout and nesting: the backbone is taken, and its features agree."""
import graft_testing as t
import keras
import numpy as np
from PIL import Image

L = keras.layers
SIZE = 48


class KerasWeights(t.TestCase):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        self.image = self.folder / "x.png"
        small = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        small.resize((SIZE, SIZE), Image.BICUBIC).save(self.image)
        self.x = keras.applications.vgg16.preprocess_input(np.asarray(Image.open(self.image), "f4")[None].copy())

    def tearDown(self):
        self.policy("float32")

    def policy(self, name):
        module = keras.mixed_precision if hasattr(keras.mixed_precision, "set_global_policy") else None
        (module.set_global_policy if module else keras.config.set_dtype_policy)(name)

    def base(self, application=keras.applications.VGG16):
        keras.utils.set_random_seed(1)
        model = application(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
        for variable in model.weights:  # else biases are zeros, whose order nobody sees
            if len(variable.shape) == 1:
                variable.assign(np.random.default_rng(2).normal(0, 0.05, variable.shape))
        return model

    def renamed(self, base, prefix):
        def clone(layer):
            config = layer.get_config()
            config["name"] = prefix + config["name"]
            return layer.__class__.from_config(config)
        model = keras.models.clone_model(base, clone_function=clone)
        model.set_weights(base.get_weights())
        return model

    def check(self, model, base, backbone="vgg16", suffixes=(".keras", ".weights.h5", ".h5"), tolerance=1e-5):
        want = base.predict(self.x, verbose=0).astype("f4").transpose(0, 3, 1, 2)
        for suffix in suffixes:
            path = self.folder / f"model{suffix}"
            (model.save_weights if suffix == ".weights.h5" else model.save)(str(path))
            out = self.folder / "out.npy"
            self.succeed("features", self.image, "-o", out, "--backbone", backbone, "--weights", path, "--input-size",
                         SIZE)
            got = np.load(out)
            self.assertEqual(got.shape, want.shape)
            self.assertLess(np.abs(got - want).max() / np.abs(want).max(), tolerance, suffix)
            about = self.succeed_json("weights", "inspect", path, "--json")["files"][0]
            self.assertEqual([fit["backbone"] for fit in about["fits"]], [backbone])

    def test_bare(self):
        for application, name in ((keras.applications.VGG16, "vgg16"), (keras.applications.VGG19, "vgg19")):
            base = self.base(application)
            self.check(base, base, name)

    def test_inside_a_sequential_model(self):
        base = self.base()
        model = keras.Sequential([base, L.Flatten(), L.Dense(16, activation="relu"), L.BatchNormalization(),
                                  L.Dropout(0.2), L.Dense(3, activation="softmax")])
        model.build((None, SIZE, SIZE, 3))
        self.check(model, base)

    def test_inside_a_functional_model(self):
        base = self.base()
        inputs = keras.Input((SIZE, SIZE, 3))
        x = L.GlobalAveragePooling2D()(base(L.RandomFlip()(inputs)))
        model = keras.Model(inputs, L.Dense(3, name="out")(L.Dense(8, name="hidden")(x)))
        self.check(model, base)

    def test_inlined(self):
        base = self.base()
        x = L.Conv2D(7, 3, padding="same", name="more")(base.output)
        x = L.Dense(3)(L.BatchNormalization()(L.Flatten()(x)))
        self.check(keras.Model(base.input, x), base)

    def test_a_model_in_a_model_in_a_model(self):
        base = self.base()
        inputs = keras.Input((SIZE, SIZE, 3))
        encoder = keras.Model(inputs, L.GlobalMaxPooling2D()(base(inputs)), name="encoder")
        outer = keras.Input((SIZE, SIZE, 3))
        self.check(keras.Model(outer, L.Dense(2)(encoder(outer))), base)

    def test_renamed(self):
        base = self.base()
        renamed = self.renamed(base, "base_")
        self.check(renamed, base)
        self.check(keras.Sequential([renamed, L.Flatten(), L.Dense(3)]), base)

    def test_policies(self):
        for policy, tolerance in (("mixed_float16", 2e-2), ("mixed_bfloat16", 5e-2), ("float16", 2e-2),
                                  ("bfloat16", 5e-2)):
            self.policy(policy)
            base = self.base()
            model = keras.Sequential([base, L.GlobalAveragePooling2D(), L.Dense(3)])
            model.build((None, SIZE, SIZE, 3))
            self.check(model, base, tolerance=tolerance)

    def test_trained(self):
        """The optimiser's variables are in the file too."""
        base = self.base()
        model = keras.Sequential([base, L.GlobalAveragePooling2D(), L.Dense(2, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(self.x, np.zeros(1), verbose=0)
        self.check(model, base)


if __name__ == "__main__":
    print("Keras", keras.__version__)
    t.main()
