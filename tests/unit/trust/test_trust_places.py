"""trust.places: which places of files could meet what."""

from pathlib import Path

import pytest

from criollo.trust.places import FilePlace
from criollo.trust.requirements import parse_requirements

KEY = {"keyData": "YQ=="}
EXACT = {"signedIdentity": {"type": "exactReference", "dockerReference": "a.b/c:1"}}
SIMPLE = {"type": "signedBy", "keyType": "GPGKeys", **KEY}


@pytest.mark.parametrize(
    ("transport", "demand", "may_be_met"),
    [
        ("oci", {"type": "insecureAcceptAnything"}, True),
        ("dir", {"type": "reject"}, False),
        ("dir", {**SIMPLE, **EXACT}, True),
        ("dir", {"type": "sigstoreSigned", **KEY, **EXACT}, True),
        ("dir", SIMPLE, False),
        ("dir", {**SIMPLE, **EXACT, "keyType": "X509Certificates"}, False),
        ("dir", {**SIMPLE, "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.b/c"}}, True),
        ("dir", {**SIMPLE, "signedIdentity": {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "c.d"}}, False),
        ("oci", {**SIMPLE, **EXACT}, False),
        ("docker-archive", {**SIMPLE, **EXACT}, False),
        ("dir", {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}, False),
    ],
)
def test_what_a_place_could_meet(transport, demand, may_be_met):
    [requirement] = parse_requirements([demand], "x")
    assert (FilePlace(transport, Path("/x")).unmet(requirement) == "") is may_be_met


def test_a_place_is_without_links_and_dots(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    real = tmp_path.resolve()
    assert FilePlace.at("dir", tmp_path / "link/../link/x") == FilePlace("dir", real / "there/x")
