"""The hub: a server on this machine that speaks its interface, and a cache laid out as it does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from random_weights import TINY, random_official_state, random_weights

from dav.errors import ConfigError
from dav.weights.hub import fetch
from dav.weights.save import save_official, save_transformers
from dav.weights.torch_write import write_torch

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Loads each spec and prints, as one line of JSON, its taps, its depth range, or its error.
CHILD = """
import json, sys
from dav.errors import DavError
from dav.weights.load import load_encoder, load_weights
for spec in sys.argv[1:]:
    load = load_encoder if "dinov2" in spec else load_weights
    try:
        found = load(spec)
        architecture = found[1] if load is load_encoder else found.architecture
        print(json.dumps([spec, architecture.taps, architecture.max_depth_m]))
    except DavError as error:
        print(json.dumps([spec, str(error), error.exit_code]))
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """{name: folder} of what the server has."""
    root = tmp_path_factory.mktemp("hub")
    state, weights = random_official_state(TINY, 0), random_weights(TINY, 0)
    v1, v2, dinov2 = (root / name for name in ("v1", "v2", "dinov2"))
    for folder in (v1, v2, dinov2, root / "onnx"):
        folder.mkdir()
    write_torch(v1 / "pytorch_model.bin", state, root="pytorch_model", record="")
    (v1 / "config.json").write_text(json.dumps({"encoder": "vits", "features": 16}))
    write_torch(v2 / "depth_anything_v2_vits.pth", state, root="x", record="")
    encoder = {
        name.removeprefix("pretrained."): values
        for name, values in state.items()
        if name.startswith("pretrained.")
    }
    write_torch(dinov2 / "dinov2_vits14_pretrain.pth", encoder, root="x", record="")
    save_transformers(root / "library", weights)
    save_official(root / "library" / "unused.pth", weights)
    (root / "onnx" / "model.onnx").write_bytes(b"x")
    return {
        "LiheYoung/depth_anything_vits14": v1,
        "depth-anything/Depth-Anything-V2-Small": v2,
        "someone/library": root / "library",
        "someone/dinov2": dinov2,
        "someone/onnx": root / "onnx",
    }


@pytest.fixture(scope="module")
def server(repositories):
    """(address, paths asked for) of a hub on this machine."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            path = self.path.split("?")[0].lstrip("/")
            asked.append(path)
            if path.startswith("api/models/"):
                self.describe(*path.removeprefix("api/models/").partition("/revision/")[::2])
            elif "/resolve/" in path:
                repository, _, rest = path.partition("/resolve/")
                revision, _, name = rest.partition("/")
                self.send_file(repositories[repository] / name, body and revision)

        def describe(self, name, revision):
            if name == "someone/gated":
                self.send(403, {"X-Error-Code": "GatedRepo"})
            elif name not in repositories:
                self.send(404, {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("", "main", "v1.0", COMMIT):
                self.send(404, {"X-Error-Code": "RevisionNotFound"})
            else:
                files = [{"rfilename": path.name} for path in repositories[name].iterdir()]
                told = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files}
                self.send(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

        def send_file(self, path, body):
            content = path.read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            self.send(200, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, content, body)

        def send(self, status, headers, content=b"", body=True):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if body:
                self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_port}", asked
        hub.shutdown()


def load(*specs, home, **variables):
    """{spec: [taps, depth range] or [sentence, exit code]} of loading in a process of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    out = subprocess.run(
        [sys.executable, "-c", CHILD, *specs],
        cwd=ROOT,
        env={**kept, "HF_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return {spec: told for spec, *told in map(json.loads, out.splitlines())}


def test_repositories_are_fetched_once_and_then_found_without_network(server, tmp_path):
    address, asked = server
    expected = {
        "hf:LiheYoung/depth_anything_vits14": [[2, 3, 4, 5], None],
        "hf:depth-anything/Depth-Anything-V2-Small": [[1, 2, 4, 5], None],
        "hf:someone/library@v1.0": [[2, 3, 4, 5], None],
        "hf:someone/dinov2": [[2, 3, 4, 5], None],
    }
    assert load(*expected, home=tmp_path, HF_ENDPOINT=address) == expected
    fetched = {Path(path).name for path in asked if "/resolve/" in path}
    assert {"config.json", "model.safetensors", "pytorch_model.bin"} <= fetched
    assert not fetched & {"unused.pth", "preprocessor_config.json"}
    asked.clear()
    assert load(*expected, home=tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1") == expected
    assert not asked
    unreachable = "http://127.0.0.1:9"
    assert load(*expected, home=tmp_path, HF_ENDPOINT=unreachable) == expected


ERRORS = {
    "hf:someone/absent": "no such repository",
    "hf:someone/gated": "accepted its terms",
    "hf:someone/library@v9": "no revision 'v9'",
    "hf:someone/onnx": "holds no weights that dav reads",
}


def test_what_the_hub_refuses_is_one_sentence_each(server, tmp_path):
    found = load(*ERRORS, home=tmp_path, HF_ENDPOINT=server[0])
    for spec, told in ERRORS.items():
        sentence, code = found[spec]
        assert told in sentence and spec in sentence and "\n" not in sentence
        assert code == (2 if spec == "hf:someone/onnx" else 1)  # as for a folder without weights


def test_a_cache_filled_elsewhere_serves_offline(repositories, tmp_path):
    cache = tmp_path / "hub" / "models--someone--library"
    snapshot = cache / "snapshots" / COMMIT
    for folder in (snapshot, cache / "refs", cache / "blobs"):
        folder.mkdir(parents=True)
    (cache / "refs" / "main").write_text(COMMIT)
    for name in ("config.json", "model.safetensors"):
        content = (repositories["someone/library"] / name).read_bytes()
        blob = cache / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)
    here, commit, absent = "hf:someone/library", f"hf:someone/library@{COMMIT}", "hf:someone/other"
    found = load(here, commit, absent, home=tmp_path, HF_HUB_OFFLINE="1")
    assert found[here] == found[commit] == [[2, 3, 4, 5], None]
    assert "not in the hub's cache" in found[absent][0]


@pytest.mark.parametrize(
    "spec", ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:a b/c", "hf:a/../b", "hf:a/b--c"]
)
def test_a_spec_of_another_form_is_wrong_usage(spec):
    with pytest.raises(ConfigError, match=spec.replace(".", r"\.")):
        fetch(spec)
