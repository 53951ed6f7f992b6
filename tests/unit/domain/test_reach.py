from __future__ import annotations

import pytest

from app.domain.errors import InvalidFieldError
from app.domain.reach import AllowedHosts, Reach, is_host, is_public, parse_allowed_hosts


@pytest.mark.parametrize("text", ["8.8.8.8", "52.216.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_world_are_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",  # noqa: S104 - an address of nobody
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
    ],
)
def test_addresses_of_the_inside_are_not_however_they_are_spelt(text: str) -> None:
    assert not is_public(text)


def test_what_is_allowed_is_by_name_by_port_or_by_address() -> None:
    allowed = parse_allowed_hosts(" MinIO.internal:9000, s3.lan,10.1.0.0/16 , 10.2.0.5,[fd00::1]:9000,")
    assert allowed.has_name("minio.internal", 9000)
    assert not allowed.has_name("minio.internal", 22)
    assert allowed.has_name("s3.lan", 443)
    assert not allowed.has_name("evil.s3.lan", 443)
    assert allowed.has_address("10.1.255.1")
    assert allowed.has_address("::ffff:10.1.255.1")
    assert allowed.has_address("10.2.0.5")
    assert not allowed.has_address("10.2.0.6")
    assert not allowed.has_address("fd00::1")
    assert allowed.has_name("fd00::1", 9000)
    assert parse_allowed_hosts("") == AllowedHosts()


@pytest.mark.parametrize(
    "text", ["http://minio", "10.0.0.0/8/8", "10.0.0.1/8", "a:b", "a:0", "a:70000", "a b", "*", ":80"]
)
def test_what_is_neither_a_host_nor_a_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="AUTOLOADER_ALLOWED_HOSTS"):
        parse_allowed_hosts(f"good.lan,{text}")


@pytest.mark.parametrize(
    "text", ["s3.example.com", "localhost", "my_minio", "10.0.0.1", "::1", "xn--mnchen-3ya.de", "3com.x1"]
)
def test_names_and_addresses_are_hosts(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize(
    "text",
    ["", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "::0001", "a.", ".a", "a..b", "-a", "münchen.de", "a#b", "a@b"],
)
def test_odd_spellings_are_not(text: str) -> None:
    """A resolver and the store's library might understand them differently."""
    assert not is_host(text)


def test_paths_are_within_the_roots_and_never_in_what_is_the_programs_own() -> None:
    reach = Reach(roots=(b"/srv/in", b"/data"), never=(b"/srv/in/home/secret.key", b"/data/warehouse"))
    for path in (b"/srv/in", b"/srv/in/a", b"/data/x/y", b"/data/warehouse2"):
        assert reach.has_path(path)
    for path in (b"/srv", b"/srv/inside", b"/srv/in/home/secret.key", b"/data/warehouse", b"/data/warehouse/t", b"/"):
        assert not reach.has_path(path)
    assert not Reach().has_path(b"/srv/in")
    assert Reach(roots=(b"/",), never=(b"/proc",)).has_path(b"/etc")
    assert not Reach(roots=(b"/",), never=(b"/proc",)).has_path(b"/proc/self/environ")


def test_of_a_hosts_addresses_those_that_may_be_reached() -> None:
    allowed = parse_allowed_hosts("hooks.internal:9000, 10.1.0.0/16")
    addresses = ("8.8.8.8", "10.1.2.3", "10.2.0.1", "127.0.0.1")
    assert allowed.reachable("example.org", 443, addresses) == ("8.8.8.8", "10.1.2.3")
    assert allowed.reachable("Hooks.Internal.", 9000, addresses) == addresses
    assert allowed.reachable("hooks.internal", 443, addresses) == ("8.8.8.8", "10.1.2.3")
