"""registries.d means here what it means to skopeo: the same files lead to the same signature, or to none."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.signing import payload, policy, put_signature, write_json
from support.trusting import REPOSITORY, Place

pytestmark = pytest.mark.node

HERE = {"lookaside": "file://$L"}
AWAY = {"lookaside": "file:///no/such/place"}
CASES: dict[str, tuple[list[Any], bool]] = {
    # label: files ($H the host, $L the lookaside), whether the signature is found
    "no file": ([], False),
    "the default": ([{"default-docker": HERE}], True),
    "the default by its old name": ([{"default-docker": {"sigstore": "file://$L"}}], True),
    "the new name wins": ([{"default-docker": {**HERE, "sigstore": "file:///no"}}], True),
    "a host": ([{"docker": {"$H": HERE}}], True),
    "a namespace": ([{"docker": {"$H/team": HERE}, "default-docker": AWAY}], True),
    "a repository": ([{"docker": {"$H/team/app": HERE, "$H/team": AWAY}}], True),
    "a tag": ([{"docker": {"$H/team/app:v1": HERE, "$H/team/app": AWAY}}], True),
    "another tag": ([{"docker": {"$H/team/app:v2": HERE}}], False),
    "half a namespace": ([{"docker": {"$H/te": HERE}}], False),
    "the most specific that says something": ([{"docker": {"$H/team": {"use-sigstore-attachments": False}, "$H": HERE}}], True),
    "an empty URL says nothing": ([{"docker": {"$H": {"lookaside": ""}}, "default-docker": HERE}], True),
    "a wildcard": ([{"docker": {"*.0.0.1": HERE}}], True),
    "a wildcard with a port": ([{"docker": {"*.0.0.1:$P": HERE}}], False),
    "staging is not read": ([{"default-docker": {"lookaside-staging": "file://$L"}}], False),
    "two files": ([{"docker": {"a.example": AWAY}}, {"docker": {"$H": HERE}}], True),
    "a scope in two files": ([{"docker": {"$H": HERE}}, {"docker": {"$H": HERE}}], False),
    "a default in two files": ([{"default-docker": HERE}, {"default-docker": HERE}], False),
    "keys that nobody knows": ([{"default-docker": {**HERE, "x": 1}, "more": {"a": []}}], True),
    "no YAML": (["default-docker: [", {"default-docker": HERE}], False),
    "no table": ([{"docker": ["$H"]}, {"default-docker": HERE}], False),
    "no URL": ([{"default-docker": {"lookaside": 7}}], False),
    "an empty file": (["", {"default-docker": HERE}], True),
}


@pytest.mark.parametrize("label", CASES)
def test_the_same_files_lead_to_the_same_signature(place: Place, keys: Any, tmp_path: Path, label: str) -> None:
    files, expected = CASES[label]
    digest, name = place.image()
    lookaside = tmp_path / "lookaside"
    put_signature(lookaside, REPOSITORY, digest, keys.sign(payload(digest, name), keys.good))
    here = Place(place.registry, tmp_path)
    (here.conf_d / "default.yaml").unlink()
    host = place.registry.host
    for number, content in enumerate(files):
        text = content if isinstance(content, str) else json.dumps(content)
        text = text.replace("$H", host).replace("$L", str(lookaside)).replace("$P", host.rpartition(":")[2])
        (here.conf_d / f"{number}.yaml").write_text(text)
    key = base64.b64encode(keys.ring.export(keys.good)).decode()
    rules = write_json(tmp_path / "policy.json", policy({"type": "signedBy", "keyType": "GPGKeys", "keyData": key}))

    argv = ["skopeo", "--policy", str(rules), "--registries.d", str(here.conf_d), "copy", "--src-tls-verify=false"]
    argv += [f"docker://{name}", f"dir:{tmp_path / 'copied'}", "--remove-signatures"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    print("skopeo:", done.stderr)
    verdict = here.verdict(rules, name, tmp_path / "ours")
    assert (verdict is None, done.returncode == 0) == (expected, expected)
