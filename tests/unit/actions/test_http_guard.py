"""Where `http.request` connects to: checked addresses only, whatever names, redirects and the environment say."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from parallelizer.actions.http import connections, request
from parallelizer.actions.http.addresses import may_be_called, parse_networks
from parallelizer.actions.http.errors import (
    AddressRefused,
    ConnectionFailed,
    HttpError,
    RequestRefused,
)
from tests.support.http_calls import Names, call, context
from tests.support.web import Site, serve_site

PUBLIC = ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2606:4700::1111", "::ffff:8.8.8.8"]
OTHERS = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::a00:1", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:a00:1::", "2002:808:808::", "3fff::1", "4000::1",
    "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_public_internet_may_be_called(address: str) -> None:
    assert may_be_called(address, ())


@pytest.mark.parametrize("address", OTHERS)
def test_all_other_addresses_may_not_unless_their_network_is_allowed(address: str) -> None:
    assert not may_be_called(address, ())
    assert not may_be_called(address, parse_networks(("11.0.0.0/8", "2a00::/16")))
    assert may_be_called(address, parse_networks(("0.0.0.0/0", "::/0")))


def test_an_allowed_ipv4_network_holds_for_its_addresses_written_as_ipv6() -> None:
    allowed = parse_networks(("10.1.0.0/16",))
    assert may_be_called("::ffff:10.1.2.3", allowed)
    assert not may_be_called("::ffff:10.2.2.3", allowed)
    assert not may_be_called("64:ff9b::a01:203", allowed)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "localhost", "LocalHost", "[::1]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "①②⑦.⓪.⓪.①", "127。0。0。1"],
)  # fmt: skip
def test_no_way_of_writing_it_leads_to_an_address_that_is_not_allowed(site: Site, host: str) -> None:
    with pytest.raises(HttpError) as caught:
        call(site.url(host=host), networks=())
    assert isinstance(caught.value, RequestRefused), caught.value
    assert site.received == []


def test_the_error_names_the_address_and_the_setting(names: Names) -> None:
    names.answers["inner.test"] = [["10.1.2.3"]]
    with pytest.raises(AddressRefused, match=r"inner\.test leads to 10\.1\.2\.3.*HTTP_ALLOWED_NETWORKS"):
        call("http://inner.test/")


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_INFO", "javascript:1", "//example.com", "/",
     "", "http://", "http:///path", "https://?q", "unix:/run/x", "http://a b/", "http://[::1", "http://x:99999/",
     "http://x\r\nHost: y/", "http://x/\x00", "ws://127.0.0.1/", None, 7],
)  # fmt: skip
def test_only_http_and_https_urls_with_a_host_are_called(url: Any, names: Names) -> None:
    with pytest.raises(RequestRefused):
        call(url)
    assert names.lookups == []


def test_one_refused_address_of_a_name_refuses_the_name(site: Site, names: Names) -> None:
    names.answers["both.test"] = [["127.0.0.1", "10.0.0.1"]]
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
        call(site.url(host="both.test"))
    assert site.received == []


def test_a_name_that_is_bound_anew_is_looked_up_once_and_the_checked_address_is_called(names: Names) -> None:
    """The second answer would lead to another server."""
    with serve_site("127.0.0.1") as checked, serve_site("127.0.0.2") as other:
        checked.say("/", b"checked")
        names.answers["rebind.test"] = [["127.0.0.1"], ["127.0.0.2"]]
        reply = call(checked.url(host="rebind.test"), networks=("127.0.0.1/32",))
        assert reply["body"] == "checked"
        assert names.lookups == ["rebind.test"]
        assert checked.received[0].headers["host"] == f"rebind.test:{checked.port}"
        assert other.received == []


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site, names: Names) -> None:
    site.say("/", b"here")
    names.answers["two.test"] = [["127.0.0.9", "127.0.0.1"]]
    assert call(site.url(host="two.test"))["body"] == "here"
    assert names.lookups == ["two.test"]


def test_a_host_that_is_not_there_is_told_from_one_that_does_not_answer(names: Names) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1, port \d+: Connection refused"):
            call(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    for host in ("nowhere.invalid", "a" * 70 + ".test", "a..test"):
        with pytest.raises(HttpError, match=r"not found|read as a URL"):
            call(f"http://{host}/")


# TLS


def test_tls_verifies_the_name_and_not_the_address(
    monkeypatch: pytest.MonkeyPatch, names: Names, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    connections._tls.cache_clear()
    try:
        with serve_site(authority=authority) as secure:
            secure.say("/", b"safe")
            names.answers = {"named.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]}
            assert call(secure.url(host="named.test"))["body"] == "safe"
            with pytest.raises(ConnectionFailed, match=r"certificate.*not valid for 'other\.test'"):
                call(secure.url(host="other.test"))
            with pytest.raises(ConnectionFailed, match="certificate"):
                call(secure.url(host="127.0.0.1"))
            assert len(secure.received) == 1
    finally:
        connections._tls.cache_clear()


def test_a_certificate_of_an_unknown_authority_is_refused(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    names.answers["named.test"] = [["127.0.0.1"]]
    with (
        serve_site(authority=trustme.CA()) as secure,
        pytest.raises(ConnectionFailed, match="certificate is not accepted"),
    ):
        call(secure.url(host="named.test"))


# What the environment offers


def test_proxies_and_netrc_of_the_environment_are_ignored(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with serve_site() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hidden\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        site.say("/", b"direct")
        assert call(site.url())["body"] == "direct"
        assert proxy.received == []
    assert "authorization" not in site.received[0].headers


def test_cookies_are_not_kept(site: Site) -> None:
    site.say("/", b"", set_cookie="session=1")

    async def twice() -> None:
        await request(context(), site.url())
        await request(context(), site.url())

    asyncio.run(twice())
    assert ["cookie" in came.headers for came in site.received] == [False, False]
