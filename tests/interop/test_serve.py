"""graft serve with clients of others: Triton's for the Open Inference Protocol, schemathesis on the API's description."""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import graft_testing as t
import numpy as np
from PIL import Image

try:
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    print("SKIPPED:", error)
    sys.exit(0)


class Serve(t.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.base = pathlib.Path(tempfile.mkdtemp(prefix="graft-serve-interop-"))
        t.draw_scenes(cls.base / "data", 6)
        done = t.run("train", cls.base / "data", "--backbone", "vgg-mini", "--epochs", "2", "--input-size", "48", "-o",
                     cls.base / "scenes", "--quiet", "--no-report")
        assert done.returncode == 0, done.stderr
        cls.process = subprocess.Popen([str(t.GRAFT), "serve", str(cls.base / "scenes"), "--port", "0", "--json"],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        address = ""
        while not address.endswith("}\n"):
            address += cls.process.stdout.readline()
        cls.port = json.loads(address)["port"]
        cls.images = sorted((cls.base / "data").rglob("*.jpg"))[:4]

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        assert cls.process.wait(timeout=60) == 0
        cls.process.stdout.close()
        shutil.rmtree(cls.base)

    def test_tritonclient(self):
        client = triton.InferenceServerClient(f"127.0.0.1:{self.port}")
        self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready("scenes"))
        self.assertEqual(client.get_server_metadata()["name"], "graft")
        version = client.get_model_metadata("scenes")["versions"][0]
        want = self.succeed_json("predict", self.base / "scenes", *self.images, "--json", "--logits")
        logits = np.array([p["logits"] for p in want["predictions"]], "f4")
        labels = [p["label"] for p in want["predictions"]]
        pixels = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in self.images])
        files = np.array([p.read_bytes() for p in self.images], dtype=np.object_)
        for name, values, kind in (("image", pixels, "UINT8"), ("encoded", files, "BYTES")):
            for binary in (True, False):
                if name == "encoded" and not binary:
                    continue  # a JPEG is no JSON text
                data = triton.InferInput(name, values.shape, kind)
                data.set_data_from_numpy(values, binary_data=binary)
                outputs = [triton.InferRequestedOutput(o, binary_data=binary) for o in ("logits", "label")]
                for more in ({}, {"model_version": version}):
                    got = client.infer("scenes", [data], outputs=outputs, request_id="7", **more)
                    np.testing.assert_allclose(got.as_numpy("logits"), logits, atol=1e-5)
                    self.assertEqual([x.decode() if isinstance(x, bytes) else x for x in got.as_numpy("label")], labels)
                    self.assertEqual(got.get_response()["id"], "7")
        every = client.infer("scenes", [data])
        np.testing.assert_allclose(every.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)
        pending = [client.async_infer("scenes", [data]) for _ in range(8)]
        for each in pending:
            np.testing.assert_allclose(each.get_result().as_numpy("logits"), logits, atol=1e-5)
        with self.assertRaisesRegex(InferenceServerException, "no model is called 'nobody'"):
            client.infer("nobody", [data])
        client.close()

    def test_schemathesis(self):
        """What the description allows and what it does not: never a server error, and only what it describes."""
        program = pathlib.Path(sys.executable).with_name("schemathesis")
        done = subprocess.run([str(program), "run", f"http://127.0.0.1:{self.port}/openapi.json", "--max-examples", "40",
                               "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
                               "response_schema_conformance", "--seed", "1", "--no-color"],
                              capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])


if __name__ == "__main__":
    t.main()
