"""ONNX models that Keras writes by way of tf2onnx, whole: Graft's answers are ONNX Runtime's. A process of its own, as
TensorFlow and PyTorch's newer exporter cannot be in one."""
import importlib.util
import sys

import keras
import numpy as np
from onnx_classifiers import Classifiers, answers, softmax, t

if importlib.util.find_spec("tf2onnx") is None:
    print("SKIPPED: no tf2onnx")
    sys.exit(0)


class Keras(Classifiers):
    def test_keras_export(self):
        L = keras.layers
        size = (64, 96, 3)
        vgg = lambda: keras.applications.VGG16(weights=None, include_top=False, input_shape=size)

        def flat():
            base = vgg()
            x = L.Flatten()(base.output)
            x = L.BatchNormalization()(x)
            x = L.Dropout(0.2)(L.Dense(8, activation="relu")(x))
            return keras.Model(base.input, L.Dense(4, activation="softmax")(x))

        def means():
            return keras.Sequential([keras.Input(size), L.Rescaling(1 / 255), vgg(), L.GlobalAveragePooling2D(),
                                     L.Dense(8), L.BatchNormalization(), L.ReLU(), L.Dense(4, activation="softmax")])

        def maxima():
            image = keras.Input(size)
            x = vgg()(keras.applications.vgg16.preprocess_input(image))
            return keras.Model(image, L.Dense(1, activation="sigmoid")(L.GlobalMaxPooling2D()(x)))

        def convolution():
            image = keras.Input(size)
            x = vgg()(L.Rescaling(1 / 127.5, offset=-1)(image))
            x = L.BatchNormalization()(L.Conv2D(16, 3, padding="same", activation="relu")(x))
            return keras.Model(image, L.Dense(4)(L.Flatten()(x)))

        photos, pixels = self.photos(64, 96)
        for make, options in ((flat, ("--preprocessing", "keras")), (means, ()), (maxima, ()), (convolution, ())):
            keras.utils.set_random_seed(3)
            model = make()
            for w in model.weights:
                draw = np.random.default_rng(len(w.path))
                if w.path.endswith("kernel"):
                    fan = int(np.prod(w.shape[:-1]))
                    w.assign(draw.normal(0, (2 / fan) ** 0.5, w.shape))
                elif w.path.endswith(("moving_variance", "gamma")):
                    w.assign(draw.uniform(0.5, 2, w.shape))
                elif w.path.endswith(("bias", "beta", "moving_mean")):
                    w.assign(draw.normal(0, 0.1, w.shape))
            x = pixels if make is not flat else pixels[..., ::-1] - np.float32([103.939, 116.779, 123.68])
            if make in (flat, maxima):  # activations of raw levels are large: answers should not be 0 and 1
                last = model.layers[-1]
                last.kernel.assign(last.kernel / 100)
            model(np.zeros((1, *size), "f4"))
            path = self.folder / f"{make.__name__}.onnx"
            model.export(str(path), format="onnx", verbose=False)
            want = answers(path, x)
            if make is convolution:
                want = softmax(want)
            if make is maxima:
                want = np.concatenate([1 - want, want], 1)
            with self.subTest(make.__name__):
                self.check(path, photos, want, *options)


del Classifiers  # it has no tests of its own

if __name__ == "__main__":
    t.main()
