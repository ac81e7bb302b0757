"""What a person says about TLS wins over the files, for every host of the call."""

import asyncio
from pathlib import Path

import pytest
from support.registry import PASSWORD, USERNAME, run_registry

from criollo.aio import threads
from criollo.errors import CriolloError, Invalid
from criollo.oci.reference import Reference
from criollo.registry.auth import Credentials
from criollo.registry.client import Registry
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mirror, Rule
from criollo.registry.tags import list_tags
from criollo.registry.terms import USUAL, Terms, on_terms

REF = Reference.parse("h.example/team/app:1")
SHOWN = Credentials(username=USERNAME, password=PASSWORD)


def rules() -> Hosts:
    return Hosts([Rule(prefix="h.example", location="h.example", mirror=[Mirror(location="m.example", insecure=True)])])


@pytest.mark.parametrize(("verify", "insecure"), [(None, [True, False]), (True, [False, False]), (False, [True, True])])
def test_each_endpoint_is_as_it_is_said(verify: bool | None, insecure: list[bool]) -> None:
    hosts = rules().on(Terms(verify=verify))
    assert [each.is_insecure for each in hosts.endpoints(REF)] == insecure
    assert hosts.is_insecure("token.example") is (verify is False)
    assert hosts.on_host("h.example").is_insecure is (verify is False)
    assert [each.is_insecure for each in rules().endpoints(REF)] == [True, False]


def test_a_directory_of_certificates_serves_every_host(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    hosts = rules().on(Terms(certificates=str(tmp_path)).checked())
    assert hosts.tls("any.example").authorities == (str(tmp_path / "ca.crt"),)
    for wrong in ("relative", str(tmp_path / "none")):
        with pytest.raises(Invalid, match="cert-dir"):
            Terms(certificates=wrong).checked()


def test_the_client_of_the_node_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        node = Registry(Hosts(), user_agent="test")
        try:
            async with on_terms(node, USUAL) as same:
                assert same is node
            ref = Reference.parse(private.reference("none", "1"))
            for client_terms in (Terms(verify=False), Terms(certificates=str(tmp_path))):
                async with on_terms(node, client_terms) as own:
                    with pytest.raises(CriolloError, match="not found"):
                        await list_tags(own, ref, SHOWN)
            with pytest.raises(CriolloError, match="certificate"):
                await list_tags(node, ref, SHOWN)
        finally:
            await node.close()
            threads.close()

    with run_registry("basic", tls=True) as private:
        assert private.ca is not None
        (tmp_path / "ca.crt").write_bytes(private.ca.read_bytes())
        asyncio.run(main())
