"""What the checks of ONNX models as classifiers share: Graft's answers are to be ONNX Runtime's."""
import graft_testing as t
import numpy as np
import onnxruntime
from PIL import Image


def answers(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first, *others = session.get_inputs()
    # Keras leaves inputs behind that nothing reads.
    feed = {other.name: np.zeros(other.shape, "f4") for other in others}
    return session.run(None, {first.name: np.ascontiguousarray(x, "f4"), **feed})[0]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Classifiers(t.TestCase):
    def photos(self, height, width, count=4):
        """Images that have the size already, and their pixels."""
        random = np.random.default_rng(7)
        paths, pixels = [], []
        for i in range(count):
            small = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
            image = small.resize((width, height), Image.BICUBIC)
            paths.append(self.folder / f"{i}.png")
            image.save(paths[-1])
            pixels.append(np.asarray(image, "f4"))
        return paths, np.stack(pixels)

    def check(self, path, photos, want, *options, tolerance=1e-4):
        """Converts the file; its probabilities must be `want`."""
        classes = [f"c{i}" for i in range(want.shape[1])]
        model = self.folder / "model.safetensors"
        self.succeed("weights", "convert", path, model, "--classes", ",".join(classes), *options)
        done = self.succeed_json("predict", model, *photos, "--json", "--top", len(classes))
        got = np.array([[{top["label"]: top["probability"] for top in row["top"]}[name] for name in classes]
                        for row in done["predictions"]])
        self.assertLess(np.abs(got - want).max(), tolerance, path)
        # Answers that differ from image to image, else this would show nothing.
        self.assertGreater(np.abs(want - want[0]).max(), 1e-3)
        model.unlink()
