"""Load on `graft serve` and, beside it, on FastAPI with ONNX Runtime serving the same model's export.

    python3 bench/serve.py BUILD MODEL PHOTOS [--seconds 120] [--clients 64] [--python VENV/bin/python]

Both run on this machine in turn, several times, with the load generator beside them. PHOTOS is a folder of images. Every
answer is compared with `graft predict`. With --python (a Python with fastapi, uvicorn, python-multipart, numpy, pillow and
onnxruntime) the peer runs too. Prints requests a second, latencies, memory, and what share of the engine's own rate it is."""
import argparse
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

PEER = '''
import asyncio, io, json, sys
import numpy as np, onnxruntime, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
options = onnxruntime.SessionOptions()
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
height, width = json.loads(about["input_size"])
labels = json.loads(about["labels"])
app = FastAPI()

@app.get("/readyz")
def ready():
    return "ok"

@app.post("/predict")
def predict(image: UploadFile):  # in FastAPI's thread pool
    pixels = np.asarray(Image.open(image.file).convert("RGB").resize((width, height), Image.BILINEAR))
    p = session.run(["probabilities"], {"image": pixels[None]})[0][0]
    k = int(p.argmax())
    return {"predictions": [{"label": labels[k], "probability": float(p[k])}]}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
'''


def form(path):
    boundary = "b0undary"
    head = (f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
            "Content-Type: image/jpeg\r\n\r\n").encode()
    return head + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def resident(pid):
    """Of the process and its children, in MB."""
    total = 0
    for entry in pathlib.Path("/proc").iterdir():
        try:
            status = (entry / "status").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        if fields and (int(entry.name) == pid or int(fields["PPid"]) == pid):
            total += int(fields.get("VmRSS", "0 kB").split()[0])
    return total / 1024


def wait_until_ready(port, process):
    while True:
        assert process.poll() is None, "the server ended"
        try:
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            link.request("GET", "/readyz")
            if link.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)


def load(port, bodies, clients, seconds, wanted, pid):
    """Requests a second, latencies, statuses, the largest difference from `wanted`, memory early and late."""
    latencies, statuses, worst = [], {}, [0.0]
    lock, begin = threading.Lock(), time.monotonic()
    end = begin + seconds

    def client(number):
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        k = number
        while time.monotonic() < end:
            body, kind, name = bodies[k % len(bodies)]
            k += clients
            start = time.monotonic()
            link.request("POST", "/predict", body, {"Content-Type": kind})
            reply = link.getresponse()
            content = reply.read()
            took = time.monotonic() - start
            off = 0.0
            if reply.status == 200:
                got = json.loads(content)["predictions"][0]
                label, probability = wanted[name]
                off = abs(got["probability"] - probability) if got["label"] == label else 1.0
            else:
                time.sleep(float(reply.getheader("Retry-After") or 0) / 10)
            with lock:
                statuses[reply.status] = statuses.get(reply.status, 0) + 1
                worst[0] = max(worst[0], off)
                if reply.status == 200:
                    latencies.append(took)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds * 0.2)
    early = resident(pid)
    time.sleep(max(0, end - time.monotonic() - 0.5))
    late = resident(pid)
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    latencies.sort()
    return {"rate": len(latencies) / took, "p50": statistics.median(latencies), "p99": latencies[int(len(latencies) * 0.99)],
            "statuses": statuses, "worst": worst[0], "early": early, "late": late}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("model")
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--python")
    o = parser.parse_args()
    graft = f"{o.build}/bin/graft"
    photos = sorted(p for p in o.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[:256]
    predicted = json.loads(subprocess.run([graft, "predict", o.model, *map(str, photos), "--json"], check=True,
                                          capture_output=True, text=True).stdout)["predictions"]
    wanted = {pathlib.Path(p["path"]).name: (p["label"], p["probability"]) for p in predicted}
    bodies = [(*form(p), p.name) for p in photos]
    with socket.socket() as probe:  # what the model is, from the server itself
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([graft, "serve", o.model, "--port", str(port), "--quiet"], stdout=subprocess.DEVNULL)
    wait_until_ready(port, process)
    link = http.client.HTTPConnection("127.0.0.1", port)
    link.request("GET", "/models")
    about = json.loads(link.getresponse().read())["models"][0]
    process.terminate()
    process.wait()
    size = f"{about['input']['height']}"
    own = json.loads(subprocess.run([graft, "bench", "--backbone", about["backbone"], "--size", size, "--batch", "16",
                                     "--json"], check=True, capture_output=True, text=True).stdout)
    engine = own["networks"][0]["images_per_second"]
    print(f"{about['backbone']} at {size} pixels; its trunk alone, batches of 16: {engine:.1f} images a second")
    with tempfile.TemporaryDirectory() as folder:
        onnx, peer = f"{folder}/model.onnx", f"{folder}/peer.py"
        subprocess.run([graft, "export", o.model, "-o", onnx, "--quiet"], check=True)
        pathlib.Path(peer).write_text(PEER)
        servers = [("graft serve", [graft, "serve", o.model, "--port", "8091", "--quiet"], 8091)]
        if o.python:
            servers.append(("FastAPI + ONNX Runtime", [o.python, peer, onnx, "8092"], 8092))
        rates = {name: [] for name, _, _ in servers}
        for _ in range(o.rounds):
            for name, command, port in servers:
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
                try:
                    wait_until_ready(port, process)
                    load(port, bodies, o.clients, min(5, o.seconds / 4), wanted, process.pid)  # warm
                    got = load(port, bodies, o.clients, o.seconds, wanted, process.pid)
                finally:
                    process.terminate()
                    process.wait()
                rates[name].append(got["rate"])
                print(f"{name}: {got['rate']:.1f} requests a second ({got['rate'] / engine:.2f} of the engine's rate), p50 "
                      f"{1e3 * got['p50']:.0f} ms, p99 {1e3 * got['p99']:.0f} ms, statuses {got['statuses']}, largest "
                      f"difference of a probability {got['worst']:.1e}, memory {got['early']:.0f} to {got['late']:.0f} MB",
                      flush=True)
        if o.python:
            ratio = statistics.median(a / b for a, b in zip(*rates.values()))
            print(f"graft serve answers {ratio:.2f} times as many")


if __name__ == "__main__":
    sys.exit(main())
