"""VGG16 trunk, forward: Graft beside current PyTorch, ONNX Runtime, OpenVINO, TensorFlow and ncnn
from PyPI, interleaved in one process group. Run through bench/peers.sh, which makes the environment.

    bench/peers.sh build [REPEATS] [fp32|default]

`fp32`: all in float32. `default`: each as it comes, which may be bfloat16 where the processor has it, and
those that can in bfloat16, beside Graft in both (bf16 where this processor has it).
"""
import concurrent.futures
import os
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = len(os.sched_getaffinity(0))
os.environ.update(OMP_NUM_THREADS=str(THREADS), TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1",
                  TF_NUM_INTRAOP_THREADS=str(THREADS), TF_NUM_INTEROP_THREADS="1")
# These are set on some machines for old OpenBLAS builds and would slow NumPy's users down.
os.environ.pop("OPENBLAS_CORETYPE", None)

import numpy as np  # noqa: E402

COUNTS, CHANNELS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)


def weights():
    random = np.random.default_rng(0)
    inputs = 3
    for count, channels in zip(COUNTS, CHANNELS):
        for i in range(count):
            w = random.standard_normal((channels, inputs, 3, 3), dtype="f4")
            yield w * np.float32((2 / (9 * inputs)) ** 0.5), np.zeros(channels, "f4"), i == count - 1
            inputs = channels


def make_onnx(path, batch, size):
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    nodes, initializers, name = [], [], "x"
    for i, (w, b, pool) in enumerate(weights()):
        initializers += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Conv", [name, f"w{i}", f"b{i}"], [f"c{i}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        name = f"r{i}"
        if pool:
            nodes.append(helper.make_node("MaxPool", [name], [f"p{i}"], kernel_shape=[2, 2],
                                          strides=[2, 2]))
            name = f"p{i}"
    graph = helper.make_graph(
        nodes, "vgg16", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def onnx_runtime(path, x):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda: session.run(None, {"x": x})[0]


def openvino(path, x, precision="f32"):
    import openvino
    hint = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": THREADS, **hint})
    version = openvino.__version__.split("-")[0]
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    name = {"f32": f"OpenVINO {version}", "bf16": f"OpenVINO {version} bf16"}.get(
        precision, f"OpenVINO {version} as it comes ({used})")
    return name, lambda: compiled([x])[0]


def openvino_default(path, x):
    return openvino(path, x, None)


def openvino_bf16(path, x):
    return openvino(path, x, "bf16")


def pytorch(_, x, bf16=False):
    import torch
    torch.set_num_threads(THREADS)
    layers = []
    for w, b, pool in weights():
        conv = torch.nn.Conv2d(w.shape[1], w.shape[0], 3, padding=1)
        conv.weight.data, conv.bias.data = torch.from_numpy(w), torch.from_numpy(b)
        layers += [conv, torch.nn.ReLU(inplace=True)] + ([torch.nn.MaxPool2d(2)] if pool else [])
    model = torch.nn.Sequential(*layers).eval().requires_grad_(False)
    t = torch.from_numpy(x)
    name = f"PyTorch {torch.__version__.split('+')[0]}"
    if not bf16:
        return name, lambda: model(t).numpy()
    small = model.to(memory_format=torch.channels_last, dtype=torch.bfloat16)
    return name + " bf16", lambda: small(
        t.to(memory_format=torch.channels_last, dtype=torch.bfloat16)).float().numpy()


def pytorch_bf16(_, x):
    return pytorch(_, x, bf16=True)


def tensorflow(_, x):
    import tensorflow as tf
    model = tf.keras.Sequential([tf.keras.Input(x.shape[2:] + (3,))])
    for w, b, pool in weights():
        layer = tf.keras.layers.Conv2D(w.shape[0], 3, padding="same", activation="relu")
        model.add(layer)
        layer.set_weights([w.transpose(2, 3, 1, 0), b])
        if pool:
            model.add(tf.keras.layers.MaxPool2D())
    call = tf.function(lambda t: model(t, training=False))
    t = tf.constant(x.transpose(0, 2, 3, 1))
    return f"TensorFlow {tf.__version__}", lambda: call(t).numpy().transpose(0, 3, 1, 2)


def ncnn(path, x, streams=1, exact=True):
    """ncnn takes one image at a time: all threads on each, or `streams` images at once."""
    import ncnn as library
    if len(x) < streams:
        raise ImportError("one image gives ncnn no second stream")
    lines, blobs, name = [], 1, "x"
    stem = path.removesuffix(".onnx")
    with open(stem + ".bin", "wb") as binary:
        for i, (w, b, pool) in enumerate(weights()):
            lines.append(f"Convolution c{i} 1 1 {name} c{i} 0={w.shape[0]} 1=3 4=1 5=1 6={w.size} 9=1")
            binary.write(b"\0\0\0\0" + w.tobytes() + b.tobytes())
            name, blobs = f"c{i}", blobs + 1
            if pool:
                lines.append(f"Pooling p{i} 1 1 {name} p{i} 0=0 1=2 2=2 5=1")
                name, blobs = f"p{i}", blobs + 1
    with open(stem + ".param", "w") as text:
        text.write(f"7767517\n{len(lines) + 1} {blobs}\nInput x 0 1 x\n" + "\n".join(lines) + "\n")
    net = library.Net()
    net.opt.num_threads = max(1, THREADS // streams)
    if exact:  # it rounds to 16 bits where it may
        net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_fp16_packed = False
        net.opt.use_bf16_storage = False
    net.load_param(stem + ".param")
    net.load_model(stem + ".bin")

    def one(image):
        with net.create_extractor() as extractor:
            extractor.input("x", library.Mat(image).clone())
            return np.array(extractor.extract(name)[1])

    def run():
        return np.stack(list(map(one, x) if streams == 1 else pool.map(one, x)))

    pool = concurrent.futures.ThreadPoolExecutor(streams)
    return f"ncnn {library.__version__}" + f" × {streams}" * (streams > 1) + " as it comes" * (not exact), run


def ncnn_streams(path, x):
    return ncnn(path, x, streams=2)


def ncnn_default(path, x):
    return ncnn(path, x, exact=False)


# Those of each mode, and how far they may be from the first.
MODES = {"fp32": ((onnx_runtime, openvino, pytorch, tensorflow, ncnn, ncnn_streams), 1e-3),
         "default": ((onnx_runtime, openvino_default, openvino_bf16, pytorch, pytorch_bf16, tensorflow,
                      ncnn_default), 0.1)}


class Graft:
    def __init__(self, build, size, batch, precision):
        self.process = subprocess.Popen([f"{build}/bench/trunk_bench", "vgg16", str(size), str(batch),
                                         str(THREADS), precision], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                        bufsize=1)
        self.there = self.process.stdout.readline() == "ready\n"

    def seconds(self):
        self.process.stdin.write("run\n")
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def processor():
    with open("/proc/cpuinfo") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = set(lines.get("flags", "").split())
    sets = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_fp16") if f in flags]
    return f"{lines.get('model name', 'unknown processor')} ({', '.join(sets)})"


def main():
    build, repeats = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
    mode = sys.argv[3] if len(sys.argv) > 3 else "fp32"
    makers, tolerance = MODES[mode]
    print(f"VGG16 trunk on {processor()}, {THREADS} threads, {mode}; medians of {repeats} interleaved "
          "runs; ratio: Graft's time over the peer's, least–most")
    for size, batch in ((224, 8), (224, 1), (150, 16)):
        x = np.random.default_rng(1).standard_normal((batch, 3, size, size), dtype="f4")
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/vgg16.onnx"
            make_onnx(path, batch, size)
            peers, first = [], None
            for make in makers:
                try:
                    name, run = make(path, x)
                    out = run()
                except ImportError as error:
                    print(f"left out: {error}")
                    continue
                first = out if first is None else first
                error = np.abs(out - first).max() / np.abs(first).max()
                assert error < tolerance, f"{name} computes something else: {error}"
                peers.append((name, run))
            grafts = {precision: Graft(build, size, batch, precision)
                      for precision in (("fp32",) if mode == "fp32" else ("fp32", "bf16"))}
            grafts = {precision: graft for precision, graft in grafts.items() if graft.there}
            times = {name: [] for name, _ in peers}
            mine = {precision: [] for precision in grafts}
            for _ in range(repeats):
                for precision, graft in grafts.items():
                    mine[precision].append(graft.seconds())
                for name, run in peers:
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
            for graft in grafts.values():
                graft.close()
        for precision, own in mine.items():
            print(f"\n{size}x{size}, batch {batch}: Graft {precision} "
                  f"{1e3 * statistics.median(own) / batch:.1f} ms an image")
            for name, seconds in times.items():
                ratios = sorted(a / b for a, b in zip(own, seconds))
                print(f"  {name:36} {1e3 * statistics.median(seconds) / batch:7.1f} ms  "
                      f"{statistics.median(ratios):.3f}  {ratios[0]:.3f}–{ratios[-1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
